"""Drift: what is stored is compared with a recount of the records, every night and by hand, and the result is kept.

Exact at any moment, also while usage comes in: one snapshot shows the stored hours, the records, and which batches and
marks no fold has claimed; what those touch is left out on both sides. A metric should never drift. If it does, either
the program has a fault or somebody wrote into the tables, and quantities may be wrong until the metric is rebuilt.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from django.utils.timezone import now

from metrics import drift_sql
from metrics.drift_sql import Place
from metrics.models import DriftCheck, Metric
from metrics.periods import PeriodError
from metrics.quantities import time_limit
from metrics.questions import TookTooLong
from metrics.snapshots import snapshot
from usage.models import UsageRecord
from usage.windows import hour_of

log = logging.getLogger(__name__)

DAY = timedelta(days=1)
SAMPLES_KEPT = 20
KEPT_FOR = timedelta(days=400)  # then history is compared anew
UNRESOLVED_SHOWN = 200
MOST = 2**31 - 1


class NotComparable(Exception):
    """The metric has no complete stored hours that could be compared; the text says why."""


class CheckTookTooLong(TookTooLong):
    """Comparing [start, end) did not end in time."""

    def __init__(self, seconds: float, start: datetime, end: datetime) -> None:
        super().__init__(seconds)
        self.args = (f"comparing {start:%Y-%m-%d} takes longer than {seconds:g} s",)
        self.start, self.end = start, end


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end), both whole hours in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Unresolved:
    """[start, end) of a metric, where the newest look at it, `check`, found a difference."""

    check: DriftCheck
    start: datetime
    end: datetime

    @property
    def metric(self) -> Metric:
        return self.check.metric


@dataclass(frozen=True, slots=True)
class DifferingMetric:
    """A metric whose stored hours differ from their records, and where, the newest find first."""

    metric: Metric
    found: list[Unresolved]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive stretches that agree, or consecutive ones that differ: one row of DriftCheck."""

    start: datetime
    end: datetime
    begun_at: datetime
    windows: int = 0
    differences: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def continues(self, other: "Run") -> bool:
        return self.end == other.start and bool(self.differences) == bool(other.differences)

    def __add__(self, other: "Run") -> "Run":
        return replace(
            self,
            end=other.end,
            windows=self.windows + other.windows,
            differences=self.differences + other.differences,
            samples=[*self.samples, *other.samples][:SAMPLES_KEPT],
            seconds=self.seconds + other.seconds,
        )


def find_drift(
    metric_id: int,
    start: datetime,
    end: datetime,
    kind: DriftCheck.Kind,
    *,
    seconds: float | None = None,
    statement_seconds: float | None = None,
) -> list[DriftCheck]:
    """Compare the stored hours of an active metric in [start, end) with a recount, and record what was found.

    Returns a check for each run of days that agree and for each run of days that differ, in the order of time. UTC day
    by UTC day in snapshots of their own; a gap without records is one step. Ends after `seconds`, with at least one
    step done: the last check's `end` tells how far it came. Raises PeriodError for bounds that are no whole hours,
    NotComparable, and CheckTookTooLong for a step that takes more than `statement_seconds` (settings.DRIFT_SECONDS).
    """
    _check_bounds(start, end)
    begun = time.monotonic()
    checks: list[DriftCheck] = []
    run: Run | None = None
    try:
        for step in _steps(comparable(metric_id), start, end):
            found = compare(metric_id, Place(step.start, step.end), statement_seconds or settings.DRIFT_SECONDS)
            if run is not None and not run.continues(found):
                checks.append(record(metric_id, kind, run))
                run = None
            run = found if run is None else run + found
            if seconds is not None and time.monotonic() - begun > seconds:
                break
    finally:
        if run is not None:
            checks.append(record(metric_id, kind, run))
    return checks


# --- what was found --------------------------------------------------------------------------------------------------


def unresolved(metric_ids: Sequence[int]) -> list[Unresolved]:
    """Return where active ones of these metrics differ as far as anybody knows, the newest find first.

    A difference is resolved by a later check of the same hours that finds none, and by nothing else: a rebuild is
    believed once it was checked.
    """
    with connection.cursor() as cursor:
        rows = drift_sql.still_different(cursor, metric_ids, UNRESOLVED_SHOWN)
    if not rows:
        return []
    checks = DriftCheck.objects.select_related("metric__organisation").in_bulk([check_id for check_id, _, _ in rows])
    return [Unresolved(checks[check_id], start, end) for check_id, start, end in rows if check_id in checks]


