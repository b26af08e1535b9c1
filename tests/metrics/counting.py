"""The recount: what every aggregate and every quantity must be, from the raw records, in Python with Decimal."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from metrics.models import Metric, MetricAggregate
from usage.models import UsageRecord
from usage.windows import hour_of


class State(NamedTuple):
    """The state of a window: records, values among them, their sum (None for a count, or without values)."""

    record_count: int
    value_count: int
    sum: Decimal | None


def recount(metric: Metric, records: Iterable[UsageRecord]) -> State:
    """Count records, voided ones aside, as the metric would."""
    kept = [record for record in records if record.voided_at is None]
    if metric.aggregation == "count":
        return State(len(kept), len(kept), None)
    values = [record.data.get(metric.property) for record in kept]
    numbers = [Decimal(value) for value in values if isinstance(value, int | Decimal) and not isinstance(value, bool)]
    return State(len(kept), len(numbers), sum(numbers, Decimal(0)) if numbers else None)


def expected_aggregates(metric: Metric) -> dict[tuple[int, datetime], State]:
    """Return what must be stored for the metric when nothing is pending, by customer and hour."""
    windows: dict[tuple[int, datetime], list[UsageRecord]] = defaultdict(list)
    for record in UsageRecord.objects.filter(usage_event_id=metric.usage_event_id, voided_at=None):
        windows[record.customer_id, hour_of(record.timestamp)].append(record)
    return {window: recount(metric, records) for window, records in windows.items()}


def stored_aggregates(metric: Metric) -> dict[tuple[int, datetime], State]:
    """Return what is stored for the metric, by customer and hour."""
    return {
        (row.customer_id, row.window_start): State(row.record_count, row.value_count, row.sum)
        for row in MetricAggregate.objects.filter(metric=metric)
    }


def expected_quantity(metric: Metric, customer_id: str, start: datetime, end: datetime) -> tuple[Decimal, int]:
    """Return quantity and record count over [start, end) for a customer by external id."""
    state = recount(
        metric,
        UsageRecord.objects.filter(
            usage_event_id=metric.usage_event_id,
            customer__external_id=customer_id,
            timestamp__gte=start,
            timestamp__lt=end,
        ),
    )
    quantity = Decimal(state.record_count) if metric.aggregation == "count" else state.sum or Decimal(0)
    return quantity, state.record_count
