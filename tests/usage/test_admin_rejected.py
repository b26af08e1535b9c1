"""The quarantine in the admin: by cause, one entry mended and replayed, many at once, discarded with a reason."""

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from customers.models import Organisation
from tests.conftest import COMPUTE_SCHEMA, record, take_in
from tests.people import HOSTILE, staff_of
from usage import quarantine_forms
from usage.corrections import Actor
from usage.definitions import archive_usage_event, create_usage_event, publish_schema
from usage.models import IngestBatch, RejectedRecord, UsageEvent, UsageRecord
from usage.quarantine import discard_rejected, replay_rejected

LIST = "/admin/usage/rejectedrecord/"
CAUSES = f"{LIST}causes/"
BULK = f"{LIST}bulk/"
ACTOR = Actor(None, "somebody else")
ANYTHING = {"type": "object"}


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def page_of(entry: RejectedRecord) -> str:
    return reverse("admin:usage_rejectedrecord_change", args=[entry.pk])


def only_entry() -> RejectedRecord:
    return RejectedRecord.objects.get()


def shown(response: Any) -> list[str | None]:
    assert response.status_code == 200
    return [entry.idempotency_key for entry in response.context["cl"].result_list]


def statuses() -> dict[str | None, str]:
    return dict(RejectedRecord.objects.values_list("idempotency_key", "status"))


def left_as_it_was(entry: RejectedRecord) -> bool:
    """Whether the entry's row says what it said when it was read."""
    stored = RejectedRecord.objects.get(pk=entry.pk)
    return all(getattr(stored, field.attname) == getattr(entry, field.attname) for field in entry._meta.fields)


# --- by cause ---------------------------------------------------------------------------------------------------------


def test_the_first_page_groups_what_is_open_by_usage_event_and_cause(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5", id="a"), record(hours="5", id="a"), record(hours="6"), record(timestamp="never"))
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=ANYTHING)
    take_in(other, record(customer=""))

    page = staff.get(CAUSES)
    found = [
        (row["usage_event"].slug, row["cause"].code, row["cause"].entries, row["cause"].records)
        for row in page.context["rows"]
    ]
    assert found == [
        ("compute_hours", "schema", 2, 3),
        ("compute_hours", "timestamp", 1, 1),
        ("other", "customer_id", 1, 1),
    ]
    text = page.content.decode()
    assert "&#x27;6&#x27; is not of type &#x27;number&#x27;" in text
    assert "The data does not fit the schema" in text


def test_an_empty_quarantine_says_what_it_is_for(staff: Client) -> None:
    page = staff.get(CAUSES).content.decode()
    assert "Nothing is in quarantine" in page
    assert 'class="tb-count"' not in page
    assert "Nothing is open" in staff.get(LIST).content.decode()


def test_the_sidebar_counts_open_entries_up_to_a_bound(
    staff: Client, compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(compute, *(record(hours=str(number)) for number in range(3)))
    assert '<span class="tb-count">3</span>' in staff.get("/admin/").content.decode()
    monkeypatch.setattr("usage.admin.rejected.MAX_COUNTED", 2)
    assert '<span class="tb-count">2+</span>' in staff.get("/admin/").content.decode()


# --- the list ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(compute: UsageEvent) -> None:
    """Four entries of two usage events, one of them discarded."""
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=ANYTHING)
    take_in(compute, record(hours="1", id="first"))
    take_in(other, record(timestamp="never", id="second"))
    take_in(compute, record(timestamp="never", id="third"), record(hours="2", id="gone"))
    gone = RejectedRecord.objects.get(idempotency_key="gone")
    discard_rejected(compute.pk, [gone.pk], reason="test", actor=ACTOR)


