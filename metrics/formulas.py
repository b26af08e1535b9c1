"""What an aggregation keeps per window, how windows merge, and what quantity the state gives."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg import sql

from metrics.models import Aggregation, Metric


@dataclass(frozen=True, slots=True)
class StateColumn:
    """One column of MetricAggregate: computed from a window's records, added to, and merged over windows."""

    name: str
    of_records: sql.SQL
    added: sql.SQL
    merged: sql.SQL


RECORD_COUNT = StateColumn(
    "record_count",
    of_records=sql.SQL("count(*)"),
    added=sql.SQL("aggregate.record_count + excluded.record_count"),
    merged=sql.SQL("sum(record_count)"),
)
VALUE_COUNT = StateColumn(
    "value_count",
    of_records=sql.SQL("count(value)"),
    added=sql.SQL("aggregate.value_count + excluded.value_count"),
    merged=sql.SQL("sum(value_count)"),
)
SUM = StateColumn(
    "sum",
    of_records=sql.SQL("sum(value)"),
    added=sql.SQL("coalesce(aggregate.sum + excluded.sum, aggregate.sum, excluded.sum)"),
    merged=sql.SQL("sum(sum)"),
)

_COLUMNS = {
    Aggregation.COUNT: (RECORD_COUNT, VALUE_COUNT),
    Aggregation.SUM: (RECORD_COUNT, VALUE_COUNT, SUM),
}


def state_columns(metric: Metric) -> tuple[StateColumn, ...]:
    """Return the columns that the metric's aggregation keeps; the others stay null."""
    return _COLUMNS[Aggregation(metric.aggregation)]


def value_of(metric: Metric) -> sql.Composable:
    """Return the SQL of one record's value (numeric, null if it has none); the record's alias is `record`.

    The cast is guarded: what an older schema let in, or a missing property, is null and never an error. The property's
    name is a parameter, `property`: it may hold anything that JSON allows.
    """
    if metric.aggregation == Aggregation.COUNT:
        return sql.SQL("1::numeric")
    return sql.SQL(
        "CASE WHEN jsonb_typeof(record.data -> %(property)s) = 'number' THEN (record.data -> %(property)s)::numeric END"
    )


def quantity_of(metric: Metric, state: dict[str, Any]) -> Decimal | None:
    """Return the quantity that a merged state gives: 0 from nothing for count and sum."""
    if metric.aggregation == Aggregation.COUNT:
        return Decimal(state["record_count"])
    return state["sum"] if state["sum"] is not None else Decimal(0)
