"""Every statement on aggregates: a name, what it does, the index it relies on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from metrics.calculation import HOUR_OF_RECORD, calculation
from metrics.formulas import state_columns
from metrics.models import Aggregation, Metric, MetricAggregate, MetricDistinctValue
from metrics.parameters import Parameters

CustomerHour = tuple[int, datetime]  # (customer id, start of the hour)


# --- aggregates from records -----------------------------------------------------------------------------------------

AGGREGATES_KEY = "usage_event_id, metric_id, customer_id, window_start, dimensions"
_KEY = sql.SQL(AGGREGATES_KEY)
_RECORDS = sql.SQL("usage_usagerecord AS record")
_HOUR = sql.SQL(HOUR_OF_RECORD)
_OF_RECORDS = sql.SQL(
    """
    SELECT record.usage_event_id, %(metric_id)s, record.customer_id, {hour}, {dimensions}, {kept}
    FROM {source} CROSS JOIN LATERAL (SELECT {value} AS value OFFSET 0) AS counted
    WHERE record.usage_event_id = %(usage_event_id)s AND record.voided_at IS NULL AND {counts} AND {condition}
    GROUP BY {groups}
    """
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of stored hours: what is kept for the records of a group."""

    name: sql.Identifier
    kept: sql.Composable
    names: sql.Composable
    groups: sql.SQL
    condition: sql.SQL
    key: sql.Composable


def stored_tables(metric: Metric) -> list[Table]:
    """Aggregates, and for a unique count the distinct values beside them."""
    columns = state_columns(metric)
    comma = sql.SQL(", ")
    aggregates = Table(
        name=sql.Identifier(MetricAggregate._meta.db_table),
        kept=comma.join(column.of() for column in columns),
        names=comma.join(sql.Identifier(column.name) for column in columns),
        groups=sql.SQL("1, 3, 4, 5"),
        condition=sql.SQL("true"),
        key=_KEY,
    )
    if metric.aggregation != Aggregation.UNIQUE_COUNT:
        return [aggregates]
    distinct = Table(
        name=sql.Identifier(MetricDistinctValue._meta.db_table),
        kept=sql.SQL("value, count(*)"),
        names=sql.SQL("value_hash, record_count"),
        groups=sql.SQL("1, 3, 4, 5, 6"),
        condition=sql.SQL("value IS NOT NULL"),
        key=sql.SQL("{}, value_hash").format(_KEY),
    )
    return [aggregates, distinct]


def states_of_records(
    metric: Metric, table: Table, parameters: Parameters, condition: sql.Composable, source: sql.Composable = _RECORDS
) -> sql.Composed:
    """Return the SELECT of what the table is to hold for records: the key of a row, and what is kept in it."""
    counted = calculation(metric, parameters)
    return _OF_RECORDS.format(
        hour=_HOUR,
        dimensions=counted.dimensions,
        kept=table.kept,
        source=source,
        value=counted.value,
        counts=counted.condition,
        condition=sql.SQL("{} AND {}").format(table.condition, condition),
        groups=table.groups,
    )


def _store(
    cursor: CursorWrapper,
    metric: Metric,
    condition: sql.Composable,
    *,
    source: sql.Composable = _RECORDS,
    **values: Any,
) -> None:
    """Compute the states of records and store them as new rows, in key order: what is read together lies together."""
    for table in stored_tables(metric):
        parameters = Parameters(usage_event_id=metric.usage_event_id, metric_id=metric.pk, **values)
        statement = _insert(metric, table, parameters, condition, source) + sql.SQL(" ORDER BY 3, 4, 5")
        cursor.execute(statement, parameters)


def add_distinct_values(
    cursor: CursorWrapper,
    metric: Metric,
    condition: sql.Composable,
    source: sql.Composable,
    parameters: Parameters,
) -> None:
    """Count the distinct values of records, and add them to those that are there. Primary key."""
    _, table = stored_tables(metric)
    statement = _insert(metric, table, parameters, condition, source)
    statement += sql.SQL(
        " ON CONFLICT ({}) DO UPDATE SET record_count = aggregate.record_count + excluded.record_count"
    ).format(table.key)
    cursor.execute(statement, parameters)


def _insert(
    metric: Metric, table: Table, parameters: Parameters, condition: sql.Composable, source: sql.Composable = _RECORDS
) -> sql.Composed:
    states = states_of_records(metric, table, parameters, condition, source)
    return sql.SQL("INSERT INTO {} AS aggregate ({}, {}) {}").format(table.name, _KEY, table.names, states)


