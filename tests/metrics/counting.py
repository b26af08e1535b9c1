"""The recount: what every aggregate and every quantity must be, from the raw records, in Python with Fractions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from metrics.models import Metric, MetricAggregate, MetricDistinctValue
from metrics.periods import Window
from metrics.questions import Question
from tests.metrics.calendars import windows_of
from tests.metrics.record_values import (
    MISSING,
    NULL,
    Canonical,
    dimensions_of,
    is_meant,
    passes,
    rounded,
    stored_dimensions,
    value_of,
)
from usage.models import UsageRecord
from usage.windows import hour_of

MICROSECONDS_PER_HOUR = 3_600_000_000
ZERO_FROM_NOTHING = ("count", "sum", "unique_count")

Number = Fraction | Decimal


class State(NamedTuple):
    """The state of a window: records, values among them, and what the aggregation keeps of the values."""

    record_count: int
    value_count: int
    sum: Number | None = None
    min: Number | None = None
    max: Number | None = None
    latest: tuple[Number, datetime, int] | None = None  # the value, its timestamp, its record
    distinct: tuple[int, ...] = ()  # how many records have each distinct value, ascending


class Fact(NamedTuple):
    """A record that the metric counts."""

    record_id: int
    customer_id: int
    customer: str
    timestamp: datetime
    value: Any
    dimensions: tuple[Canonical, ...]


class Row(NamedTuple):
    """Where a quantity belongs: a customer by external id, a window, the dimensions asked for."""

    customer: str
    start: datetime
    end: datetime
    dimensions: tuple[Canonical, ...] = ()


class Counted(NamedTuple):
    """A quantity, and how many records and values are in it."""

    quantity: Fraction | None
    record_count: int
    value_count: int


def facts_of(metric: Metric) -> list[Fact]:
    """Return the records that the metric counts, in the order of time and, at one time, of storing."""
    stored = UsageRecord.objects.filter(usage_event_id=metric.usage_event_id, voided_at=None)
    columns = stored.order_by("timestamp", "id").values_list(
        "id", "customer_id", "customer__external_id", "timestamp", "data"
    )
    return [
        Fact(record_id, customer_id, customer, timestamp, value_of(metric, data), dimensions_of(metric, data))
        for record_id, customer_id, customer, timestamp, data in columns
        if passes(metric.filters, data)
    ]


# --- stored hours -----------------------------------------------------------------------------------------------------


def state_of(metric: Metric, facts: Sequence[Fact]) -> State:
    """Return the state that the facts of one window must have left; they are in the order of time and of storing."""
    valued = [fact for fact in facts if fact.value is not None]
    counts = State(len(facts), len(valued))
    values = [fact.value for fact in valued]
    if not values:
        return counts
    match metric.aggregation:
        case "sum" | "avg":
            return counts._replace(sum=sum(values, Fraction(0)))
        case "min":
            return counts._replace(min=min(values))
        case "max":
            return counts._replace(max=max(values))
        case "latest":
            last = valued[-1]
            return counts._replace(latest=(last.value, last.timestamp, last.record_id))
        case "unique_count":
            return counts._replace(distinct=tuple(sorted(Counter(values).values())))
    return counts


def expected_aggregates(metric: Metric) -> dict[tuple[Any, ...], State]:
    """Return what must be stored for the metric when nothing is pending, by customer, hour and dimensions."""
    hours: dict[tuple[Any, ...], list[Fact]] = defaultdict(list)
    for fact in facts_of(metric):
        hours[fact.customer_id, hour_of(fact.timestamp), *fact.dimensions].append(fact)
    return {key: state_of(metric, facts) for key, facts in hours.items()}


def stored_aggregates(metric: Metric) -> dict[tuple[Any, ...], State]:
    """Return what is stored for the metric, by customer, hour and dimensions; each key is there once."""
    values: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for value in MetricDistinctValue.objects.filter(metric=metric):
        values[value.customer_id, value.window_start, *stored_dimensions(value.dimensions)].append(value.record_count)
    found: dict[tuple[Any, ...], State] = {}
    for row in MetricAggregate.objects.filter(metric=metric):
        key = (row.customer_id, row.window_start, *stored_dimensions(row.dimensions))
        assert key not in found, f"stored twice: {key}"
        latest = None
        if row.latest_value is not None and row.latest_timestamp is not None and row.latest_record_id is not None:
            latest = row.latest_value, row.latest_timestamp, row.latest_record_id
        distinct = tuple(sorted(values.pop(key, [])))
        found[key] = State(row.record_count, row.value_count, row.sum, row.min, row.max, latest, distinct)
    assert not values, f"distinct values without an aggregate: {values}"
    return found


# --- quantities -------------------------------------------------------------------------------------------------------


def expected_answer(metric: Metric, question: Question, as_of: datetime) -> dict[Row, Counted]:
    """Return every row that an answer to the question must have, on all its pages, and no other."""
    named = set(question.customer_ids)
    places = [metric.group_by.index(name) for name in question.group_by]
    windows = windows_of(question.start, question.end, question.window, question.zone)
    groups: dict[tuple[Any, ...], list[Fact]] = defaultdict(list)
    for fact in facts_of(metric):
        if (not named or fact.customer in named) and _is_asked_for(metric, question, fact):
            dimensions = tuple(_answered(fact.dimensions[place]) for place in places)
            groups[fact.customer, dimensions].append(fact)
    rows = {}
    for (customer, dimensions), facts in groups.items():
        inside = _by_window(windows, facts)
        for window in windows:
            counted = _counted(metric, facts, inside.get(window, []), *window, as_of)
            if counted is not None:
                rows[Row(customer, *window, dimensions)] = counted
    if question.window is Window.TOTAL and not question.group_by:
        for customer in named:
            nothing = Counted(_from_nothing(metric), 0, 0)
            rows.setdefault(Row(customer, *windows[0]), nothing)
    return rows


def _by_window(
    windows: list[tuple[datetime, datetime]], facts: Sequence[Fact]
) -> dict[tuple[datetime, datetime], list[Fact]]:
    found: dict[tuple[datetime, datetime], list[Fact]] = defaultdict(list)
    left = list(reversed(windows))
    for fact in facts:  # in the order of time, as the windows are
        while left and left[-1][1] <= fact.timestamp:
            left.pop()
        if left and left[-1][0] <= fact.timestamp:
            found[left[-1]].append(fact)
    return found


def _counted(
    metric: Metric, facts: Sequence[Fact], inside: Sequence[Fact], start: datetime, end: datetime, as_of: datetime
) -> Counted | None:
    """Return what is counted over [start, end) of facts of one group, some of them inside; None for no row."""
    if not inside and metric.aggregation != "weighted_sum":
        return None
    values = [fact.value for fact in inside if fact.value is not None]
    quantity: Fraction | None
    if metric.aggregation == "weighted_sum":
        quantity = _weighted(facts, start, min(end, as_of))
    else:
        quantity = _quantity(metric, values) if values else _from_nothing(metric)
    if not inside and quantity is None:
        return None
    if quantity is not None and metric.rounding_mode:
        quantity = rounded(quantity, metric.rounding_mode, metric.rounding_digits or 0)
    return Counted(quantity, len(inside), len(values))


def _from_nothing(metric: Metric) -> Fraction | None:
    return Fraction(0) if metric.aggregation in ZERO_FROM_NOTHING else None


def _quantity(metric: Metric, values: list[Any]) -> Fraction:
    match metric.aggregation:
        case "count":
            return Fraction(len(values))
        case "sum":
            return sum(values, Fraction(0))
        case "avg":
            return sum(values, Fraction(0)) / len(values)
        case "min":
            return Fraction(min(values))
        case "max":
            return Fraction(max(values))
        case "latest":
            return Fraction(values[-1])
        case "unique_count":
            return Fraction(len(set(values)))
        case "percentile":
            assert metric.percentile is not None
            return percentile(values, Fraction(metric.percentile))
    raise AssertionError(f"no aggregation of ours: {metric.aggregation}")


def percentile(values: Iterable[Fraction], p: Fraction) -> Fraction:
    """Return the continuous percentile: at rank (n - 1) p / 100, between its two neighbours in proportion."""
    ordered = sorted(values)
    below, share = divmod((len(ordered) - 1) * p / 100, 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] * (1 - share) + ordered[above] * share


def _weighted(facts: Sequence[Fact], start: datetime, end: datetime) -> Fraction | None:
    """Add up value times hours within [start, end), each value held until the next of its own dimensions."""
    series: dict[tuple[Canonical, ...], list[Fact]] = defaultdict(list)
    for fact in facts:
        if fact.value is not None:
            series[tuple(map(_answered, fact.dimensions))].append(fact)
    total: Fraction | None = None
    for held in series.values():
        nexts = [fact.timestamp for fact in held[1:]] + [end]
        for fact, following in zip(held, nexts, strict=True):
            since, until = max(fact.timestamp, start), min(following, end)
            if since < until:
                hours = Fraction((until - since) // timedelta(microseconds=1), MICROSECONDS_PER_HOUR)
                total = (total or Fraction(0)) + fact.value * hours
    return total


def _answered(dimension: Canonical) -> Canonical:
    return NULL if dimension == MISSING else dimension


def _is_asked_for(metric: Metric, question: Question, fact: Fact) -> bool:
    return all(
        any(is_meant(str(text), fact.dimensions[metric.group_by.index(name)]) for text in texts)
        for name, texts in question.filter_by.items()
    )