def differing(metric_ids: Sequence[int]) -> list[DifferingMetric]:
    """Return the metrics that differ as far as anybody knows, with the spans (see `unresolved`), by name."""
    by_metric: dict[Metric, list[Unresolved]] = {}
    for found in unresolved(metric_ids):
        by_metric.setdefault(found.metric, []).append(found)
    return sorted(
        (DifferingMetric(*pair) for pair in by_metric.items()), key=lambda one: (one.metric.name, one.metric.pk)
    )


def forget_old_checks(metric_ids: Sequence[int]) -> int:
    """Delete checks of metrics older than KEPT_FOR, but those whose difference stands; returns how many."""
    standing = {found.check.pk for found in unresolved(metric_ids)}
    old = DriftCheck.objects.filter(metric__in=metric_ids, checked_at__lt=now() - KEPT_FOR)
    return old.exclude(pk__in=standing).delete()[0]


# --- one comparison --------------------------------------------------------------------------------------------------


def compare(metric_id: int, place: Place, seconds: float) -> Run:
    """Compare one place in a snapshot of its own; raises NotComparable and CheckTookTooLong."""
    begun, begun_at = time.monotonic(), now()
    try:
        with time_limit(seconds), snapshot(seconds=seconds) as cursor:
            # Asked in the snapshot: what is retired or rebuilt meanwhile is not what the stored hours belong to.
            found = drift_sql.compare(cursor, comparable(metric_id), place, SAMPLES_KEPT)
    except TookTooLong as error:
        raise CheckTookTooLong(seconds, place.start, place.end) from error
    return Run(
        place.start,
        place.end,
        begun_at,
        found.windows,
        found.differences,
        found.samples,
        time.monotonic() - begun,
    )


def record(metric_id: int, kind: DriftCheck.Kind, run: Run) -> DriftCheck:
    """Keep what was found; a difference is an error."""
    check = DriftCheck.objects.create(
        metric_id=metric_id,
        kind=kind,
        start=run.start,
        end=run.end,
        windows=min(run.windows, MOST),
        differences=min(run.differences, MOST),
        samples=run.samples,
        checked_at=run.begun_at,  # what happened while it ran, it may not have seen
        milliseconds=min(round(run.seconds * 1000), MOST),
    )
    log.log(
        logging.ERROR if run.differences else logging.INFO,
        "compared metric=%d kind=%s from=%s until=%s windows=%d differences=%d ms=%.1f",
        metric_id, kind, run.start.isoformat(), run.end.isoformat(), run.windows, run.differences, run.seconds * 1000,
    )  # fmt: skip
    return check


def comparable(metric_id: int) -> Metric:
    """Return the metric, if its stored hours are complete; raises NotComparable."""
    metric = Metric.objects.select_related("organisation").get(pk=metric_id)
    if metric.usage_event_id is None:
        raise NotComparable("a metric of SQL stores nothing: it is calculated when it is asked")
    if metric.status != Metric.Status.ACTIVE:
        raise NotComparable(f"an active metric was expected, this one is {metric.get_status_display().lower()}")
    if metric.rebuilt_customer_id is not None:
        raise NotComparable("the metric is being rebuilt; check it when that is done")
    return metric


def _check_bounds(start: datetime, end: datetime) -> None:
    for moment in (start, end):
        if moment != hour_of(moment):
            raise PeriodError(f"whole hours in UTC were expected, got {moment.isoformat()}")
    if not start < end:
        raise PeriodError(f"the end must be after the start, got {start.isoformat()} to {end.isoformat()}")


def _steps(metric: Metric, start: datetime, end: datetime) -> Iterator[Span]:
    """Cut a span into UTC days; days without any record are one step. One look into an index for each step."""
    while start < end:
        first = first_record(metric, start, end)
        until = end if first is None else day_of(first)
        if until <= start:
            until = min(end, day_of(start) + DAY)
        yield Span(start, until)
        start = until


def first_record(metric: Metric, start: datetime, end: datetime) -> datetime | None:
    """Return the earliest timestamp of the metric's usage event in [start, end), if any. One look into an index."""
    return _timestamps(metric, start, end).order_by("timestamp", "id").first()


def last_record(metric: Metric, start: datetime, end: datetime) -> datetime | None:
    """Return the latest timestamp of the metric's usage event in [start, end), if any. One look into an index."""
    return _timestamps(metric, start, end).order_by("-timestamp", "-id").first()


def _timestamps(metric: Metric, start: datetime, end: datetime) -> QuerySet[UsageRecord, datetime]:
    records = UsageRecord.objects.filter(usage_event_id=metric.usage_event_id)
    return records.filter(timestamp__gte=start, timestamp__lt=end).values_list("timestamp", flat=True)


def day_of(moment: datetime) -> datetime:
    """Return the start of the UTC day that holds the moment."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
