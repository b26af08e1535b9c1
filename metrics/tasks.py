"""Celery tasks: each takes ids or ISO dates, calls one act, and may run twice."""

from datetime import datetime

from celery import shared_task

from metrics.drift import NotComparable, Span, forget_old_checks
from metrics.drift_nights import check_sample, check_spans, metrics_to_check, night_plan, spans_in_doubt
from metrics.materialization import (
    build,
    fold,
    forget_retired,
    metrics_to_build,
    metrics_to_rebuild,
    rebuild,
    usage_events_to_fold,
)

# A worker has few threads: after this long the others get their turn. Folds wait for builds of their usage event.
SLICE_SECONDS = 10.0
BUILD_SECONDS = 2.0
NIGHT_SECONDS = 6 * 3600


@shared_task
def wake_folds() -> None:
    """Start a fold for every usage event with something pending; the beat calls this more than once a second."""
    for usage_event_id in usage_events_to_fold():
        fold_usage_event.apply_async([usage_event_id], expires=5)


@shared_task
def fold_usage_event(usage_event_id: int) -> None:
    fold(usage_event_id)


@shared_task
def wake_builds() -> None:
    """Start what is to be built or rebuilt, also after a crash or a broker's outage."""
    for metric_id in metrics_to_build():
        build_metric.apply_async([metric_id], expires=5)
    for metric_id in metrics_to_rebuild():
        rebuild_metric.apply_async([metric_id], expires=5)


@shared_task
def build_metric(metric_id: int) -> None:
    build(metric_id, seconds=BUILD_SECONDS)


@shared_task
def rebuild_metric(metric_id: int) -> None:
    """Rebuild, and look again where the metric had differed: only that resolves a difference."""
    if rebuild(metric_id, seconds=BUILD_SECONDS):
        check_closed_days(metric_id, _dates(spans_in_doubt(metric_id)))


@shared_task
def forget_retired_aggregates() -> None:
    forget_retired()


@shared_task
def wake_drift_checks() -> None:
    """Start the night's comparison of each metric by itself, so that one that fails does not stop the others."""
    for metric_id in metrics_to_check():
        check_metric.apply_async([metric_id], expires=NIGHT_SECONDS)
        check_sample_of_metric.apply_async([metric_id], expires=NIGHT_SECONDS)


@shared_task
def check_metric(metric_id: int) -> None:
    forget_old_checks([metric_id])
    check_closed_days(metric_id, _dates(night_plan(metric_id)))


@shared_task
def check_closed_days(metric_id: int, spans: list[tuple[str, str]]) -> None:
    """Compare some of the days, and leave the rest to a task of its own."""
    wanted = [Span(*map(datetime.fromisoformat, span)) for span in spans]
    left = check_spans(metric_id, wanted, seconds=SLICE_SECONDS)
    if left:
        check_closed_days.apply_async([metric_id, _dates(left)], expires=NIGHT_SECONDS)


@shared_task
def check_sample_of_metric(metric_id: int) -> None:
    try:
        check_sample(metric_id)
    except NotComparable:
        pass  # retired or being rebuilt since the night began


def _dates(spans: list[Span]) -> list[tuple[str, str]]:
    return [(span.start.isoformat(), span.end.isoformat()) for span in spans]
