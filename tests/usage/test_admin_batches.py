"""Ingest batches in the admin: receipts, found by name, usage event, source and time; nobody changes them."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from customers.models import ApiKey, Organisation
from metrics.materialization import fold
from tests.conftest import Post, record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import create_usage_event
from usage.models import IngestBatch, RejectedRecord, UsageEvent
from usage.references import batch_reference

LIST = "/admin/usage/ingestbatch/"


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def page_of(batch: IngestBatch) -> str:
    return reverse("admin:usage_ingestbatch_change", args=[batch.pk])


def shown(response: Any) -> list[int]:
    assert response.status_code == 200
    return [batch.pk for batch in response.context["cl"].result_list]


def test_a_receipt_tells_what_became_of_every_record(staff: Client, post: Post, compute: UsageEvent) -> None:
    take_in(compute, record(id="known"), record(id="taken"))
    answer = post(
        "/usage/compute_hours",
        [record(id="a"), record(id="known"), record(id="taken", hours=2), record(hours="5"), record(id="b")],
    ).json()

    batch = IngestBatch.objects.latest("id")
    page = staff.get(page_of(batch))
    text = page.content.decode()
    assert page.context["title"] == answer["batch"]
    assert answer["batch"] in text
    assert [page.context[name] for name in ("total", "refused", "kept")] == [5, 2, True]
    assert ApiKey.objects.get().name in text

    records = staff.get(page.context["records_url"]).context["cl"].result_list
    assert sorted(stored.idempotency_key for stored in records) == ["a", "b"]
    entries = staff.get(page.context["rejected_url"]).context["cl"].result_list
    assert sorted(entry.code for entry in entries) == ["conflict", "schema"]


def test_a_receipt_says_whether_a_fold_has_taken_it(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record())
    batch = IngestBatch.objects.get()
    assert "Pending: not folded" in staff.get(page_of(batch)).content.decode()
    assert "Pending" in staff.get(LIST).content.decode()
    fold(compute.pk)
    assert "Folded into the aggregates" in staff.get(page_of(batch)).content.decode()
    assert "Pending" not in staff.get(LIST).content.decode()


def test_a_form_and_a_replay_name_the_person(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5", id="a"))
    entry = RejectedRecord.objects.get()
    payload = '{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z","data":{},"id":"a"}'
    staff.post(reverse("admin:usage_rejectedrecord_change", args=[entry.pk]), {"deed": "replay", "payload": payload})
    text = staff.get(page_of(IngestBatch.objects.get(source="replay"))).content.decode()
    assert "Replay" in text
    assert "Olga Ops" in text


def test_the_list_shows_the_newest_first_and_filters(staff: Client, post: Post, compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema={"type": "object"})
    take_in(compute, record())
    take_in(other, record())
    post("/usage/compute_hours", record())
    first, second, third = IngestBatch.objects.order_by("id")
    name = batch_reference(second.pk, second.received_at)
    asked: list[tuple[dict[str, Any], list[IngestBatch]]] = [
        ({}, [third, second, first]),
        ({"usage_event": compute.pk}, [third, first]),
        ({"source": "api"}, [third]),
        ({"source": "form", "usage_event": other.pk}, [second]),
        ({"batch": name}, [second]),
        ({"batch": name.lower()}, [second]),
        ({"after": second.received_at.isoformat()}, [third, second]),
        ({"before": second.received_at.isoformat()}, [first]),
        ({"before": "2001-01-01"}, []),
    ]
    for query, expected in asked:
        assert shown(staff.get(LIST, query)) == [batch.pk for batch in expected], query


def test_filters_that_cannot_be_read_are_told_and_never_a_fault(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record())
    for name in ("usage_event", "source", "batch", "after", "p"):
        for value in HOSTILE:
            assert staff.get(LIST, {name: value[:5_000]}).status_code in (200, 302), (name, value[:20])
    refused = staff.get(LIST, {"batch": "01J"})
    assert "The name of a batch was expected" in refused.content.decode()
    assert shown(refused) == []
    for identity in ("0", "9" * 30, "abc", "%00"):
        assert staff.get(f"{LIST}{identity}/change/").status_code in (302, 404)


def test_nobody_adds_changes_or_deletes_a_batch(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record())
    batch = IngestBatch.objects.get()
    before = IngestBatch.objects.values().get()
    assert staff.get(f"{LIST}add/").status_code == 403
    assert staff.post(page_of(batch), {"accepted": 9}).status_code == 403
    assert staff.post(f"{LIST}{batch.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post(LIST, {"action": "delete_selected", "_selected_action": [batch.pk], "post": "yes"})
    assert IngestBatch.objects.values().get() == before


def test_an_empty_list_says_what_a_batch_is(staff: Client) -> None:
    assert "leaves its receipt here" in staff.get(LIST).content.decode()


def test_a_batch_of_another_organisation_is_not_there(compute: UsageEvent) -> None:
    take_in(compute, record())
    batch = IngestBatch.objects.get()
    stranger = staff_of(Organisation.objects.create(name="Other"), name="stranger")
    name = batch_reference(batch.pk, batch.received_at)
    assert shown(stranger.get(LIST)) == shown(stranger.get(LIST, {"batch": name})) == []
    assert name not in stranger.get(page_of(batch), follow=True).content.decode()
