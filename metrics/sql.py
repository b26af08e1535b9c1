"""Every statement on aggregates: a name, what it does, the index it relies on."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from metrics.formulas import state_columns, value_of
from metrics.models import Metric

CustomerHour = tuple[int, datetime]  # (customer id, start of the hour)


def moment(cursor: CursorWrapper) -> datetime:
    """Return the database's time now; asked first in a snapshot, the moment of the snapshot."""
    cursor.execute("SELECT statement_timestamp()")
    (time,) = cursor.fetchone()
    assert isinstance(time, datetime)
    return time


def try_session_lock(cursor: CursorWrapper, purpose: str, object_id: int) -> bool:
    """Take the session's advisory lock for a purpose on an object, or tell that it is taken."""
    cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, %s))", [purpose, object_id])
    return bool(cursor.fetchone()[0])


def release_session_lock(cursor: CursorWrapper, purpose: str, object_id: int) -> bool:
    """Give the session's advisory lock back; False if this session did not hold it."""
    cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, %s))", [purpose, object_id])
    return bool(cursor.fetchone()[0])


def claim_batches(cursor: CursorWrapper, usage_event_id: int) -> list[int]:
    """Take every visible pending batch. Primary key (usage_event, batch)."""
    cursor.execute("DELETE FROM usage_pendingbatch WHERE usage_event_id = %s RETURNING batch_id", [usage_event_id])
    return [batch_id for (batch_id,) in cursor.fetchall()]


def claim_windows(cursor: CursorWrapper, usage_event_id: int) -> list[CustomerHour]:
    """Take every visible mark, each window once. Primary key (usage_event, customer, window_start, id)."""
    cursor.execute(
        "DELETE FROM usage_changedwindow WHERE usage_event_id = %s RETURNING customer_id, window_start",
        [usage_event_id],
    )
    return sorted(set(cursor.fetchall()))


def usage_events_to_fold(cursor: CursorWrapper) -> list[int]:
    """Return the usage events with something pending. Both tables are small."""
    cursor.execute(
        "SELECT usage_event_id FROM usage_pendingbatch UNION SELECT usage_event_id FROM usage_changedwindow ORDER BY 1"
    )
    return [usage_event_id for (usage_event_id,) in cursor.fetchall()]


_STATE_OF_RECORDS = sql.SQL(
    """
    SELECT record.usage_event_id, %(metric_id)s, record.customer_id,
           date_trunc('hour', record.timestamp, 'UTC'), '', {states}
    FROM {source}
    CROSS JOIN LATERAL (SELECT {value} AS value) AS counted
    WHERE record.usage_event_id = %(usage_event_id)s AND record.voided_at IS NULL AND {condition}
    GROUP BY 1, 3, 4
    """
)
_RECORDS = sql.SQL("usage_usagerecord AS record")
_WINDOWS = "unnest(%(customers)s::bigint[], %(hours)s::timestamptz[])"


def _state_of_records(metric: Metric, condition: sql.Composable, source: sql.Composable = _RECORDS) -> sql.Composed:
    columns = state_columns(metric)
    return sql.SQL(
        "INSERT INTO metrics_metricaggregate AS aggregate"
        " (usage_event_id, metric_id, customer_id, window_start, dimensions, {names}) {select}"
    ).format(
        names=sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
        select=_STATE_OF_RECORDS.format(
            states=sql.SQL(", ").join(column.of_records for column in columns),
            source=source,
            value=value_of(metric),
            condition=condition,
        ),
    )


def _arguments(metric: Metric, windows: Sequence[CustomerHour] = (), **more: Any) -> dict[str, Any]:
    return {
        "usage_event_id": metric.usage_event_id,
        "metric_id": metric.pk,
        "property": metric.property,
        "customers": [customer_id for customer_id, _ in windows],
        "hours": [window_start for _, window_start in windows],
        "built_customer_id": metric.built_customer_id,
        "built_window_start": metric.built_window_start,
        **more,
    }