def test_the_list_shows_the_newest_first_and_filters(staff: Client, four: None, compute: UsageEvent) -> None:
    batch = RejectedRecord.objects.get(idempotency_key="third").batch_id
    for query, expected in (
        ("", ["third", "second", "first"]),
        ("code=timestamp", ["third", "second"]),
        (f"usage_event={compute.pk}", ["third", "first"]),
        ("record_id=first", ["first"]),
        ("record_id=nobody", []),
        ("status=discarded", ["gone"]),
        ("after=2001-01-01", ["third", "second", "first"]),
        ("before=2001-01-01", []),
    ):
        assert shown(staff.get(f"{LIST}?{query}")) == expected, query
    # Entries of one batch were seen at one moment: whichever came first.
    assert set(shown(staff.get(f"{LIST}?status=all"))[:2]) == {"gone", "third"}
    assert shown(staff.get(f"{LIST}?status=all"))[2:] == ["second", "first"]
    assert set(shown(staff.get(f"{LIST}?batch={batch}&status=all"))) == {"gone", "third"}
    assert set(shown(staff.get(f"{LIST}?usage_event={compute.pk}&code=schema&status=all"))) == {"gone", "first"}


def test_filters_that_cannot_be_read_are_told_and_never_a_fault(staff: Client, four: None) -> None:
    for name in ("usage_event", "code", "status", "record_id", "after", "batch"):
        for value in HOSTILE:
            response = staff.get(LIST, {name: value[:5_000]})
            assert response.status_code in (200, 302), (name, value[:20])
    assert staff.get(LIST, {"payload__contains": "x"}).status_code == 400
    assert "The filters could not be read" in staff.get(f"{LIST}?after=soon").content.decode()


def test_the_list_asks_as_often_for_many_entries_as_for_one(staff: Client, compute: UsageEvent) -> None:
    counts = []
    for number in range(2):
        take_in(compute, *(record(hours=f"{number}.{part}") for part in range(1 + 9 * number)))
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(LIST).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- one entry --------------------------------------------------------------------------------------------------------


def deed(client: Client, entry: RejectedRecord, name: str, payload: str | None = None) -> Any:
    typed = client.get(page_of(entry)).context["form"]["payload"].value() if payload is None else payload
    return client.post(page_of(entry), {"deed": name, "payload": typed})


def test_the_page_shows_the_payload_as_it_came_and_why_it_was_refused(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="1.50", id="a"))
    page = staff.get(page_of(only_entry()))
    assert page.context["form"]["payload"].value() == quarantine_forms.pretty(only_entry().payload)
    text = page.content.decode()
    for part in ("The data does not fit the schema", "/data/cpu_usage_hours", "once", "Form"):
        assert part in text


@pytest.mark.parametrize("name", ["try", ""])
def test_a_try_tells_what_would_happen_and_changes_nothing(staff: Client, compute: UsageEvent, name: str) -> None:
    take_in(compute, record(hours="5"))
    entry = only_entry()
    batches = IngestBatch.objects.count()

    refused = deed(staff, entry, name)
    assert "It would be refused again" in refused.content.decode()
    publish_schema(compute, ANYTHING)
    assert "It would be stored" in deed(staff, entry, name).content.decode()

    assert left_as_it_was(entry)
    assert not UsageRecord.objects.exists()
    assert IngestBatch.objects.count() == batches


