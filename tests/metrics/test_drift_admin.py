"""The pages on drift: what differs is seen by its own organisation, checked again and rebuilt, and by nobody else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.urls import reverse

from customers.models import Organisation
from metrics.admin import drift as drift_pages
from metrics.drift import CheckTookTooLong, find_drift, unresolved
from metrics.materialization import metrics_to_rebuild, rebuild
from metrics.models import DriftCheck, Metric
from tests.conftest import active_metric, record, take_in
from tests.people import HOSTILE, staff_of
from usage.definitions import create_usage_event
from usage.models import UsageEvent, UsageRecord

PAGE = "/admin/metrics/metric/drift/"
START, END = datetime(2025, 6, 16, tzinfo=UTC), datetime(2025, 6, 20, tzinfo=UTC)
WHEN = {"start": "2025-06-16", "end": "2025-06-20"}


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


@pytest.fixture
def hours(compute: UsageEvent) -> Metric:
    """An active metric with stored hours of two days."""
    take_in(compute, record(hours=5), record("cus_2", "2025-06-18T03:00:00Z", 7))
    return active_metric(
        compute, name="CPU hours", code="hours", aggregation="sum", property="cpu_usage_hours", group_by=["region"]
    )


def tamper(metric: Metric, change: str = "sum = 9") -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE metrics_metricaggregate SET {change} WHERE metric_id = %s AND window_start = '2025-06-17T14:00Z'",
            [metric.pk],
        )


def check(client: Client, metric: Metric, /, **fields: str) -> Any:
    return client.post(PAGE, {"metric": metric.pk, **WHEN, **fields}, follow=True)


def told(response: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, str(message)) for message in response.context["messages"]]


def test_a_check_now_tells_what_it_found(staff: Client, hours: Metric) -> None:
    response = check(staff, hours)
    assert told(response) == [
        ("success", "“CPU hours” from 2025-06-16 until 2025-06-20: 2 stored hours were compared, nothing differs.")
    ]
    assert response.redirect_chain == [(f"{PAGE}?metric={hours.pk}", 302)]
    tamper(hours)
    assert told(check(staff, hours)) == [
        ("error", "“CPU hours” from 2025-06-16 until 2025-06-20: 2 stored hours were compared, 1 row differs.")
    ]
    assert [entry.change_message for entry in LogEntry.objects.all()] == ["Compared with the records."] * 2
    assert DriftCheck.objects.filter(kind="by_hand").count() == 4


def test_what_differs_is_shown_with_both_sides_and_the_way_to_the_records(staff: Client, hours: Metric) -> None:
    tamper(hours)
    find_drift(hours.pk, START, END, DriftCheck.Kind.CLOSED_DAY)

    page = staff.get(PAGE)
    text = page.content.decode()
    assert "“CPU hours” has drifted" in text
    assert "on 2025-06-17. Its quantities" in text
    days = [(shown, found.differences) for found, shown, _ in page.context["checks"]]
    assert days == [("2025-06-18 to 2025-06-19", 0), ("2025-06-17", 1), ("2025-06-16", 0)]
    ((line,),) = [lines for _, _, lines in page.context["checks"] if lines]
    assert [(one.name, one.stored, one.recounted, one.differs) for one in line.lines] == [
        ("record count", "1", "1", False),
        ("value count", "1", "1", False),
        ("sum", "9", "5", True),
    ]
    assert (line.customer_id, line.dimensions, line.missing, line.extra) == ("cus_1", "missing", False, False)
    records = staff.get(line.records_url).context["cl"].result_list
    assert [stored.customer.external_id for stored in records] == ["cus_1"]


def test_rows_on_one_side_only_are_said_to_be(staff: Client, hours: Metric) -> None:
    tamper(hours, "dimensions = '[\"eu\"]'")
    find_drift(hours.pk, START, END, DriftCheck.Kind.BY_HAND)

    text = staff.get(PAGE).content.decode()
    assert (text.count(">no row<"), text.count(">no records<")) == (1, 1)


def test_a_rebuild_is_asked_for_confirmed_and_checked(staff: Client, hours: Metric) -> None:
    tamper(hours)
    find_drift(hours.pk, START, END, DriftCheck.Kind.BY_HAND)
    path = reverse("admin:metrics_metric_rebuild", args=[hours.pk])

    assert "computed anew from its records" in staff.get(path).content.decode()
    assert metrics_to_rebuild() == []
    response = staff.post(path, follow=True)
    assert metrics_to_rebuild() == [hours.pk]
    assert LogEntry.objects.get().change_message == "Rebuild requested."
    text = response.content.decode()
    assert "Being rebuilt: 0 %" in text
    assert "It is being rebuilt; then it is compared again." in text
    assert "A rebuild is under way (0 % of the customers)" in staff.get(path).content.decode()
    refused = check(staff, hours)
    assert refused.context["form"].errors == {"metric": ["The metric is being rebuilt; check it when that is done."]}

    assert rebuild(hours.pk)
    assert "has drifted" in staff.get(PAGE).content.decode()
    check(staff, hours)
    assert "has drifted" not in staff.get(PAGE).content.decode()
    assert unresolved([hours.pk]) == []


def test_only_an_active_metric_with_stored_hours_is_rebuilt(staff: Client, hours: Metric) -> None:
    path = reverse("admin:metrics_metric_rebuild", args=[hours.pk])
    Metric.objects.update(status="retired")
    assert (staff.get(path).status_code, staff.post(path).status_code) == (404, 404)
    hours.refresh_from_db()
    assert hours.rebuilt_customer_id is None


def test_a_check_that_ran_out_of_time_goes_on_with_another_click(
    staff: Client, hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_pages, "BY_HAND_SECONDS", 0.0)
    response = check(staff, hours)

    assert [level for level, _ in told(response)] == ["success", "warning"]
    shown = response.context["form"]
    assert (shown["start"].value(), shown["end"].value()) == ("2025-06-17", "2025-06-20")
    assert str(shown["metric"].value()) == str(hours.pk)


def test_a_day_that_takes_too_long_is_told_at_the_field(
    staff: Client, hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise CheckTookTooLong(30, START, END)

    monkeypatch.setattr(drift_pages, "find_drift", refuse)
    assert check(staff, hours).context["form"].errors == {
        "start": ["Comparing 2025-06-16 takes longer than 30 s; manage.py find_drift waits for 600 s."]
    }


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"metric": "0"}, "metric"),
        ({"metric": "x"}, "metric"),
        ({"end": "2025-06-16"}, "end"),
        ({"start": ""}, "start"),
        ({"start": "1999-12-31"}, "start"),
    ],
)
def test_what_cannot_be_checked_is_refused_at_the_field(
    staff: Client, hours: Metric, fields: dict[str, str], at: str
) -> None:
    assert list(check(staff, hours, **fields).context["form"].errors) == [at]
    assert not DriftCheck.objects.exists()
    assert not LogEntry.objects.exists()


def test_checks_of_one_metric_and_page_by_page(
    staff: Client, hours: Metric, compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_pages, "CHECKS_SHOWN", 2)
    other = active_metric(compute, code="other", aggregation="count")
    for number in range(5):
        find_drift(hours.pk, START, END + timedelta(days=number), DriftCheck.Kind.BY_HAND)
    find_drift(other.pk, START, END, DriftCheck.Kind.BY_HAND)

    page = staff.get(PAGE, {"metric": hours.pk})
    seen = []
    while True:
        seen += [check.end.day for check, _, _ in page.context["checks"]]
        if not page.context["next_url"]:
            break
        page = staff.get(PAGE + page.context["next_url"])
        assert page.context["chosen"] == hours
    assert seen == [24, 23, 22, 21, 20]
    assert staff.get(PAGE).context["checks"][0][0].metric == other


def test_the_pages_are_there_before_anything_was_checked(staff: Client, organisation: Organisation) -> None:
    assert "No active metric yet" in staff.get(PAGE).content.decode()
    create_usage_event(organisation, name="U", slug="u", schema={"type": "object"})
    active_metric(UsageEvent.objects.get(), code="m", aggregation="count")
    text = staff.get(PAGE).content.decode()
    assert "Not checked yet" in text
    assert 'id="checks"' not in text


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value[:12]))
def test_nothing_in_the_address_is_a_fault(staff: Client, hours: Metric, value: str) -> None:
    for name in ("metric", "before", "start", "end"):
        assert staff.get(PAGE, {name: value[:2_000]}).status_code == 200
        assert check(staff, hours, **{name: value}).status_code == 200


def test_nobody_of_another_organisation_sees_checks_or_rebuilds(hours: Metric) -> None:
    tamper(hours)
    find_drift(hours.pk, START, END, DriftCheck.Kind.BY_HAND)
    stranger = staff_of(Organisation.objects.create(name="Others"), name="stranger")

    for query in ({}, {"metric": hours.pk}, {"before": 10**9}):
        page = stranger.get(PAGE, query)
        assert page.status_code == 200
        assert (page.context["checks"], page.context["differing"], page.context["chosen"]) == ([], [], None)
        assert "CPU hours" not in page.content.decode()
    assert list(check(stranger, hours).context["form"].errors) == ["metric"]
    path = reverse("admin:metrics_metric_rebuild", args=[hours.pk])
    assert (stranger.get(path).status_code, stranger.post(path).status_code) == (404, 404)
    assert "differ" not in stranger.get("/admin/").content.decode()
    hours.refresh_from_db()
    assert (hours.rebuilt_customer_id, DriftCheck.objects.count()) == (None, 3)
    assert staff_of(name="nobody").get(PAGE).status_code == 403


def test_the_entry_counts_the_metrics_that_differ(staff: Client, hours: Metric) -> None:
    badge = '<span class="tb-count">1</span>'
    assert badge not in staff.get("/admin/usage/usagerecord/").content.decode()
    tamper(hours)
    find_drift(hours.pk, START, END, DriftCheck.Kind.BY_HAND)
    assert badge in staff.get("/admin/usage/usagerecord/").content.decode()
    assert UsageRecord.objects.count() == 2
