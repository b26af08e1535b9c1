"""Freshness: what waits for a fold, the last fold, and how far builds and rebuilds are; on the page and in the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from customers.keys import issue_api_key
from customers.models import Customer, Organisation
from metrics import freshness as freshness_module
from metrics import materialization
from metrics.definitions import activate_metric, save_metric
from metrics.freshness import duration_in_words, freshness, rebuild_progress
from metrics.materialization import fold, request_rebuild
from metrics.models import FoldReport, Metric
from tests.conftest import COMPUTE_SCHEMA, active_metric, record, take_in
from tests.people import staff_of
from usage.corrections import Actor, void_records
from usage.definitions import create_usage_event
from usage.models import IngestBatch, UsageEvent, UsageRecord

ACTOR = Actor(None, "someone")
PAGE = "/admin/metrics/metric/freshness/"
API = "/api/materialization/"


def void_all(usage_event: UsageEvent) -> None:
    ids = list(UsageRecord.objects.filter(usage_event=usage_event).values_list("pk", flat=True))
    void_records(usage_event.pk, ids, reason="r", actor=ACTOR)


def test_what_waits_is_counted_and_gone_after_a_fold(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record("a"), record("b"))
    take_in(compute, record("a"))
    IngestBatch.objects.filter(pk=IngestBatch.objects.earliest("pk").pk).update(
        received_at=now() - timedelta(minutes=5)
    )
    void_all(compute)

    (found,) = freshness([compute])
    assert (found.pending_batches, found.pending_records, found.changed_windows) == (2, 3, 2)
    assert 300 <= (found.oldest_pending_seconds or 0) < 400
    assert (found.stale, found.waiting_in_words, found.last_fold) == (True, "5 min", None)

    fold(compute.pk)
    (found,) = freshness([compute])
    assert (found.pending_batches, found.pending_records, found.changed_windows) == (0, 0, 0)
    assert (found.oldest_pending_seconds, found.stale, found.waiting_in_words) == (None, False, "")
    report = found.last_fold
    assert report is not None
    assert (report.batches, report.records, report.windows) == (2, 3, 2)


def test_usage_events_are_told_apart_and_kept_in_order(compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema=COMPUTE_SCHEMA)
    take_in(other, record(), record("b"))

    rows = freshness([other, compute])
    assert [(row.usage_event.slug, row.pending_batches, row.pending_records) for row in rows] == [
        ("other", 1, 2),
        ("compute_hours", 0, 0),
    ]
    assert freshness([]) == []


def test_counts_are_bounded(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness_module, "COUNTED", 2)
    for customer in "abc":
        take_in(compute, record(customer), record(customer))
    void_all(compute)

    (found,) = freshness([compute])
    assert (found.pending_batches, found.pending_records, found.changed_windows) == (2, 4, 2)
    assert (found.more_pending, found.more_changed) == (True, True)


def test_builds_and_rebuilds_tell_how_far_they_are(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, *(record(customer) for customer in "abcd"))
    fold(compute.pk)
    building = Metric(organisation=compute.organisation, usage_event=compute, code="b", name="B", aggregation="count")
    save_metric(building)
    save_metric(
        Metric(organisation=compute.organisation, usage_event=compute, code="draft", name="D", aggregation="count")
    )
    activate_metric(building.pk)
    third = Customer.objects.order_by("pk")[2].pk
    Metric.objects.filter(pk=building.pk).update(built_customer_id=third)
    Metric.objects.filter(pk=cpu_hours.pk).update(rebuilt_customer_id=third + 1)

    (found,) = freshness([compute])
    assert [(one.metric.code, one.progress, one.percent, one.rebuilding) for one in found.metrics] == [
        ("b", 0.5, 50, False),
        ("cpu_hours", 0.75, 75, True),
    ]


def test_a_rebuild_that_nobody_asked_for_has_no_progress(cpu_hours: Metric) -> None:
    assert rebuild_progress(cpu_hours) is None
    request_rebuild(cpu_hours.pk)
    cpu_hours.refresh_from_db()
    assert rebuild_progress(cpu_hours) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (1, "1 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 days")],
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_the_queries_do_not_grow_with_the_usage_events(compute: UsageEvent) -> None:
    many = [
        create_usage_event(compute.organisation, name=f"U{i}", slug=f"u{i}", schema=COMPUTE_SCHEMA) for i in range(5)
    ]
    with CaptureQueriesContext(connection) as queries:
        freshness([compute, *many])
    assert len(queries) == 3


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_waits_and_what_lags(compute: UsageEvent, cpu_hours: Metric) -> None:
    staff = staff_of(compute.organisation)
    text = staff.get(PAGE).content.decode()
    assert "none yet" in text
    assert "is a worker running?" not in text

    take_in(compute, record())
    IngestBatch.objects.update(received_at=now() - timedelta(hours=3))
    page = staff.get(PAGE)
    assert [row.pending_batches for row in page.context["rows"]] == [1]
    assert "Usage of “Compute hours” waits for longer than 60 s" in page.content.decode()
    fold(compute.pk)
    assert "1 batch, 1 record, 0 corrected hours in" in staff.get(PAGE).content.decode()
    request_rebuild(cpu_hours.pk)
    assert "rebuilding: 0 %" in staff.get(PAGE).content.decode()


def test_the_page_without_usage_events_and_for_strangers(compute: UsageEvent) -> None:
    stranger = staff_of(Organisation.objects.create(name="Others"), name="stranger")
    text = stranger.get(PAGE).content.decode()
    assert "No usage event yet" in text
    assert "Compute hours" not in text
    assert staff_of(name="nobody").get(PAGE).status_code == 403


# --- the API ----------------------------------------------------------------------------------------------------------


def ask(client: Client, headers: dict[str, str], query: str = "") -> Any:
    return client.get(f"{API}{query}", headers=headers)


def test_the_api_tells_the_same(client: Client, headers: dict[str, str], cpu_hours: Metric) -> None:
    compute = cpu_hours.usage_event
    assert compute is not None
    assert ask(client, headers).json() == {
        "next": None,
        "previous": None,
        "results": [
            {
                "usage_event": "compute_hours",
                "pending_batches": 0,
                "pending_records": 0,
                "oldest_pending_seconds": None,
                "changed_windows": 0,
                "last_fold": None,
                "metrics": [
                    {"code": "cpu_hours", "version": 1, "status": "active", "rebuilding": False, "progress": None}
                ],
            }
        ],
    }
    take_in(compute, record(), record())
    fold(compute.pk)
    take_in(compute, record())
    FoldReport.objects.update(folded_at=datetime(2025, 6, 17, 14, tzinfo=UTC), milliseconds=7)
    (row,) = ask(client, headers, "?usage_event=compute_hours").json()["results"]
    assert (row["pending_batches"], row["pending_records"]) == (1, 1)
    assert 0 <= row["oldest_pending_seconds"] < 60
    assert row["last_fold"] == {
        "at": "2025-06-17T14:00:00Z",
        "milliseconds": 7,
        "batches": 1,
        "records": 2,
        "windows": 0,
    }


def test_the_api_lists_by_page_and_only_one_s_own(client: Client, headers: dict[str, str], compute: UsageEvent) -> None:
    theirs = Organisation.objects.create(name="Theirs")
    create_usage_event(theirs, name="Theirs", slug="theirs", schema=COMPUTE_SCHEMA)
    create_usage_event(compute.organisation, name="Newer", slug="newer", schema=COMPUTE_SCHEMA)

    first = ask(client, headers, "?page_size=1").json()
    second = client.get(first["next"], headers=headers).json()
    assert [row["usage_event"] for row in first["results"] + second["results"]] == ["newer", "compute_hours"]
    assert second["next"] is None
    for slug in ("theirs", "nowhere"):
        refused = ask(client, headers, f"?usage_event={slug}")
        assert (refused.status_code, refused.json()["errors"]) == (
            400,
            [{"field": "usage_event", "message": f"the slug of a usage event was expected, got '{slug}'"}],
        )
    assert ask(client, headers, "?event=compute_hours").status_code == 400
    assert ask(client, headers, "?usage_event=%00").status_code == 400


def test_the_api_needs_the_scope_read(client: Client, compute: UsageEvent) -> None:
    _, secret = issue_api_key(compute.organisation, "posts", ["ingest", "manage"])
    asked = {"organisation": str(compute.organisation.key), "x-api-key": secret}
    assert ask(client, asked).status_code == 403
    assert client.post(API, headers=asked).status_code in (403, 405)


def test_a_fold_reports_all_its_rounds_as_one(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialization, "CLAIM_BATCHES", 1)
    active_metric(compute, code="records", aggregation="count")
    for customer in "abc":
        take_in(compute, record(customer), record(customer))

    fold(compute.pk)
    report = FoldReport.objects.get()
    assert (report.usage_event_id, report.batches, report.records, report.windows) == (compute.pk, 3, 6, 0)
