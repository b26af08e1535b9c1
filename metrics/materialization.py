"""Materialization: fold new batches and corrections into aggregates, and build or rebuild a metric from history.

Exact because a batch or a mark becomes visible together with the rows it speaks of, and an aggregate always holds the
records of exactly those batches that are not pending, except in windows with a mark. A fold claims marks only together
with every batch that its snapshot sees: only then is a window computed anew the one that the next claim adds to.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import psycopg.errors
from django.db import OperationalError, connection
from django.db.backends.utils import CursorWrapper
from django.utils.timezone import now

from metrics import folding_sql, sql
from metrics.models import Metric
from metrics.snapshots import building_lock, folding_lock, snapshot
from usage.timestamps import FIRST_MOMENT

log = logging.getLogger(__name__)

CLAIM_RECORDS = 200_000  # a backlog is folded piece by piece, so that a crash costs little and others get their turn
CLAIM_BATCHES = 10_000
CLAIM_WINDOWS = 20_000
STRETCH_RECORDS = 50_000  # to begin with; adapted to STRETCH_SECONDS
STRETCH_SECONDS = 0.8  # a fold may have to wait for two seconds
STRETCH_BOUNDS = (1_000, 1_000_000)  # a slow moment must not make stretches so short that they are all overhead
ATTEMPTS = 5
PATIENCE_SECONDS = 5.0
FOLD_SECONDS = 1.0
FORGET_AT_ONCE = 10_000

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Folded:
    """What a fold claimed: batches, their records, changed windows; `complete`: all that its snapshot saw."""

    batches: int
    windows: int
    records: int = 0
    complete: bool = True

    def __bool__(self) -> bool:
        return bool(self.batches or self.windows)

    def __add__(self, other: "Folded") -> "Folded":
        return Folded(
            self.batches + other.batches, self.windows + other.windows, self.records + other.records, other.complete
        )


NOTHING = Folded(0, 0)


def usage_events_to_fold() -> list[int]:
    """Return the ids of the usage events with batches or marks that no fold has claimed."""
    with connection.cursor() as cursor:
        return folding_sql.usage_events_to_fold(cursor)


def fold(usage_event_id: int) -> Folded | None:
    """Bring the aggregates of all metrics of a usage event up to what is there now; returns what was claimed in all.

    None if somebody else is folding it at this moment. A crash at any point undoes the claim with the work.
    """
    started = time.monotonic()
    total = NOTHING
    with folding_lock(usage_event_id) as held:
        if not held:
            return None
        # A backlog is folded piece by piece, but not for ever: others wait for the lock and for this worker. What came
        # in meanwhile is left to the next fold: a few batches touch nearly as many hours as many do.
        while True:
            total = _in_snapshot(partial(_fold_once, usage_event_id=usage_event_id, before=total, started=started))
            if total.complete or time.monotonic() - started > FOLD_SECONDS:
                break
    if total:
        log.info(
            "folded usage_event=%d batches=%d records=%d changed=%d ms=%.1f",
            usage_event_id, total.batches, total.records, total.windows, (time.monotonic() - started) * 1000,
        )  # fmt: skip
    return total


def build(metric_id: int, *, seconds: float = math.inf) -> bool:
    """Compute the aggregates of a metric from the whole history and make it active; True when that is done.

    Goes on where an earlier build stopped. False if the time is up before the end, if the metric is not to be built,
    or if somebody else is building it or folds leave no room at this moment.
    """
    return _under_both_locks(metric_id, lambda metric: _stretch_by_stretch(metric, _build_once, seconds) == "active")


def request_rebuild(metric_id: int) -> bool:
    """Have the aggregates of an active metric computed anew; False if it is not active. The worker sees to it.

    It goes on answering. A rebuild that is under way starts over.
    """
    active = Metric.objects.filter(pk=metric_id, status=Metric.Status.ACTIVE, sql="")
    return bool(active.update(rebuilt_customer_id=0, rebuilt_window_start=FIRST_MOMENT))


def rebuild(metric_id: int, *, seconds: float = math.inf) -> bool:
    """Compute the aggregates of an active metric anew, as requested, window after window; True when that is done.

    Goes on where an earlier one stopped. False as for `build`.
    """
    return _under_both_locks(metric_id, lambda metric: _stretch_by_stretch(metric, _rebuild_once, seconds) == "rebuilt")


def metrics_to_build() -> list[int]:
    """Return the ids of the metrics that are to be built."""
    return list(Metric.objects.filter(status=Metric.Status.BUILDING).order_by("pk").values_list("pk", flat=True))


def metrics_to_rebuild() -> list[int]:
    """Return the ids of the metrics that are to be rebuilt."""
    requested = Metric.objects.filter(status=Metric.Status.ACTIVE, rebuilt_customer_id__isnull=False)
    return list(requested.order_by("pk").values_list("pk", flat=True))


def forget_retired() -> int:
    """Delete the aggregates of retired versions, some at a time; returns how many rows there were."""
    forgotten = 0
    for metric in Metric.objects.filter(status=Metric.Status.RETIRED, sql=""):
        while True:
            with connection.cursor() as cursor:
                some = sql.forget_some(cursor, metric, FORGET_AT_ONCE)
            forgotten += some
            if not some:
                break
    return forgotten


def _fold_once(
    cursor: CursorWrapper, usage_event_id: int, before: Folded = NOTHING, started: float | None = None
) -> Folded:
    """Claim and add what this snapshot sees; claims are taken for usage events without a metric too.

    Returns it with what was folded before, since `started`: so the report tells it.
    """
    started = time.monotonic() if started is None else started
    claimed = folding_sql.claim(
        cursor, usage_event_id, batches=CLAIM_BATCHES, records=CLAIM_RECORDS, windows=CLAIM_WINDOWS
    )
    complete = claimed.complete and len(claimed.windows) < CLAIM_WINDOWS
    total = before + Folded(len(claimed.batch_ids), len(claimed.windows), claimed.records, complete)
    if not claimed.batch_ids and not claimed.windows:
        return total
    statuses = (Metric.Status.ACTIVE, Metric.Status.BUILDING)
    metrics = list(Metric.objects.filter(usage_event_id=usage_event_id, status__in=statuses).order_by("pk"))
    if claimed.batch_ids:
        folding_sql.add_batches(cursor, metrics, claimed.batch_ids)
    if claimed.windows:
        for metric in metrics:
            sql.rebuild_windows(cursor, metric, claimed.windows)
    folding_sql.report_fold(
        cursor,
        usage_event_id,
        milliseconds=round((time.monotonic() - started) * 1000),
        batches=total.batches,
        windows=total.windows,
        records=total.records,
    )
    return total


def _under_both_locks(metric_id: int, work: Callable[[Metric], bool]) -> bool:
    """Work on a metric while nobody else does, and nobody folds; False if there is no room for that at this moment."""
    metric = Metric.objects.get(pk=metric_id)
    if metric.usage_event_id is None:
        return False
    with building_lock(metric_id) as mine:
        if not mine:
            return False
        with folding_lock(metric.usage_event_id, patience=PATIENCE_SECONDS) as held:
            return held and work(metric)


def _stretch_by_stretch(metric: Metric, once: Callable[[CursorWrapper, int, int], str], seconds: float) -> str:
    """Repeat a step in snapshots of their own until it says something else than "on", or time is up; returns that."""
    started = time.monotonic()
    records = STRETCH_RECORDS
    while True:
        begun = time.monotonic()
        outcome = _in_snapshot(lambda cursor, records=records: once(cursor, metric.pk, records))  # type: ignore[misc]
        if outcome != "on" or time.monotonic() - started > seconds:
            break
        records = adapted(records, time.monotonic() - begun)
    if outcome != "on":
        log.info("built metric=%d outcome=%s ms=%.1f", metric.pk, outcome, (time.monotonic() - started) * 1000)
    return outcome


def adapted(records: int, seconds: float) -> int:
    """Return how many records the next stretch should have, when one of so many took so long."""
    wanted = round(records * min(2.0, STRETCH_SECONDS / max(seconds, 0.001)))
    least, most = STRETCH_BOUNDS
    return max(min(least, STRETCH_RECORDS), min(most, wanted))


def _build_once(cursor: CursorWrapper, metric_id: int, records: int) -> str:
    """Fold what is pending, then build the next stretch in the same snapshot; "on", "active", or "not to be built"."""
    metric = Metric.objects.select_for_update().get(pk=metric_id)
    if metric.status != Metric.Status.BUILDING:
        return "not to be built"
    assert metric.usage_event_id is not None
    assert metric.built_customer_id is not None
    assert metric.built_window_start is not None
    if not _fold_once(cursor, metric.usage_event_id).complete:
        return "on"  # a stretch holds every visible record, so no batch may be left that a fold would add once more
    position = (metric.built_customer_id, metric.built_window_start)
    end = sql.stretch_end(cursor, metric.usage_event_id, position, records)
    sql.build_stretch(cursor, metric, position, end)
    if end is not None:
        metric.built_customer_id, metric.built_window_start = end
        metric.save(update_fields=["built_customer_id", "built_window_start"])
        return "on"
    put_in_force(metric)
    return "active"


def put_in_force(metric: Metric) -> None:
    """Make a version active and retire the one before; in the transaction that completes it."""
    same_code = Metric.objects.filter(organisation_id=metric.organisation_id, code=metric.code)
    same_code.filter(status=Metric.Status.ACTIVE).update(
        status=Metric.Status.RETIRED, rebuilt_customer_id=None, rebuilt_window_start=None
    )
    metric.status, metric.activated_at = Metric.Status.ACTIVE, now()
    metric.save(update_fields=["status", "activated_at"])


def _rebuild_once(cursor: CursorWrapper, metric_id: int, records: int) -> str:
    """Fold what is pending, then compute the next stretch anew; "on", "rebuilt", or "not to be rebuilt"."""
    metric = Metric.objects.select_for_update().get(pk=metric_id)
    if metric.status != Metric.Status.ACTIVE or metric.rebuilt_customer_id is None:
        return "not to be rebuilt"
    assert metric.usage_event_id is not None
    assert metric.rebuilt_window_start is not None
    if not _fold_once(cursor, metric.usage_event_id).complete:
        return "on"
    position = (metric.rebuilt_customer_id, metric.rebuilt_window_start)
    end = sql.stretch_end(cursor, metric.usage_event_id, position, records)
    sql.forget_stretch(cursor, metric, position, end)
    sql.build_stretch(cursor, metric, position, end)
    metric.rebuilt_customer_id, metric.rebuilt_window_start = end or (None, None)
    metric.save(update_fields=["rebuilt_customer_id", "rebuilt_window_start"])
    return "rebuilt" if end is None else "on"


def _in_snapshot(work: Callable[[CursorWrapper], Result]) -> Result:
    """Run the work in one snapshot and commit it; serialization failures are tried again."""
    for attempt in range(ATTEMPTS):
        try:
            with snapshot() as cursor:
                return work(cursor)
        except OperationalError as error:
            transient = isinstance(error.__cause__, psycopg.errors.SerializationFailure)
            # A lost connection took the lock with it: what follows on a new one would run without.
            if not transient or attempt == ATTEMPTS - 1 or connection.connection is None:
                raise
    raise AssertionError("the loop returns or raises")
