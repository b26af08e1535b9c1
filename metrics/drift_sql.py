"""The statements that compare stored hours with their records, and tell what was compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from customers.exactjson import loads
from metrics.calculation import HOUR_OF_RECORD
from metrics.formulas import state_columns
from metrics.models import Metric, MetricDistinctValue
from metrics.parameters import Parameters
from metrics.reading import not_folded
from metrics.sql import CustomerHour, Table, states_of_records, stored_tables

Bounds = tuple[datetime, datetime]  # [start, end)


@dataclass(frozen=True, slots=True)
class Place:
    """What is compared: [start, end) of every customer, or, where given, only some customers' days in it."""

    start: datetime
    end: datetime
    customer_days: Sequence[CustomerHour] | None = None

    def parameters(self, metric: Metric) -> Parameters:
        """Return the values that the statements below have in common."""
        days = self.customer_days or ()
        return Parameters(
            usage_event_id=metric.usage_event_id,
            metric_id=metric.pk,
            organisation_id=metric.organisation_id,
            start=self.start,
            end=self.end,
            customers=[customer_id for customer_id, _ in days],
            days=[day for _, day in days],
        )


@dataclass(frozen=True, slots=True)
class Differences:
    """How many stored hours were compared, how many rows differ, and some of those, both ways."""

    windows: int
    differences: int
    samples: list[dict[str, Any]]


# A window with a mark is what the next fold makes of it, and is left out on both sides; so are the records of batches
# that no fold has claimed. All others must be in the stored hours, and nothing else.
_MARKED = (
    "unnest(%(changed_customers)s::bigint[], %(changed_hours)s::timestamptz[]) AS changed (customer_id, hour)"
    " WHERE changed.customer_id = {alias}.customer_id AND changed.hour = {hour}"
)
_RECORD_IS_MARKED = _MARKED.format(alias="record", hour=HOUR_OF_RECORD)
_HOUR_IS_MARKED = _MARKED.format(alias="aggregate", hour="aggregate.window_start")
_SETTLED = f"record.batch_id <> ALL (%(batch_ids)s::bigint[]) AND NOT EXISTS (SELECT FROM {_RECORD_IS_MARKED})"

_RECORDS_IN_SPAN = "usage_usagerecord AS record"
_IN_SPAN = f"record.timestamp >= %(start)s AND record.timestamp < %(end)s AND {_SETTLED}"
# Customer by customer through an index: OFFSET 0 keeps the planner from making one large join of it.
_CUSTOMER_DAYS = "unnest(%(customers)s::bigint[], %(days)s::timestamptz[]) AS place (customer_id, day)"
_RECORDS_OF_DAYS = (
    f"{_CUSTOMER_DAYS} CROSS JOIN LATERAL (SELECT * FROM usage_usagerecord AS record"
    " WHERE record.usage_event_id = %(usage_event_id)s AND record.customer_id = place.customer_id"
    " AND record.timestamp >= place.day AND record.timestamp < place.day + interval '1 day' OFFSET 0) AS record"
)
_EVERY_CUSTOMER = (
    "(SELECT id, %(start)s::timestamptz, %(end)s::timestamptz FROM customers_customer"
    " WHERE organisation_id = %(organisation_id)s) AS place (customer_id, since, until)"
)
_SOME_CUSTOMERS = (
    f"(SELECT customer_id, day, day + interval '1 day' FROM {_CUSTOMER_DAYS}) AS place (customer_id, since, until)"
)

_COMPARED = sql.SQL(
    """
    WITH recounted AS (
        SELECT usage_event_id, metric_id, customer_id, window_start, dimensions COLLATE "C" AS dimensions, {names}
        FROM ({of_records}) AS state (usage_event_id, metric_id, customer_id, window_start, dimensions, {names})),
    stored AS (
        SELECT aggregate.*
        FROM {places} CROSS JOIN LATERAL (
            SELECT usage_event_id, metric_id, customer_id, window_start, dimensions, {names} FROM {table} AS aggregate
            WHERE aggregate.usage_event_id = %(usage_event_id)s AND aggregate.metric_id = %(metric_id)s
              AND aggregate.customer_id = place.customer_id
              AND aggregate.window_start >= place.since AND aggregate.window_start < place.until
            OFFSET 0) AS aggregate
        WHERE NOT EXISTS (SELECT FROM {marked}))
    """
)
_COUNTED = sql.SQL("SELECT count(*), count(*) FILTER (WHERE {differs}) FROM stored FULL JOIN recounted USING ({key})")
_SAMPLED = sql.SQL(
    """
    SELECT customer.external_id, window_start, dimensions, {value_hash}, {stored}, {recounted}
    FROM stored FULL JOIN recounted USING ({key}) LEFT JOIN customers_customer AS customer ON customer.id = customer_id
    WHERE {differs}
    ORDER BY {key} LIMIT %(limit)s
    """
)