def test_a_mended_payload_is_stored_and_the_entry_closed(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5", id="a"))
    entry = only_entry()
    mended = json.dumps(record(hours=5, id="a"), indent=2).replace("\n", "\r\n")

    response = deed(staff, entry, "replay", mended)

    assert response.status_code == 302
    stored = UsageRecord.objects.get()
    assert stored.data == {"cpu_usage_hours": 5}
    entry.refresh_from_db()
    assert (entry.status, entry.closed_by_name, entry.closing_batch_id) == ("replayed", "Olga Ops", stored.batch_id)
    text = staff.get(page_of(entry)).content.decode()
    assert f"Record {stored.pk}" in text
    assert "Olga Ops" in text
    assert 'name="deed"' not in text


def test_a_replay_that_is_refused_again_stays_open_with_its_new_cause(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    page = staff.post(page_of(only_entry()), {"deed": "replay", "payload": '{\n  "customer_id": "c"\n}'}, follow=True)
    assert "Refused again, nothing was stored" in page.content.decode()
    entry = only_entry()
    assert (entry.status, entry.code, entry.payload) == ("open", "missing_field", '{"customer_id":"c"}')
    assert not UsageRecord.objects.exists()


def test_what_was_not_changed_is_replayed_as_it_came(staff: Client, compute: UsageEvent) -> None:
    come = '{"customer_id": "c",  "timestamp":"2025-06-17T14:03:12Z","data":{"region":"1.50","region":1e3}}'
    take_in(compute, record(hours="5"))
    RejectedRecord.objects.update(payload=come)
    assert deed(staff, only_entry(), "replay").status_code == 302
    assert only_entry().payload == come


def test_a_payload_that_is_no_record_is_an_error_at_the_field(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    entry = only_entry()
    for payload, message in (
        ("", "nothing came"),
        ('{\n  "customer_id": oops}', "Line 2, column 18"),
        ("[]", "not an array"),
        ("5", "not a number"),
        ('{"a": NaN}', "NaN"),
        ("a\0b", "Null characters"),
        ('{"a":' * 50_000, "levels deep"),
        ("x" * 400_000, "at most 300000 characters"),
    ):
        for name in ("try", "replay"):
            response = deed(staff, entry, name, payload)
            assert list(response.context["form"].errors) == ["payload"], payload[:20]
            assert message in str(response.context["form"].errors)
    assert left_as_it_was(entry)


def test_nothing_that_can_be_typed_or_kept_is_a_fault(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    entry = only_entry()
    for value in [
        *HOSTILE,
        '{"customer_id": "\\ud800"}',
        '{"customer_id": "\\u0000"}',
        '{"a": 1e99999}',
        '{"a":1,"a":2}',
    ]:
        for name in ("try", "discard", "x", "\0"):
            assert deed(staff, entry, name, value).status_code in (200, 302), (name, value[:20])
    for value in ["{bad", "", "[" * 500, '{"a":' + "9" * 5_000 + "}", '"' + "x" * 250_000 + '"', "\\ud800"]:
        RejectedRecord.objects.update(payload=value, status="open")
        assert staff.get(page_of(entry)).status_code == 200
        assert staff.post(page_of(entry), {"deed": "try"}).status_code == 200
        assert staff.post(page_of(entry), {"deed": "replay"}).status_code in (200, 302)
    for identity in ("0", "9" * 30, "abc", "%00"):
        assert staff.get(f"{LIST}{identity}/change/").status_code in (302, 404)
        assert staff.get(f"{LIST}{identity}/discard/").status_code in (302, 404)


def test_a_payload_too_long_to_edit_is_replayed_as_it_came(
    staff: Client, compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine_forms, "MAX_EDITABLE", 10)
    take_in(compute, record(hours="5"))
    publish_schema(compute, ANYTHING)
    page = staff.get(page_of(only_entry()))
    assert "payload" not in page.context["form"].fields
    assert "too long to be changed here" in page.content.decode()
    staff.post(page_of(only_entry()), {"deed": "replay"})
    assert UsageRecord.objects.get().data == {"cpu_usage_hours": "5"}


def test_what_somebody_closed_meanwhile_is_told(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    entry = only_entry()
    discard_rejected(compute.pk, [entry.pk], reason="test", actor=ACTOR)
    payload = json.dumps(record())
    response = staff.post(page_of(entry), {"deed": "replay", "payload": payload})
    assert "meanwhile this was closed (discarded)" in response.content.decode()
    assert staff.get(reverse("admin:usage_rejectedrecord_discard", args=[entry.pk])).status_code == 302
    assert not UsageRecord.objects.exists()


def test_an_archived_usage_event_replays_nothing(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    compute.refresh_from_db()
    archive_usage_event(compute, archived=True)
    response = deed(staff, only_entry(), "replay", json.dumps(record()))
    assert "The usage event is archived" in response.content.decode()
    assert only_entry().status == "open"


def test_the_record_that_took_the_id_is_a_click_away(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours=1))
    take_in(compute, record(id="a", hours=2))
    page = staff.get(page_of(only_entry())).content.decode()
    assert reverse("admin:usage_usagerecord_change", args=[UsageRecord.objects.get().pk]) in page


def test_an_entry_is_discarded_with_a_reason(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    entry = only_entry()
    discard = reverse("admin:usage_rejectedrecord_discard", args=[entry.pk])
    chosen = staff.get(discard).context["form"]["chosen"].value()
    for reason in ("", "  ", "a\0b", "x" * 2_001):
        refused = staff.post(discard, {"deed": "discard", "chosen": chosen, "reason": reason})
        assert list(refused.context["form"].errors) == ["reason"]
    assert left_as_it_was(entry)

    assert staff.post(discard, {"deed": "discard", "chosen": chosen, "reason": " a test "}).status_code == 302
    entry.refresh_from_db()
    assert (entry.status, entry.closing_reason, entry.closed_by_name) == ("discarded", "a test", "Olga Ops")
    assert "a test" in staff.get(page_of(entry)).content.decode()


# --- many entries -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(compute: UsageEvent) -> UsageEvent:
    """Three entries with the code schema, of which a wider schema would take one, and know one already."""
    take_in(compute, record(id="known", hours=1))
    take_in(compute, record(id="good", hours="5"), record(id="known", hours="1"), record(id="bad", hours=[]))
    publish_schema(compute, {"type": "object", "properties": {"cpu_usage_hours": {"type": ["string", "number"]}}})
    return compute


def test_a_cause_is_tried_with_counts_and_reasons(staff: Client, mixed: UsageEvent) -> None:
    page = staff.get(f"{BULK}?usage_event={mixed.pk}&code=schema")
    assert page.context["open_count"] == 3
    before = list(RejectedRecord.objects.order_by("pk").values())

    tried = staff.post(BULK, {"deed": "try", "chosen": page.context["form"]["chosen"].value()})

    result = tried.context["result"]
    assert (result.accepted, result.duplicates, len(result.refused)) == (1, 0, 2)
    assert "[] is not of type" in tried.content.decode()
    assert "Replay 3 entries" in tried.content.decode()
    assert list(RejectedRecord.objects.order_by("pk").values()) == before
    assert UsageRecord.objects.count() == 1


def test_a_cause_is_replayed_for_real(staff: Client, mixed: UsageEvent) -> None:
    chosen = staff.get(f"{BULK}?usage_event={mixed.pk}&code=schema").context["form"]["chosen"].value()
    page = staff.post(BULK, {"deed": "replay", "chosen": chosen}, follow=True)
    assert "1 record stored; 2 still refused and open" in page.content.decode()
    assert statuses() == {"good": "replayed", "known": "open", "bad": "open"}
    assert RejectedRecord.objects.get(idempotency_key="known").code == "conflict"
    assert UsageRecord.objects.count() == 2


def test_a_selection_across_usage_events_is_tried_replayed_and_discarded(staff: Client, compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=COMPUTE_SCHEMA)
    take_in(compute, record(id="a", hours="5"), record(id="b", hours="6"))
    take_in(other, record(id="c", hours="5"))
    for usage_event in (compute, other):
        publish_schema(usage_event, ANYTHING)
    ids = dict(RejectedRecord.objects.values_list("idempotency_key", "pk"))

    page = staff.post(LIST, {"action": "choose", "_selected_action": [ids["a"], ids["c"]]})
    assert page.context["open_count"] == 2
    chosen = page.context["form"]["chosen"].value()
    assert staff.post(BULK, {"deed": "try", "chosen": chosen}).context["result"].accepted == 2
    assert set(statuses().values()) == {"open"}
    staff.post(BULK, {"deed": "replay", "chosen": chosen})
    assert statuses() == {"a": "replayed", "b": "open", "c": "replayed"}

    staff.post(BULK, {"deed": "discard", "chosen": str(ids["b"]), "reason": "a test"})
    assert RejectedRecord.objects.get(pk=ids["b"]).closing_reason == "a test"


def test_what_is_closed_already_is_left_out_and_nothing_open_is_told(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(id="a", hours="5"), record(id="b", hours="6"))
    publish_schema(compute, ANYTHING)
    ids = dict(RejectedRecord.objects.values_list("idempotency_key", "pk"))
    replay_rejected(compute.pk, [ids["a"]], actor=ACTOR)

    both = f"{ids['a']},{ids['b']}"
    staff.post(BULK, {"deed": "discard", "chosen": both, "reason": "a test"})
    assert statuses() == {"a": "replayed", "b": "discarded"}
    again = staff.post(BULK, {"deed": "discard", "chosen": both, "reason": "a test"})
    assert "Nothing of this selection is open any more" in again.content.decode()


def test_one_archived_usage_event_leaves_the_whole_selection_as_it_was(staff: Client, compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=COMPUTE_SCHEMA)
    for usage_event in (compute, other):
        take_in(usage_event, record(hours="5"))
        publish_schema(usage_event, ANYTHING)
    other.refresh_from_db()
    archive_usage_event(other, archived=True)
    chosen = ",".join(str(pk) for pk in RejectedRecord.objects.values_list("pk", flat=True))
    refused = staff.post(BULK, {"deed": "replay", "chosen": chosen})
    assert "The usage event is archived" in refused.content.decode()
    assert not UsageRecord.objects.exists()
    assert not RejectedRecord.objects.exclude(status="open").exists()


def test_a_selection_that_is_none_is_told_and_never_a_fault(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    for value in [*HOSTILE, "", "1,", "1,,2", "1;2", "-1,2", ",".join("1" for _ in range(10_001))]:
        for name in ("try", "replay", "discard"):
            response = staff.post(BULK, {"deed": name, "chosen": value, "reason": "x"})
            assert response.status_code == 200, (name, value[:20])
        queries: list[dict[str, Any]] = [{"usage_event": value}, {"usage_event": compute.pk, "code": value[:5_000]}]
        for query in queries:
            assert staff.get(BULK, query).status_code in (200, 302, 404), value[:20]
        chosen = {"action": "choose", "_selected_action": [value]}
        assert staff.post(LIST, chosen).status_code in (200, 302)
    assert only_entry().status == "open"


def test_nobody_adds_or_deletes_an_entry(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    assert staff.get(f"{LIST}add/").status_code == 403
    assert staff.post(f"{LIST}{only_entry().pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post(LIST, {"action": "delete_selected", "_selected_action": [only_entry().pk], "post": "yes"})
    assert only_entry().status == "open"


def test_another_organisations_staff_gets_404(compute: UsageEvent) -> None:
    take_in(compute, record(hours="5"))
    stranger = staff_of(Organisation.objects.create(name="Other"), name="stranger")
    entry = only_entry()
    assert stranger.get(reverse("admin:usage_rejectedrecord_discard", args=[entry.pk])).status_code == 404
    assert stranger.get(f"{BULK}?usage_event={compute.pk}&code=schema").status_code == 404
    for name in ("try", "replay", "discard"):
        stranger.post(BULK, {"deed": name, "chosen": str(entry.pk), "reason": "x"})
        stranger.post(page_of(entry), {"deed": name, "payload": json.dumps(record())})
    assert left_as_it_was(entry)
    assert not UsageRecord.objects.exists()