def add_batches(cursor: CursorWrapper, metric: Metric, batch_ids: list[int]) -> None:
    """Add the records of batches to their windows, leaving out what is not built yet.

    Index (batch); the ids go in as an array, because a join on the claim is guessed badly. Primary key of aggregates.
    """
    conditions = ["record.batch_id = ANY (%(batch_ids)s)"]
    if metric.status == Metric.Status.BUILDING:
        hour = "date_trunc('hour', record.timestamp, 'UTC')"
        conditions.append(f"(record.customer_id, {hour}) < (%(built_customer_id)s, %(built_window_start)s)")
    columns = state_columns(metric)
    statement = sql.SQL(
        "{insert} ON CONFLICT (usage_event_id, metric_id, customer_id, window_start, dimensions) DO UPDATE SET {added}"
    ).format(
        insert=_state_of_records(metric, sql.SQL(" AND ".join(conditions))),
        added=sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column.name), column.added) for column in columns
        ),
    )
    cursor.execute(statement, _arguments(metric, batch_ids=batch_ids))


def rebuild_windows(cursor: CursorWrapper, metric: Metric, windows: Sequence[CustomerHour]) -> None:
    """Compute the state of windows anew from their records. Index (usage_event, customer, timestamp)."""
    if metric.status == Metric.Status.BUILDING:
        built = (metric.built_customer_id or 0, metric.built_window_start)
        windows = [window for window in windows if window < built]
    arguments = _arguments(metric, windows)
    cursor.execute(
        f"""
        DELETE FROM metrics_metricaggregate AS aggregate
        USING {_WINDOWS} AS changed (customer_id, window_start)
        WHERE aggregate.usage_event_id = %(usage_event_id)s AND aggregate.metric_id = %(metric_id)s
          AND aggregate.customer_id = changed.customer_id AND aggregate.window_start = changed.window_start
        """,
        arguments,
    )
    source = sql.SQL(
        # Window by window through the index: OFFSET 0 keeps the planner from making one large join of it.
        _WINDOWS + " AS changed (customer_id, window_start) CROSS JOIN LATERAL ("
        " SELECT * FROM usage_usagerecord AS record WHERE record.usage_event_id = %(usage_event_id)s"
        " AND record.customer_id = changed.customer_id AND record.timestamp >= changed.window_start"
        " AND record.timestamp < changed.window_start + interval '1 hour' OFFSET 0) AS record"
    )
    cursor.execute(_state_of_records(metric, sql.SQL("true"), source), arguments)


def stretch_end(cursor: CursorWrapper, metric: Metric, records: int) -> CustomerHour | None:
    """Return the position behind the window that holds the n-th record from the built position; None at the end.

    Index (usage_event, customer, timestamp).
    """
    cursor.execute(
        """
        SELECT customer_id, date_trunc('hour', timestamp, 'UTC') + interval '1 hour'
        FROM usage_usagerecord
        WHERE usage_event_id = %(usage_event_id)s
          AND (customer_id, timestamp) >= (%(built_customer_id)s, %(built_window_start)s)
        ORDER BY customer_id, timestamp OFFSET %(records)s LIMIT 1
        """,
        _arguments(metric, records=records),
    )
    row: CustomerHour | None = cursor.fetchone()
    return row


def build_stretch(cursor: CursorWrapper, metric: Metric, end: CustomerHour | None) -> None:
    """Compute the windows from the built position up to `end` (None: all that are left).

    Index (usage_event, customer, timestamp). Nothing is there yet in that stretch: folds leave it alone.
    """
    conditions = ["(record.customer_id, record.timestamp) >= (%(built_customer_id)s, %(built_window_start)s)"]
    if end is not None:
        conditions.append("(record.customer_id, record.timestamp) < (%(end_customer_id)s, %(end_window_start)s)")
    end_customer_id, end_window_start = end or (None, None)
    cursor.execute(
        _state_of_records(metric, sql.SQL(" AND ".join(conditions))),
        _arguments(metric, end_customer_id=end_customer_id, end_window_start=end_window_start),
    )
