"""Tasks: each finds its work in the database, so that a lost message costs nothing."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from django.utils.module_loading import import_string
from django.utils.timezone import now
from pytest_django import Settings

from metrics import tasks
from metrics.definitions import activate_metric, save_metric
from metrics.drift import find_drift, unresolved
from metrics.materialization import request_rebuild
from metrics.models import DriftCheck, Metric, MetricAggregate
from tests.conftest import active_metric, record, take_in
from usage.models import PendingBatch, UsageEvent
from usage.timestamps import FIRST_MOMENT

JUNE_17 = (datetime(2025, 6, 17, tzinfo=UTC), datetime(2025, 6, 18, tzinfo=UTC))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a task where it would be sent to the broker."""
    for task in (
        tasks.fold_usage_event,
        tasks.build_metric,
        tasks.rebuild_metric,
        tasks.check_metric,
        tasks.check_closed_days,
        tasks.check_sample_of_metric,
    ):
        monkeypatch.setattr(task, "apply_async", lambda arguments, task=task, **options: task(*arguments))


def test_the_beat_folds_what_is_pending(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record())

    tasks.wake_folds()

    assert not PendingBatch.objects.exists()
    assert cpu_hours.aggregates.count() == 1
    tasks.wake_folds()
    assert cpu_hours.aggregates.get().record_count == 1


def test_the_beat_builds_what_is_to_be_built(compute: UsageEvent) -> None:
    metric = Metric(organisation=compute.organisation, usage_event=compute, code="m", name="M", aggregation="count")
    save_metric(metric)
    activate_metric(metric.pk)

    tasks.wake_builds()

    metric.refresh_from_db()
    assert metric.status == Metric.Status.ACTIVE
    tasks.wake_builds()


def test_the_beat_rebuilds_what_is_to_be_rebuilt_and_looks_again_where_it_differed(
    compute: UsageEvent, cpu_hours: Metric
) -> None:
    take_in(compute, record(hours=5))
    tasks.wake_folds()
    MetricAggregate.objects.update(sum=9)
    find_drift(cpu_hours.pk, *JUNE_17, DriftCheck.Kind.BY_HAND)
    assert [found.metric for found in unresolved([cpu_hours.pk])] == [cpu_hours]

    request_rebuild(cpu_hours.pk)
    tasks.wake_builds()

    cpu_hours.refresh_from_db()
    assert cpu_hours.rebuilt_customer_id is None
    assert MetricAggregate.objects.get().sum == 5
    assert unresolved([cpu_hours.pk]) == []
    assert DriftCheck.objects.count() == 2


def test_a_night_checks_every_metric_even_if_one_fails(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = active_metric(compute, code="records", aggregation="count")
    take_in(compute, record(), record(timestamp=(now() - timedelta(days=3)).isoformat()))
    tasks.wake_folds()
    started: list[int] = []
    monkeypatch.setattr(tasks.check_metric, "apply_async", lambda arguments, **options: started.extend(arguments))
    tasks.wake_drift_checks()
    assert started == [cpu_hours.pk, records.pk]

    for metric_id in started:
        tasks.check_metric(metric_id)
        kinds = DriftCheck.objects.filter(metric=metric_id).order_by("pk").values_list("kind", "windows")
        assert list(kinds) == [("sample", 1), ("closed_day", 1), ("closed_day", 1)]
    counts = []
    for _ in range(3):
        before = DriftCheck.objects.count()
        tasks.check_metric(cpu_hours.pk)
        counts.append(DriftCheck.objects.count() - before)
    assert counts == [2, 1, 1], "some more of history, then it is done; the last weeks come every night"


def test_a_night_in_slices_compares_everything_once(
    compute: UsageEvent, cpu_hours: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(compute, *(record(timestamp=(now() - timedelta(days=days)).isoformat()) for days in (2, 3, 5, 50)))
    tasks.wake_folds()
    monkeypatch.setattr(tasks, "SLICE_SECONDS", 0.0001)
    tasks.check_metric(cpu_hours.pk)

    checks = DriftCheck.objects.order_by("start")
    assert all(one.end == other.start for one, other in pairwise(checks))
    assert (checks[0].start, sum(check.windows for check in checks)) == (FIRST_MOMENT, 4)
    assert len(checks) > 5


def test_a_night_leaves_alone_what_is_being_rebuilt_or_retired(compute: UsageEvent, cpu_hours: Metric) -> None:
    request_rebuild(cpu_hours.pk)
    tasks.check_metric(cpu_hours.pk)
    tasks.check_sample_of_metric(cpu_hours.pk)
    Metric.objects.update(status="retired", rebuilt_customer_id=None)
    tasks.wake_drift_checks()
    tasks.check_closed_days(cpu_hours.pk, [(JUNE_17[0].isoformat(), JUNE_17[1].isoformat())])
    assert not DriftCheck.objects.exists()


def test_retired_versions_are_forgotten(compute: UsageEvent, cpu_hours: Metric) -> None:
    take_in(compute, record())
    tasks.wake_folds()
    tasks.forget_retired_aggregates()
    assert cpu_hours.aggregates.count() == 1
    Metric.objects.update(status="retired")
    tasks.forget_retired_aggregates()
    assert cpu_hours.aggregates.count() == 0


def test_the_night_begins_at_ten_past_three(settings: Settings) -> None:
    schedule = settings.CELERY_BEAT_SCHEDULE["wake-drift-checks"]["schedule"]
    assert (schedule.hour, schedule.minute) == ({3}, {10})


def test_schedule_and_routes_name_tasks_that_exist(settings: Settings) -> None:
    names = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} | set(settings.CELERY_TASK_ROUTES)

    assert {import_string(name).name for name in names} == names
