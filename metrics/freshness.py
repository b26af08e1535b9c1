"""Freshness: what waits for a fold, what the last fold took, and how far builds and rebuilds have come."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db import connection
from django.db.models import Q
from django.utils.timezone import now

from customers.models import Customer
from metrics import folding_sql
from metrics.models import FoldReport, Metric
from metrics.versions import build_progress
from usage.models import UsageEvent

COUNTED = 10_000
# A fold is woken more than once a second; what waits so long waits for a worker.
STALE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class MetricFreshness:
    """A metric in force or on its way there; `progress` (0 to 1) of a build or a rebuild, None where none goes on."""

    metric: Metric
    progress: float | None

    @property
    def rebuilding(self) -> bool:
        return self.metric.rebuilt_customer_id is not None

    @property
    def percent(self) -> int | None:
        return None if self.progress is None else int(self.progress * 100)


@dataclass(frozen=True, slots=True)
class Freshness:
    """What of a usage event is not in the stored hours yet, counted up to COUNTED, and its metrics.

    Quantities count all of it already: they read pending batches and changed windows from the records.
    """

    usage_event: UsageEvent
    pending_batches: int
    pending_records: int
    oldest_pending: datetime | None
    oldest_pending_seconds: float | None
    changed_windows: int
    last_fold: FoldReport | None
    metrics: list[MetricFreshness] = field(default_factory=list)

    @property
    def stale(self) -> bool:
        return (self.oldest_pending_seconds or 0) > STALE_SECONDS

    @property
    def waiting_in_words(self) -> str:
        return "" if self.oldest_pending_seconds is None else duration_in_words(self.oldest_pending_seconds)

    @property
    def more_pending(self) -> bool:
        return self.pending_batches >= COUNTED

    @property
    def more_changed(self) -> bool:
        return self.changed_windows >= COUNTED


def freshness(usage_events: Sequence[UsageEvent]) -> list[Freshness]:
    """Return how fresh the stored hours of each usage event are, in the order given; three queries and the progress."""
    ids = [usage_event.pk for usage_event in usage_events]
    moment = now()
    with connection.cursor() as cursor:
        waiting = folding_sql.pending_work(cursor, ids, COUNTED)
    reports = FoldReport.objects.in_bulk(ids)
    metrics = _metrics_of(ids)
    found = []
    for usage_event in usage_events:
        batches, records, oldest, windows = waiting[usage_event.pk]
        seconds = None if oldest is None else max(0.0, (moment - oldest).total_seconds())
        report = reports.get(usage_event.pk)
        counts = (batches, records, oldest, seconds, windows)
        found.append(Freshness(usage_event, *counts, report, metrics[usage_event.pk]))
    return found


def duration_in_words(seconds: float) -> str:
    """Return a length of time in the unit that fits: 0.4 s, 12 s, 3 min, 5 h, 2 days."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < length * most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def rebuild_progress(metric: Metric) -> float | None:
    """Return which share of the organisation's customers a rebuild is done with, from 0 to 1; None if none goes on."""
    if metric.rebuilt_customer_id is None:
        return None
    customers = Customer.objects.filter(organisation_id=metric.organisation_id)
    everybody = customers.count()
    return round(customers.filter(pk__lt=metric.rebuilt_customer_id).count() / everybody, 3) if everybody else 0.0


def _metrics_of(usage_event_ids: list[int]) -> dict[int | None, list[MetricFreshness]]:
    by_usage_event: dict[int | None, list[MetricFreshness]] = defaultdict(list)
    in_force = Q(status__in=[Metric.Status.ACTIVE, Metric.Status.BUILDING])
    for metric in Metric.objects.filter(in_force, usage_event__in=usage_event_ids).order_by("code", "version"):
        building = metric.status == Metric.Status.BUILDING
        progress = build_progress(metric) if building else rebuild_progress(metric)
        by_usage_event[metric.usage_event_id].append(MetricFreshness(metric, progress))
    return by_usage_event
