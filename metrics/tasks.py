"""Celery tasks: each takes ids, calls one act, and may run twice."""

from celery import shared_task

from metrics.materialization import build, fold, usage_events_to_fold
from metrics.models import Metric


@shared_task
def wake_folds() -> None:
    """Start a fold for every usage event with something pending; the beat calls this every second."""
    for usage_event_id in usage_events_to_fold():
        fold_usage_event.apply_async([usage_event_id], expires=5)


@shared_task
def fold_usage_event(usage_event_id: int) -> None:
    fold(usage_event_id)


@shared_task
def wake_builds() -> None:
    """Start the build of every metric that is to be built, also after a crash or a broker's outage."""
    for metric_id in Metric.objects.filter(status=Metric.Status.BUILDING).values_list("pk", flat=True):
        build_metric.apply_async([metric_id], expires=5)


@shared_task
def build_metric(metric_id: int) -> None:
    build(metric_id)
