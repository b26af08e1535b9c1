"""Materialization: fold new batches and corrections into aggregates, and build a new metric from history.

Exact because a batch or a mark becomes visible together with the rows it speaks of, and a fold claims everything that
its snapshot sees and only that: a window without a mark had no row edited or moved since the last fold, so adding the
claimed batches is right; a window with a mark is computed anew.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg.errors
from django.db import OperationalError, connection
from django.db.backends.utils import CursorWrapper
from django.utils.timezone import now

from metrics import sql
from metrics.models import Metric
from metrics.snapshots import building_lock, folding_lock, snapshot

log = logging.getLogger(__name__)

STRETCH_RECORDS = 100_000  # well under the two seconds that a fold may have to wait
ATTEMPTS = 5
PATIENCE_SECONDS = 5.0
FOLD_SECONDS = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Folded:
    """What one fold claimed."""

    batches: int
    windows: int

    def __bool__(self) -> bool:
        return bool(self.batches or self.windows)


def usage_events_to_fold() -> list[int]:
    """Return the ids of the usage events with batches or marks that no fold has claimed."""
    with connection.cursor() as cursor:
        return sql.usage_events_to_fold(cursor)


def fold(usage_event_id: int) -> Folded | None:
    """Bring the aggregates of all metrics of a usage event up to date; returns what was claimed in all.

    None if somebody else is folding it at this moment. A crash at any point undoes the claim with the work.
    """
    started = time.monotonic()
    batches = windows = 0
    with folding_lock(usage_event_id) as held:
        if not held:
            return None
        # Not for ever: while usage comes in there is always more, and others wait for the lock and for this worker.
        while folded := _in_snapshot(lambda cursor: _fold_once(cursor, usage_event_id)):
            batches, windows = batches + folded.batches, windows + folded.windows
            if time.monotonic() - started > FOLD_SECONDS:
                break
    if batches or windows:
        elapsed = (time.monotonic() - started) * 1000
        log.info("folded usage_event=%d batches=%d changed=%d ms=%.1f", usage_event_id, batches, windows, elapsed)
    return Folded(batches, windows)


def build(metric_id: int) -> bool:
    """Compute the aggregates of a metric from the whole history and make it active; True when that is done.

    Goes on where an earlier build stopped. False if the metric is not to be built, or somebody
    else is building it or folds leave no room at this moment.
    """
    metric = Metric.objects.get(pk=metric_id)
    with building_lock(metric_id) as mine:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while mine and time.monotonic() < deadline:
            with folding_lock(metric.usage_event_id) as held:
                if held:
                    return _build_all(metric)
            time.sleep(0.05)
    return False


def _build_all(metric: Metric) -> bool:
    started = time.monotonic()
    while True:
        status = _in_snapshot(lambda cursor: _build_once(cursor, metric.pk))
        if status != Metric.Status.BUILDING:
            break
    log.info("built metric=%d status=%s ms=%.1f", metric.pk, status, (time.monotonic() - started) * 1000)
    return status == Metric.Status.ACTIVE


def _fold_once(cursor: CursorWrapper, usage_event_id: int) -> Folded:
    """Claim and add what this snapshot sees; claims are taken for usage events without a metric too."""
    changed = sql.claim_windows(cursor, usage_event_id)
    batch_ids = sql.claim_batches(cursor, usage_event_id)
    if batch_ids or changed:
        statuses = (Metric.Status.ACTIVE, Metric.Status.BUILDING)
        for metric in Metric.objects.filter(usage_event_id=usage_event_id, status__in=statuses).order_by("pk"):
            if batch_ids:
                sql.add_batches(cursor, metric, batch_ids)
            if changed:
                # After adding: whatever was added to a changed window goes away with the rest of its old state.
                sql.rebuild_windows(cursor, metric, changed)
    return Folded(len(batch_ids), len(changed))


def _build_once(cursor: CursorWrapper, metric_id: int) -> str:
    """Fold what is pending, then build the next stretch in the same snapshot; returns the metric's status after it."""
    metric = Metric.objects.select_for_update().get(pk=metric_id)
    if metric.status != Metric.Status.BUILDING:
        return metric.status
    _fold_once(cursor, metric.usage_event_id)
    end = sql.stretch_end(cursor, metric, STRETCH_RECORDS)
    sql.build_stretch(cursor, metric, end)
    if end is not None:
        metric.built_customer_id, metric.built_window_start = end
        metric.save(update_fields=["built_customer_id", "built_window_start"])
        return metric.status
    same_code = Metric.objects.filter(organisation_id=metric.organisation_id, code=metric.code)
    earlier = same_code.filter(version__lt=metric.version)
    earlier.filter(status=Metric.Status.ACTIVE).update(status=Metric.Status.RETIRED)
    metric.status, metric.activated_at = Metric.Status.ACTIVE, now()
    metric.save(update_fields=["status", "activated_at"])
    return metric.status


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
