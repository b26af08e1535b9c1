"""The first page: honest numbers of the person's organisations, in a few bounded queries."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from customers.models import Organisation
from metrics import home
from metrics.materialization import fold
from metrics.models import Metric
from tests.conftest import record, take_in
from tests.people import staff_of
from usage.models import UsageEvent


def test_the_numbers_are_of_today_and_of_what_waits(compute: UsageEvent, cpu_hours: Metric) -> None:
    now = datetime.now(UTC)
    take_in(compute, record(timestamp=now.isoformat()), record(timestamp=(now - timedelta(days=2)).isoformat()))
    staff = staff_of(compute.organisation)
    context = staff.get("/admin/").context
    assert (context["usage_event_count"], context["records_today"], context["pending_batches"]) == (1, "1", 1)
    assert (context["active_metrics"], context["building_metrics"]) == (1, 0)
    assert 0 <= context["oldest_pending_seconds"] < 60
    fold(compute.pk)
    assert staff.get("/admin/").context["oldest_pending_seconds"] is None


def test_records_are_counted_up_to_a_bound(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "COUNTED", 2)
    take_in(compute, *(record(timestamp=datetime.now(UTC).isoformat()) for _ in range(4)))
    with CaptureQueriesContext(connection) as queries:
        page = staff_of(compute.organisation).get("/admin/")
    assert page.context["records_today"] == "more than 2"
    assert len(queries) < 30


def test_a_newcomer_is_told_where_to_begin(organisation: Organisation) -> None:
    assert "Begin with a usage event" in staff_of(organisation).get("/admin/").content.decode()
