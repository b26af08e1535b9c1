"""Rebuilding a metric while it answers, and the two commands: find_drift and rebuild_metric."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from customers.models import Organisation
from metrics import materialization
from metrics.management.commands import rebuild_metric
from metrics.materialization import fold, metrics_to_rebuild, rebuild, request_rebuild
from metrics.models import DriftCheck, Metric
from metrics.quantities import quantities
from metrics.questions import Question
from tests.conftest import active_metric, record, take_in
from tests.metrics.counting import expected_aggregates, stored_aggregates
from tests.metrics.scenes import metrics_of_each_kind
from tests.threads import run_together
from usage.corrections import Actor, void_records
from usage.models import UsageEvent, UsageRecord

ACTOR = Actor(None, "someone")
JUNE = Question(start=datetime(2025, 6, 1, tzinfo=UTC), end=datetime(2025, 7, 1, tzinfo=UTC))


def run_sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def command(name: str, *arguments: str) -> list[str]:
    output = io.StringIO()
    call_command(name, *arguments, stdout=output)
    return output.getvalue().splitlines()


@pytest.fixture
def full(compute: UsageEvent) -> UsageEvent:
    """Five hours of three customers."""
    for customer in ("a", "b", "c"):
        take_in(
            compute,
            *(data_record(customer, hour) for hour in range(5)),
        )
    return compute


def data_record(customer: str, hour: int) -> dict[str, Any]:
    data = {"cpu_usage_hours": hour, "region": "eu"}
    return {"customer_id": customer, "timestamp": f"2025-06-17T{hour:02}:00:00Z", "data": data}


def test_a_rebuild_mends_every_kind_stretch_by_stretch(full: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = metrics_of_each_kind(full)
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 2)
    run_sql("UPDATE metrics_metricaggregate SET sum = 99, latest_value = 99, record_count = 99")
    run_sql("DELETE FROM metrics_metricaggregate WHERE window_start = '2025-06-17T02:00Z'")
    run_sql("DELETE FROM metrics_metricdistinctvalue WHERE window_start >= '2025-06-17T03:00Z'")
    for metric in metrics:
        assert stored_aggregates_safe(metric) != expected_aggregates(metric)

    for metric in metrics:
        assert request_rebuild(metric.pk)
    assert metrics_to_rebuild() == [metric.pk for metric in metrics]
    for metric in metrics:
        assert rebuild(metric.pk)
        assert stored_aggregates(metric) == expected_aggregates(metric)
    assert metrics_to_rebuild() == []
    assert not any(rebuild(metric.pk) for metric in metrics), "nothing is left to do"


def stored_aggregates_safe(metric: Metric) -> Any:
    try:
        return stored_aggregates(metric)
    except AssertionError:
        return None  # distinct values that belong to no row


def test_a_metric_answers_and_folds_while_it_is_rebuilt(full: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = active_metric(full, code="hours", aggregation="sum", property="cpu_usage_hours")
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 2)
    request_rebuild(metric.pk)
    steps = 0
    outcome = "on"
    while outcome == "on":
        outcome = materialization._in_snapshot(lambda cursor: materialization._rebuild_once(cursor, metric.pk, 2))
        take_in(full, record("a", f"2025-06-17T{steps % 7:02}:30:00Z", 1), record("d", "2025-06-17T09:00:00Z", 1))
        void_records(full.pk, [UsageRecord.objects.order_by("?")[0].pk], reason="r", actor=ACTOR)
        (total,) = [sum(row.quantity or 0 for row in quantities(full.organisation_id, "hours", JUNE).rows)]
        live = UsageRecord.objects.filter(voided_at=None)
        assert total == sum(one.data["cpu_usage_hours"] for one in live)
        steps += 1

    assert (outcome, steps >= 5) == ("rebuilt", True)
    fold(full.pk)
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_a_rebuild_goes_on_where_it_stopped_and_starts_over_when_asked_again(full: UsageEvent) -> None:
    metric = active_metric(full, code="hours", aggregation="sum", property="cpu_usage_hours")
    request_rebuild(metric.pk)
    materialization._in_snapshot(lambda cursor: materialization._rebuild_once(cursor, metric.pk, 7))
    metric.refresh_from_db()
    position = metric.rebuilt_customer_id
    assert position
    run_sql(f"UPDATE metrics_metricaggregate SET sum = 99 WHERE customer_id < {position}")

    assert rebuild(metric.pk)
    assert stored_aggregates(metric) != expected_aggregates(metric), "what was rebuilt already is not done twice"
    request_rebuild(metric.pk)
    assert rebuild(metric.pk)
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_only_an_active_metric_is_rebuilt(full: UsageEvent) -> None:
    metric = active_metric(full, code="hours", aggregation="count")
    Metric.objects.update(status="retired")

    assert not request_rebuild(metric.pk)
    Metric.objects.update(rebuilt_customer_id=0, rebuilt_window_start=JUNE.start)
    assert not rebuild(metric.pk)
    assert metrics_to_rebuild() == []


# --- the commands -----------------------------------------------------------------------------------------------------


def test_find_drift_prints_a_line_for_each_run_and_fails_on_a_difference(full: UsageEvent) -> None:
    metric = active_metric(full, code="hours", aggregation="sum", property="cpu_usage_hours")
    key = str(full.organisation.key)
    period = ("--start", "2025-06-16", "--end", "2025-06-19")
    assert command("find_drift", *period) == [
        "Acme hours v1  2025-06-16T00:00Z to 2025-06-19T00:00Z  15 stored hours compared, agree"
    ]
    run_sql("UPDATE metrics_metricaggregate SET sum = 99 WHERE window_start = '2025-06-17T02:00Z'")
    output = io.StringIO()
    with pytest.raises(CommandError, match="3 stored rows differ from their records") as failed:
        call_command("find_drift", "--organisation", key, "--metric", "hours", *period, stdout=output)
    assert failed.value.returncode == 1
    assert output.getvalue().splitlines() == [
        "Acme hours v1  2025-06-16T00:00Z to 2025-06-17T00:00Z  0 stored hours compared, agree",
        "Acme hours v1  2025-06-17T00:00Z to 2025-06-18T00:00Z  15 stored hours compared, 3 DIFFER",
        "Acme hours v1  2025-06-18T00:00Z to 2025-06-19T00:00Z  0 stored hours compared, agree",
    ]

    lines = command("rebuild_metric", "hours", "--organisation", key)
    assert lines == [
        "rebuilding hours v1",
        "rebuilt",
        "compared again from 2025-06-17 00:00 until 2025-06-18 00:00 UTC",
    ]
    assert stored_aggregates(metric) == expected_aggregates(metric)
    assert command("find_drift", "--all") == [
        "Acme hours v1  2000-01-01T00:00Z to 2101-01-01T00:00Z  15 stored hours compared, agree"
    ]


def test_find_drift_compares_the_last_weeks_by_itself(full: UsageEvent) -> None:
    active_metric(full, code="hours", aggregation="count")
    (line,) = command("find_drift")
    check = DriftCheck.objects.get()
    assert ((check.end - check.start).days, check.kind, line.endswith("agree")) == (35, "by_hand", True)


def test_a_metric_that_is_being_rebuilt_is_named_and_the_others_are_compared(full: UsageEvent) -> None:
    first = active_metric(full, code="first", aggregation="count")
    active_metric(full, code="second", aggregation="count")
    request_rebuild(first.pk)
    output = io.StringIO()
    with pytest.raises(CommandError, match="not every metric could be compared"):
        call_command("find_drift", "--all", stdout=output)
    first_line, second_line = output.getvalue().splitlines()
    assert first_line == "first v1  the metric is being rebuilt; check it when that is done"
    assert second_line.startswith("Acme second v1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "nowhere"], "there is no such active metric"),
        (["--all", "--start", "2025-06-01"], "--all goes without"),
        (["--start", "2025-06-02", "--end", "2025-06-02"], "--end must be after --start"),
        (["--start", "yesterday"], "a date such as 2025-06-17 was expected, got 'yesterday'"),
        (["--start", "1999-01-01"], "a year from 2000 to 2100 was expected, got '1999-01-01'"),
        (["--organisation", "acme"], "--organisation"),
    ],
)
def test_find_drift_refuses_what_it_cannot_read(cpu_hours: Metric, arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        command("find_drift", *arguments)
    assert not DriftCheck.objects.exists()


def test_rebuild_metric_refuses_what_is_not_there(cpu_hours: Metric) -> None:
    other = Organisation.objects.create(name="Other")
    for code, organisation in (("nowhere", cpu_hours.organisation), ("cpu_hours", other)):
        with pytest.raises(CommandError, match=f"an active metric's code was expected, got '{code}'"):
            command("rebuild_metric", code, "--organisation", str(organisation.key))
    cpu_hours.refresh_from_db()
    assert cpu_hours.rebuilt_customer_id is None


def test_rebuild_metric_waits_for_a_worker_that_is_at_it(full: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = active_metric(full, code="hours", aggregation="count")
    monkeypatch.setattr(rebuild_metric, "SECONDS_BETWEEN_LINES", 0.01)
    attempts: list[int] = []

    def busy_at_first(metric_id: int) -> bool:
        attempts.append(metric_id)
        return len(attempts) > 2 and rebuild(metric_id)

    monkeypatch.setattr(rebuild_metric, "rebuild", busy_at_first)
    lines = command("rebuild_metric", "hours", "--organisation", str(full.organisation.key))
    assert (lines[0], lines[-1], len(attempts)) == ("rebuilding hours v1", "rebuilt", 3)
    assert set(lines[1:-1]) == {"0.0% of the customers"}
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_two_rebuilds_at_once_do_the_work_once(full: UsageEvent) -> None:
    metric = active_metric(full, code="hours", aggregation="sum", property="cpu_usage_hours")
    run_sql("UPDATE metrics_metricaggregate SET sum = 99")
    request_rebuild(metric.pk)
    outcomes: list[bool] = []
    run_together(*[lambda: outcomes.append(rebuild(metric.pk))] * 2)

    assert sorted(outcomes) == [False, True]
    assert stored_aggregates(metric) == expected_aggregates(metric)
