"""Tasks: each finds its work in the database, so that a lost message costs nothing."""

import pytest
from django.utils.module_loading import import_string
from pytest_django import Settings

from metrics import tasks
from metrics.definitions import activate_metric, save_metric
from metrics.models import Metric
from tests.conftest import record, take_in
from usage.models import PendingBatch, UsageEvent


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a task where it would be sent to the broker."""
    for task in (tasks.fold_usage_event, tasks.build_metric):
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


def test_schedule_and_routes_name_tasks_that_exist(settings: Settings) -> None:
    names = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} | set(settings.CELERY_TASK_ROUTES)

    assert {import_string(name).name for name in names} == names