def compare(cursor: CursorWrapper, metric: Metric, place: Place, samples: int) -> Differences:
    """Compare what is stored for a metric with a recount, both as this snapshot has them.

    Indexes: primary keys of aggregates and distinct values, customer by customer; (usage_event, timestamp, id) of
    records, for single customers' days (usage_event, customer, timestamp).
    """
    _, batch_ids, marks = not_folded(cursor, metric.usage_event_id, place.start, place.end)
    values = {
        "batch_ids": batch_ids,
        "changed_customers": [customer_id for customer_id, _ in marks],
        "changed_hours": [hour for _, hour in marks],
    }
    found = [_compare_table(cursor, metric, table, place, values, samples) for table in stored_tables(metric)]
    listed = [sample for part in found for sample in part.samples]
    return Differences(found[0].windows, sum(part.differences for part in found), listed[:samples])


def _compare_table(
    cursor: CursorWrapper, metric: Metric, table: Table, place: Place, values: dict[str, Any], samples: int
) -> Differences:
    parameters = place.parameters(metric)
    parameters.update(values, limit=samples)
    some = place.customer_days is not None
    hashed = table.name == sql.Identifier(MetricDistinctValue._meta.db_table)
    columns = ["record_count"] if hashed else [column.name for column in state_columns(metric)]
    of_records = states_of_records(
        metric,
        table,
        parameters,
        sql.SQL(_SETTLED if some else _IN_SPAN),
        sql.SQL(_RECORDS_OF_DAYS if some else _RECORDS_IN_SPAN),
    )
    compared = _COMPARED.format(
        names=table.names,
        of_records=of_records,
        places=sql.SQL(_SOME_CUSTOMERS if some else _EVERY_CUSTOMER),
        table=table.name,
        marked=sql.SQL(_HOUR_IS_MARKED),
    )
    differs = sql.SQL("({}) IS DISTINCT FROM ({})").format(_row("stored", columns), _row("recounted", columns))
    cursor.execute(compared + _COUNTED.format(differs=differs, key=table.key), parameters)
    windows, differences = cursor.fetchone()
    if not differences:
        return Differences(windows, 0, [])
    sampled = _SAMPLED.format(
        value_hash=sql.SQL("value_hash" if hashed else "null"),
        stored=_as_json("stored", columns),
        recounted=_as_json("recounted", columns),
        key=table.key,
        differs=differs,
    )
    cursor.execute(compared + sampled, parameters)
    return Differences(windows, differences, [_sample(*row) for row in cursor.fetchall()])


def _row(side: str, columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(side, column) for column in columns)


def _as_json(side: str, columns: list[str]) -> sql.Composed:
    """The text of a JSON object of the state, every digit in it; null where that side has no row."""
    members = [sql.SQL("{}, {}").format(sql.Literal(column), sql.Identifier(side, column)) for column in columns]
    return sql.SQL("CASE WHEN {} IS NOT NULL THEN jsonb_build_object({})::text END").format(
        sql.Identifier(side, "record_count"), sql.SQL(", ").join(members)
    )


def _sample(
    customer_id: str | None, hour: datetime, dimensions: str, value_hash: Any, stored: str | None, recounted: str | None
) -> dict[str, Any]:
    sample = {
        "customer_id": customer_id,
        "window_start": hour.isoformat().replace("+00:00", "Z"),
        "dimensions": loads(dimensions) if dimensions else [],
        "stored": None if stored is None else loads(stored),
        "recounted": None if recounted is None else loads(recounted),
    }
    return sample if value_hash is None else {**sample, "value_hash": str(value_hash)}


# --- customers' days at random ---------------------------------------------------------------------------------------

