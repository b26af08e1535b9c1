"""The statements that read quantities: aggregates where they are complete, records where they are not yet."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from metrics.formulas import state_columns, value_of
from metrics.models import Metric
from metrics.periods import split_hours
from metrics.sql import CustomerHour
from usage.windows import HOUR, hour_of

FEW_HOURS = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """What a snapshot has to be asked for: a period, cut by `edges` (UTC instants, ascending).

    Every record is read in exactly one way. Stored hours that lie inside the period are read from aggregates, except
    `split` ones, which an edge cuts in two, and `changed` ones, which a correction touched since the last fold. Of
    those, and of `batch_ids`, which no fold has added yet, the records themselves are read.
    """

    edges: list[datetime]
    split: list[datetime]
    batch_ids: list[int]
    changed: list[CustomerHour]

    def arguments(self, metric: Metric, **more: Any) -> dict[str, Any]:
        """Return the parameters of the statements below."""
        start, end = self.edges[0], self.edges[-1]
        return {
            "usage_event_id": metric.usage_event_id,
            "metric_id": metric.pk,
            "property": metric.property,
            "edges": self.edges,
            "start": start,
            "end": end,
            "first_hour": start if start == hour_of(start) else hour_of(start) + HOUR,
            "end_hour": hour_of(end),
            "split": self.split,
            "batch_ids": self.batch_ids,
            "changed_customers": [customer_id for customer_id, _ in self.changed],
            "changed_hours": [hour for _, hour in self.changed],
            **more,
        }


def pending_batches(cursor: CursorWrapper, usage_event_id: int) -> list[int]:
    """Return the batches that no fold has claimed. Primary key (usage_event, batch); a small table."""
    cursor.execute("SELECT batch_id FROM usage_pendingbatch WHERE usage_event_id = %s", [usage_event_id])
    return [batch_id for (batch_id,) in cursor.fetchall()]


def changed_windows(cursor: CursorWrapper, usage_event_id: int, start: datetime, end: datetime) -> list[CustomerHour]:
    """Return the windows touching [start, end) that a correction marked. Primary key; a small table."""
    cursor.execute(
        """
        SELECT DISTINCT customer_id, window_start FROM usage_changedwindow
        WHERE usage_event_id = %s AND window_start >= %s AND window_start < %s
        """,
        [usage_event_id, hour_of(start), end],
    )
    return cursor.fetchall()


# --- where records are read from; the alias is `record`, the conditions are complete but for the customers -----------

_IN_PERIOD = (
    "record.usage_event_id = %(usage_event_id)s AND record.voided_at IS NULL"
    " AND record.timestamp >= %(start)s AND record.timestamp < %(end)s"
)
_HOUR = "date_trunc('hour', record.timestamp, 'UTC')"
_CHANGED = "unnest(%(changed_customers)s::bigint[], %(changed_hours)s::timestamptz[]) AS changed (customer_id, hour)"

# Hour by hour through an index: OFFSET 0 keeps the planner from making one large join of it. Many hours (every one,
# where the zone is off by half an hour) are rather one pass over the period.
_SPLIT_RECORDS = (
    "unnest(%(split)s::timestamptz[]) AS split (hour) CROSS JOIN LATERAL (SELECT * FROM usage_usagerecord AS record"
    f" WHERE record.timestamp >= split.hour AND record.timestamp < split.hour + interval '1 hour' AND {_IN_PERIOD}"
    " AND {customers} OFFSET 0) AS record"
)
_MANY_SPLIT_RECORDS = (
    "(SELECT * FROM usage_usagerecord AS record"
    f" WHERE {_HOUR} = ANY (%(split)s) AND {_IN_PERIOD} AND {{customers}}) AS record"
)
_CHANGED_RECORDS = (
    f"{_CHANGED} CROSS JOIN LATERAL (SELECT * FROM usage_usagerecord AS record"
    " WHERE record.customer_id = changed.customer_id"
    " AND record.timestamp >= changed.hour AND record.timestamp < changed.hour + interval '1 hour'"
    f" AND {_HOUR} <> ALL (%(split)s) AND {_IN_PERIOD} AND {{customers}} OFFSET 0) AS record"
)
_PENDING_RECORDS = (
    "(SELECT * FROM usage_usagerecord AS record"
    f" WHERE record.batch_id = ANY (%(batch_ids)s) AND {_HOUR} <> ALL (%(split)s) AND {_IN_PERIOD} AND {{customers}}"
    f" AND NOT EXISTS (SELECT FROM {_CHANGED}"
    f" WHERE changed.customer_id = record.customer_id AND changed.hour = {_HOUR})"
    ") AS record"
)


def _record_sources(reading: Reading, customers: str) -> list[sql.Composed]:
    """Return where records are read from, cut down to customers by a condition on `record`."""
    split = _SPLIT_RECORDS if len(reading.split) <= FEW_HOURS else _MANY_SPLIT_RECORDS
    needed = (
        (reading.split, split),
        (reading.changed, _CHANGED_RECORDS),
        (reading.batch_ids, _PENDING_RECORDS),
    )
    return [sql.SQL(source).format(customers=sql.SQL(customers)) for rows, source in needed if rows]


_STORED = sql.SQL(
    """
    SELECT customer_id, width_bucket(window_start, %(edges)s::timestamptz[]) - 1, dimensions, {states}
    FROM metrics_metricaggregate AS aggregate
    WHERE usage_event_id = %(usage_event_id)s AND metric_id = %(metric_id)s AND customer_id = ANY (%(customers)s)
      AND window_start >= %(first_hour)s AND window_start < %(end_hour)s AND window_start <> ALL (%(split)s)
      AND NOT EXISTS (
          SELECT FROM unnest(%(changed_customers)s::bigint[], %(changed_hours)s::timestamptz[])
                      AS changed (customer_id, hour)
          WHERE changed.customer_id = aggregate.customer_id AND changed.hour = aggregate.window_start)
    GROUP BY 1, 2, 3
    """
)
_RAW = sql.SQL(
    """
    SELECT record.customer_id, width_bucket(record.timestamp, %(edges)s::timestamptz[]) - 1, '', {states}
    FROM {source} CROSS JOIN LATERAL (SELECT {value} AS value) AS counted
    GROUP BY 1, 2, 3
    """
)
_MERGED = sql.SQL(
    """
    SELECT customer_id, bucket, dimensions, {states}
    FROM ({parts}) AS part (customer_id, bucket, dimensions, {names})
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    """
)


def read_states(
    cursor: CursorWrapper, metric: Metric, reading: Reading, customers: list[int]
) -> list[tuple[int, int, str, dict[str, Any]]]:
    """Return (customer id, index of the window, dimensions, merged state by column) for every window with records.

    Ordered by customer, window, dimensions. Indexes: primary key of aggregates; (usage_event, customer, timestamp)
    and (batch) of records.
    """
    columns = state_columns(metric)
    merged = sql.SQL(", ").join(column.merged for column in columns)
    of_records = sql.SQL(", ").join(column.of_records for column in columns)
    parts = [_STORED.format(states=merged)]
    for source in _record_sources(reading, "record.customer_id = ANY (%(customers)s)"):
        parts.append(_RAW.format(states=of_records, source=source, value=value_of(metric)))
    statement = _MERGED.format(
        states=merged,
        parts=sql.SQL(" UNION ALL ").join(parts),
        names=sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
    )
    cursor.execute(statement, reading.arguments(metric, customers=customers))
    names = [column.name for column in columns]
    return [(row[0], row[1], row[2], dict(zip(names, row[3:], strict=True))) for row in cursor.fetchall()]


def customers_with_usage(
    cursor: CursorWrapper, metric: Metric, reading: Reading, *, after: int, limit: int
) -> list[int]:
    """Return the ids of the next customers with usage in the period, ascending, at most `limit`.

    Of hours that an edge inside the period cuts, the aggregates tell as well. A customer whose last record was voided
    since the last fold is named too. Primary key of aggregates, read only as far as the limit needs; (usage_event,
    timestamp, id) and (batch) of records.
    """
    reading = replace(reading, split=split_hours([reading.edges[0], reading.edges[-1]]))
    statement = sql.SQL(
        """
        SELECT customer_id FROM (
            (SELECT DISTINCT customer_id FROM metrics_metricaggregate
             WHERE usage_event_id = %(usage_event_id)s AND metric_id = %(metric_id)s AND customer_id > %(after)s
               AND window_start >= %(first_hour)s AND window_start < %(end_hour)s
             ORDER BY customer_id LIMIT %(limit)s)
            {records}
        ) AS found
        ORDER BY customer_id LIMIT %(limit)s
        """
    ).format(
        records=sql.SQL(" ").join(
            sql.SQL("UNION (SELECT DISTINCT record.customer_id FROM {} ORDER BY customer_id LIMIT %(limit)s)").format(
                source
            )
            for source in _record_sources(reading, "record.customer_id > %(after)s")
        )
    )
    cursor.execute(statement, reading.arguments(metric, after=after, limit=limit))
    return [customer_id for (customer_id,) in cursor.fetchall()]