def _forget(cursor: CursorWrapper, metric: Metric, using: str, condition: str, **values: Any) -> None:
    """Delete stored hours. Primary keys (usage_event, metric, customer, window_start, …)."""
    arguments = {"usage_event_id": metric.usage_event_id, "metric_id": metric.pk, **values}
    for table in stored_tables(metric):
        statement = sql.SQL(
            "DELETE FROM {} AS aggregate {} WHERE aggregate.usage_event_id = %(usage_event_id)s"
            " AND aggregate.metric_id = %(metric_id)s AND {}"
        ).format(table.name, sql.SQL(using), sql.SQL(condition))
        cursor.execute(statement, arguments)


def rebuild_windows(cursor: CursorWrapper, metric: Metric, windows: Sequence[CustomerHour]) -> None:
    """Compute the state of windows anew from their records. Index (usage_event, customer, timestamp)."""
    if metric.status == Metric.Status.BUILDING:
        built = (metric.built_customer_id or 0, metric.built_window_start)
        windows = [window for window in windows if window < built]
    changed = "unnest(%(customers)s::bigint[], %(hours)s::timestamptz[]) AS changed (customer_id, window_start)"
    values: dict[str, Any] = {
        "customers": [customer_id for customer_id, _ in windows],
        "hours": [hour for _, hour in windows],
    }
    same = "aggregate.customer_id = changed.customer_id AND aggregate.window_start = changed.window_start"
    _forget(cursor, metric, f"USING {changed}", same, **values)
    source = sql.SQL(
        # Window by window through the index: OFFSET 0 keeps the planner from making one large join of it.
        changed + " CROSS JOIN LATERAL ("
        " SELECT * FROM usage_usagerecord AS record WHERE record.usage_event_id = %(usage_event_id)s"
        " AND record.customer_id = changed.customer_id AND record.timestamp >= changed.window_start"
        " AND record.timestamp < changed.window_start + interval '1 hour' OFFSET 0) AS record"
    )
    _store(cursor, metric, sql.SQL("true"), source=source, **values)


# --- building and rebuilding, stretch by stretch in the order of (customer, window_start) ----------------------------


def stretch_end(
    cursor: CursorWrapper, usage_event_id: int, position: CustomerHour, records: int
) -> CustomerHour | None:
    """Return the position behind the window that holds the n-th record from a position on; None at the end.

    Index (usage_event, customer, timestamp).
    """
    cursor.execute(
        """
        SELECT customer_id, date_bin('1 hour', timestamp, '2000-01-01Z') + interval '1 hour'
        FROM usage_usagerecord
        WHERE usage_event_id = %(usage_event_id)s AND (customer_id, timestamp) >= (%(customer_id)s, %(window_start)s)
        ORDER BY customer_id, timestamp OFFSET %(records)s LIMIT 1
        """,
        {
            "usage_event_id": usage_event_id,
            "customer_id": position[0],
            "window_start": position[1],
            "records": records,
        },
    )
    row: CustomerHour | None = cursor.fetchone()
    return row


def build_stretch(cursor: CursorWrapper, metric: Metric, start: CustomerHour, end: CustomerHour | None) -> None:
    """Compute the windows from a position up to another (None: all that are left), where nothing is stored yet.

    Index (usage_event, customer, timestamp).
    """
    condition, values = _stretch("record.customer_id, record.timestamp", start, end)
    _store(cursor, metric, sql.SQL(condition), **values)


def forget_stretch(cursor: CursorWrapper, metric: Metric, start: CustomerHour, end: CustomerHour | None) -> None:
    """Delete what is stored from a position up to another (None: all that is left), so that it can be built anew."""
    condition, values = _stretch("aggregate.customer_id, aggregate.window_start", start, end)
    _forget(cursor, metric, "", condition, **values)


def _stretch(key: str, start: CustomerHour, end: CustomerHour | None) -> tuple[str, dict[str, Any]]:
    condition = f"({key}) >= (%(customer_id)s, %(window_start)s)"
    if end is None:
        return condition, {"customer_id": start[0], "window_start": start[1]}
    return f"{condition} AND ({key}) < (%(end_customer_id)s, %(end_window_start)s)", {
        "customer_id": start[0],
        "window_start": start[1],
        "end_customer_id": end[0],
        "end_window_start": end[1],
    }


def forget_some(cursor: CursorWrapper, metric: Metric, most: int) -> int:
    """Delete at most so many stored hours of a metric, of each table, and return how many. Primary keys."""
    forgotten = 0
    for table in stored_tables(metric):
        cursor.execute(
            sql.SQL(
                "DELETE FROM {table} WHERE ctid = ANY (ARRAY (SELECT ctid FROM {table}"
                " WHERE usage_event_id = %s AND metric_id = %s LIMIT %s))"
            ).format(table=table.name),
            [metric.usage_event_id, metric.pk, most],
        )
        forgotten += cursor.rowcount
    return forgotten