# The stored hour and the record next to a moment, before and after: each one step into an index.
_NEXT_TO = """
    (SELECT {time} AS moment FROM {table} WHERE {keys} AND customer_id = picked.customer_id
     AND {time} >= picked.moment AND {time} < %(end)s ORDER BY {time} LIMIT 1)
    UNION ALL
    (SELECT {time} FROM {table} WHERE {keys} AND customer_id = picked.customer_id
     AND {time} < picked.moment ORDER BY {time} DESC LIMIT 1)
"""
_NEXT_HOURS = _NEXT_TO.format(
    time="window_start",
    table="metrics_metricaggregate",
    keys="usage_event_id = %(usage_event_id)s AND metric_id = %(metric_id)s",
)
_NEXT_RECORDS = _NEXT_TO.format(time="timestamp", table="usage_usagerecord", keys="usage_event_id = %(usage_event_id)s")


def some_customers(cursor: CursorWrapper, organisation_id: int, seed: int, limit: int) -> list[int]:
    """Return customers at random, the same ones for the same seed. One pass over the organisation's customers."""
    cursor.execute(
        "SELECT id FROM customers_customer WHERE organisation_id = %s ORDER BY hashint8extended(id, %s), id LIMIT %s",
        [organisation_id, seed, limit],
    )
    return [customer_id for (customer_id,) in cursor.fetchall()]


def days_with_usage(
    cursor: CursorWrapper, metric: Metric, near: Sequence[CustomerHour], end: datetime
) -> list[CustomerHour]:
    """Return the UTC days before `end` nearest to each customer's moment that have a stored hour or a record.

    Primary key of aggregates; (usage_event, customer, timestamp) of records.
    """
    cursor.execute(
        f"""
        SELECT DISTINCT picked.customer_id, date_trunc('day', found.moment, 'UTC')
        FROM unnest(%(customers)s::bigint[], %(moments)s::timestamptz[]) AS picked (customer_id, moment)
        CROSS JOIN LATERAL ({_NEXT_HOURS} UNION ALL {_NEXT_RECORDS}) AS found
        ORDER BY 1, 2
        """,
        {
            "usage_event_id": metric.usage_event_id,
            "metric_id": metric.pk,
            "customers": [customer_id for customer_id, _ in near],
            "moments": [moment for _, moment in near],
            "end": end,
        },
    )
    return cursor.fetchall()


# --- what was compared, and when -------------------------------------------------------------------------------------


def not_compared(
    cursor: CursorWrapper, metric_id: int, since: datetime, start: datetime, end: datetime
) -> list[Bounds]:
    """Return the parts of [start, end) that no check since a moment has compared, but in samples, ascending.

    Index (metric, checked_at).
    """
    cursor.execute(
        """
        SELECT lower(part), upper(part)
        FROM unnest(tstzmultirange(tstzrange(%(start)s, %(end)s)) - coalesce((
            SELECT range_agg(tstzrange(start, "end")) FROM metrics_driftcheck
            WHERE metric_id = %(metric_id)s AND checked_at >= %(since)s AND kind <> 'sample'), '{}')) AS part
        ORDER BY 1
        """,
        {"metric_id": metric_id, "since": since, "start": start, "end": end},
    )
    return cursor.fetchall()


def still_different(
    cursor: CursorWrapper, metric_ids: Sequence[int], limit: int
) -> list[tuple[int, datetime, datetime]]:
    """Return the checks, the newest first, that found a difference where no later check has looked: id, start, end.

    Of active metrics only; of a check only the parts that were not compared again since; samples, which look at few
    customers, settle nothing. Indexes (checked_at) where there are differences, (metric, checked_at).
    """
    cursor.execute(
        """
        SELECT earlier.id, lower(part), upper(part)
        FROM (SELECT found.* FROM metrics_driftcheck AS found JOIN metrics_metric AS metric ON metric.id = metric_id
              WHERE found.differences > 0 AND metric_id = ANY (%(metric_ids)s) AND metric.status = 'active'
              ORDER BY checked_at DESC, found.id DESC LIMIT %(limit)s) AS earlier
        CROSS JOIN LATERAL unnest(tstzmultirange(tstzrange(earlier.start, earlier."end")) - coalesce((
            SELECT range_agg(tstzrange(later.start, later."end")) FROM metrics_driftcheck AS later
            WHERE later.metric_id = earlier.metric_id AND later.kind <> 'sample'
              AND later.checked_at >= earlier.checked_at
              AND (later.checked_at, later.id) > (earlier.checked_at, earlier.id)
              AND later.start < earlier."end" AND later."end" > earlier.start), '{}')) AS part
        ORDER BY earlier.checked_at DESC, earlier.id DESC, 2
        """,
        {"metric_ids": list(metric_ids), "limit": limit},
    )
    return cursor.fetchall()
