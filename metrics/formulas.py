"""What an aggregation keeps per window, how windows merge, and what quantity the state gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg import sql

from metrics.exactly import EXACT, quotient, rounded, trimmed
from metrics.models import Aggregation, Metric

SECONDS_PER_HOUR = 3600
ZERO_FROM_NOTHING = {Aggregation.COUNT, Aggregation.SUM, Aggregation.UNIQUE_COUNT}
# These add up: by dimension to the total, by window to the period. The others do not.
ADDITIVE = {Aggregation.COUNT, Aggregation.SUM, Aggregation.WEIGHTED_SUM}
# Their windows do not merge; stored hours only tell how many records there are, quantities are read from records.
READ_FROM_RECORDS = {Aggregation.PERCENTILE, Aggregation.WEIGHTED_SUM}


_VALUE = sql.SQL("value")


@dataclass(frozen=True, slots=True)
class StateColumn:
    """One column of MetricAggregate: computed from a window's records, added to, and merged over windows."""

    name: str
    of_records: sql.SQL
    added: sql.SQL
    merged: sql.SQL

    def of(self, value: sql.Composable = _VALUE, passes: sql.Composable | None = None) -> sql.Composed:
        """Return the column of a group of records, whose value is in `value`; only of those that pass."""
        only = sql.SQL("") if passes is None else sql.SQL(" FILTER (WHERE {})").format(passes)
        also = sql.SQL("") if passes is None else sql.SQL(" AND {}").format(passes)
        return self.of_records.format(value=value, only=only, also=also)


RECORD_COUNT = StateColumn(
    "record_count",
    of_records=sql.SQL("count(*){only}"),
    added=sql.SQL("aggregate.record_count + excluded.record_count"),
    merged=sql.SQL("sum(record_count)"),
)
VALUE_COUNT = StateColumn(
    "value_count",
    of_records=sql.SQL("count({value}){only}"),
    added=sql.SQL("aggregate.value_count + excluded.value_count"),
    merged=sql.SQL("sum(value_count)"),
)
SUM = StateColumn(
    "sum",
    of_records=sql.SQL("sum({value}){only}"),
    added=sql.SQL("coalesce(aggregate.sum + excluded.sum, aggregate.sum, excluded.sum)"),
    merged=sql.SQL("sum(sum)"),
)
MIN = StateColumn(
    "min",
    of_records=sql.SQL("min({value}){only}"),
    added=sql.SQL("least(aggregate.min, excluded.min)"),
    merged=sql.SQL("min(min)"),
)
MAX = StateColumn(
    "max",
    of_records=sql.SQL("max({value}){only}"),
    added=sql.SQL("greatest(aggregate.max, excluded.max)"),
    merged=sql.SQL("max(max)"),
)


# The largest of these is the latest record with a value; a sorted list of all of them would fill the memory.
_WITH_VALUE = "FILTER (WHERE {value} IS NOT NULL{also})"
_OF_RECORD = "(max(ARRAY[extract(epoch FROM record.timestamp), record.id, {value}]) " + _WITH_VALUE + ")"
_OF_HOUR = (
    "(max(ARRAY[extract(epoch FROM latest_timestamp), latest_record_id, latest_value])"
    " FILTER (WHERE latest_record_id IS NOT NULL))"
)


def _latest(name: str, of_records: str, merged: str) -> StateColumn:
    """A column of the latest record with a value: by timestamp, ties go to the one stored last."""
    added = (
        "CASE WHEN aggregate.latest_record_id IS NULL OR (excluded.latest_timestamp, excluded.latest_record_id)"
        " > (aggregate.latest_timestamp, aggregate.latest_record_id)"
        f" THEN excluded.{name} ELSE aggregate.{name} END"
    )
    return StateColumn(name, sql.SQL(of_records), sql.SQL(added), sql.SQL(merged))


LATEST = (
    _latest("latest_value", f"{_OF_RECORD}[3]", f"{_OF_HOUR}[3]"),
    _latest("latest_timestamp", "max(record.timestamp) " + _WITH_VALUE, "max(latest_timestamp)"),
    _latest("latest_record_id", f"{_OF_RECORD}[2]::bigint", f"{_OF_HOUR}[2]::bigint"),
)

_MORE_COLUMNS: dict[str, tuple[StateColumn, ...]] = {
    Aggregation.SUM: (SUM,),
    Aggregation.AVG: (SUM,),
    Aggregation.MIN: (MIN,),
    Aggregation.MAX: (MAX,),
    Aggregation.LATEST: LATEST,
}


def state_columns(metric: Metric) -> tuple[StateColumn, ...]:
    """Return the columns that the metric's aggregation keeps; the others stay null."""
    return (RECORD_COUNT, VALUE_COUNT, *_MORE_COLUMNS.get(metric.aggregation, ()))


def quantity_of(metric: Metric, state: Mapping[str, Any]) -> Decimal | None:
    """Return the quantity that a state gives, rounded as the metric says; an empty state is that of no records.

    0 from nothing for count, sum and unique_count, None for the others. An average divides by the values that were
    there. A percentile is the continuous one, interpolated between the two values around rank p (n - 1): definition 7
    of Hyndman and Fan (1996), SQL's PERCENTILE_CONT. A weighted sum is the integral over time of the last value seen
    (a step function, "last observation carried forward"), in value times hours: the sum of value_i x (t_i+1 - t_i).
    """
    exact = _unrounded(metric, state)
    if exact is None:
        return None
    if metric.rounding_digits is None:
        return trimmed(exact)  # one value has one text, however its records were written
    return rounded(exact, metric.rounding_mode, metric.rounding_digits)


def _unrounded(metric: Metric, state: Mapping[str, Any]) -> Decimal | None:
    aggregation = Aggregation(metric.aggregation)
    if not state.get("value_count") and "held_seconds" not in state:
        return Decimal(0) if aggregation in ZERO_FROM_NOTHING else None
    match aggregation:
        case Aggregation.COUNT:
            return Decimal(state["record_count"])
        case Aggregation.AVG:
            return quotient(state["sum"], int(state["value_count"]))
        case Aggregation.LATEST:
            return Decimal(state["latest_value"])
        case Aggregation.UNIQUE_COUNT:
            return Decimal(state["distinct_count"])
        case Aggregation.PERCENTILE:
            return _interpolated(metric, state)
        case Aggregation.WEIGHTED_SUM:
            held = state.get("held_seconds")
            return None if held is None else quotient(held, SECONDS_PER_HOUR)
        case _:
            return Decimal(state[aggregation.value])


def _interpolated(metric: Metric, state: Mapping[str, Any]) -> Decimal:
    assert metric.percentile is not None
    rank = EXACT.multiply(EXACT.scaleb(metric.percentile, -2), Decimal(int(state["value_count"]) - 1))
    fraction = EXACT.subtract(rank, Decimal(int(rank)))
    step = EXACT.multiply(EXACT.subtract(state["upper"], state["lower"]), fraction)
    return EXACT.add(state["lower"], step)
