"""The first page: honest numbers of the person's organisations, in a few bounded queries."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from customers.models import Organisation
from metrics import home
from metrics.drift import find_drift
from metrics.materialization import fold, rebuild, request_rebuild
from metrics.models import DriftCheck, Metric, MetricAggregate
from tests.conftest import record, take_in
from tests.people import staff_of
from usage.models import IngestBatch, UsageEvent


def test_the_numbers_are_of_today_and_of_what_waits(compute: UsageEvent, cpu_hours: Metric) -> None:
    now = datetime.now(UTC)
    take_in(compute, record(timestamp=now.isoformat()), record(timestamp=(now - timedelta(days=2)).isoformat()))
    staff = staff_of(compute.organisation)
    context = staff.get("/admin/").context
    assert (context["usage_event_count"], context["records_today"], context["pending_batches"]) == (1, "1", "1")
    assert (context["active_metrics"], context["building_metrics"]) == (1, 0)
    assert 0 <= context["oldest_pending_seconds"] < 60
    fold(compute.pk)
    assert staff.get("/admin/").context["oldest_pending_seconds"] is None


def test_records_are_counted_up_to_a_bound(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "COUNTED", 2)
    take_in(compute, *(record(timestamp=datetime.now(UTC).isoformat()) for _ in range(4)))
    staff = staff_of(compute.organisation)
    with CaptureQueriesContext(connection) as queries:
        page = staff.get("/admin/")
    assert page.context["records_today"] == "more than 2"
    assert len(queries) < 20


def test_pending_batches_are_counted_up_to_a_bound(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "COUNTED", 2)
    for _ in range(4):
        take_in(compute, record())
    assert staff_of(compute.organisation).get("/admin/").context["pending_batches"] == "more than 2"


def test_usage_that_waits_too_long_is_told(compute: UsageEvent) -> None:
    staff = staff_of(compute.organisation)
    take_in(compute, record())
    take_in(compute, record())
    assert "is a worker running?" not in staff.get("/admin/").content.decode()
    first = IngestBatch.objects.earliest("pk")
    IngestBatch.objects.filter(pk=first.pk).update(received_at=datetime.now(UTC) - timedelta(hours=5))
    assert "The oldest batch has waited 5 h for a fold: is a worker running?" in staff.get("/admin/").content.decode()


def test_drift_is_told_until_a_check_finds_none(compute: UsageEvent, cpu_hours: Metric) -> None:
    staff = staff_of(compute.organisation)
    take_in(compute, record())
    fold(compute.pk)
    start, end = datetime(2025, 6, 17, tzinfo=UTC), datetime(2025, 6, 18, tzinfo=UTC)
    MetricAggregate.objects.update(sum=9)
    assert staff.get("/admin/").context["differing"] == []
    find_drift(cpu_hours.pk, start, end, DriftCheck.Kind.CLOSED_DAY)

    page = staff.get("/admin/")
    assert [one.metric for one in page.context["differing"]] == [cpu_hours]
    assert f'/admin/metrics/metric/drift/?metric={cpu_hours.pk}">M</a>.' in page.content.decode()
    request_rebuild(cpu_hours.pk)
    assert "M</a> (being rebuilt)." in staff.get("/admin/").content.decode()
    rebuild(cpu_hours.pk)
    assert staff.get("/admin/").context["differing"] != []
    find_drift(cpu_hours.pk, start, end, DriftCheck.Kind.CLOSED_DAY)
    assert staff.get("/admin/").context["differing"] == []


def test_a_newcomer_is_told_where_to_begin(organisation: Organisation) -> None:
    assert "Begin with a usage event" in staff_of(organisation).get("/admin/").content.decode()


@pytest.mark.parametrize(
    ("page", "entry"),
    [
        ("", "Metrics"),
        ("add-sql/", "Metrics"),
        ("quantities/", "Quantities"),
        ("quantities/explain/", "Quantities"),
        ("drift/", "Drift"),
        ("drift/{}/rebuild/", "Drift"),
        ("freshness/", "Freshness"),
        ("{}/compare/", "Metrics"),
    ],
)
def test_one_entry_of_the_sidebar_is_where_somebody_is(cpu_hours: Metric, page: str, entry: str) -> None:
    response = staff_of(cpu_hours.organisation).get("/admin/metrics/metric/" + page.format(cpu_hours.pk))
    groups = response.context["sidebar_navigation"]
    assert [item["title"] for group in groups for item in group["items"] if item["active"]] == [entry]
