"""Where quantities are read: aggregates where they are complete, records where they are not yet."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import pairwise
from typing import Any

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from customers.exactjson import dumps
from metrics.calculation import HOUR_OF_RECORD, MAX_PART_BYTES, dimension_part, dimensions_text
from metrics.models import Metric
from metrics.parameters import Parameters
from metrics.periods import split_hours
from metrics.questions import Exactly, Question
from metrics.sql import CustomerHour
from usage.timestamps import FIRST_MOMENT
from usage.windows import HOUR, hour_of

FEW_HOURS = 64
FEW_EDGES = 8
NUMBER = re.compile(r"-?\d{1,130}(\.\d{1,130})?([eE][+-]?\d{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a snapshot has to be asked for: a period, cut by `edges` (UTC instants, ascending).

    Every record is read in exactly one way. Stored hours that lie inside the period are read from aggregates, except
    `split` ones, which an edge cuts in two, and `changed` ones, which a correction touched since the last fold. Of
    those, and of `batch_ids`, which no fold has added yet, the records themselves are read. With `from_records`
    nothing is read from aggregates, but every record of the period. `as_of` is the moment of the snapshot.
    """

    edges: list[datetime]
    as_of: datetime
    split: list[datetime] = field(default_factory=list)
    batch_ids: list[int] = field(default_factory=list)
    changed: list[CustomerHour] = field(default_factory=list)
    from_records: bool = False

    @property
    def is_by_the_hour(self) -> bool:
        """Whether each of its many windows is one stored hour."""
        return _step(self.edges) == HOUR and not self.split

    def parameters(self, metric: Metric, **more: Any) -> Parameters:
        """Return the values of the statements below."""
        start, end, step = self.edges[0], self.edges[-1], _step(self.edges)
        return Parameters(
            usage_event_id=metric.usage_event_id,
            metric_id=metric.pk,
            edges=None if step else self.edges,
            step=step,
            start=start,
            end=end,
            first_hour=start if start == hour_of(start) else hour_of(start) + HOUR,
            end_hour=hour_of(end),
            until=min(end, self.as_of),
            split=self.split,
            batch_ids=self.batch_ids,
            changed_customers=[customer_id for customer_id, _ in self.changed],
            changed_hours=[hour for _, hour in self.changed],
            **more,
        )

    def of_records(self) -> "Reading":
        """Return the reading of the same period from its records alone."""
        return Reading(self.edges, self.as_of, from_records=True)

    def since_ever(self) -> "Reading":
        """Return the reading of all that came before the end: what is held over into the period as well."""
        edges = [FIRST_MOMENT, self.edges[-1]]
        return replace(self, edges=edges, split=split_hours(edges))


# The edges as an array; evenly spaced ones are made where they are needed, for a month of hours is long to send.
EDGES = (
    "coalesce(%(edges)s::timestamptz[], ARRAY (SELECT generate_series("
    "%(start)s::timestamptz, %(end)s::timestamptz, %(step)s::interval)))"
)


def _step(edges: list[datetime]) -> timedelta | None:
    """Return how far many edges are from each other, if that is the same for all."""
    step = edges[1] - edges[0]
    return step if len(edges) > FEW_EDGES and all(b - a == step for a, b in pairwise(edges)) else None


def not_folded(
    cursor: CursorWrapper, usage_event_id: int | None, start: datetime, end: datetime
) -> tuple[datetime, list[int], list[CustomerHour]]:
    """Return the moment of the snapshot, the batches that no fold has claimed, and the windows touching [start, end)
    that a correction marked. Primary keys; small tables.
    """
    cursor.execute(
        """
        SELECT transaction_timestamp(),
               ARRAY (SELECT batch_id FROM usage_pendingbatch WHERE usage_event_id = %(usage_event_id)s),
               array_agg(changed.customer_id), array_agg(changed.window_start)
        FROM (SELECT DISTINCT customer_id, window_start FROM usage_changedwindow
              WHERE usage_event_id = %(usage_event_id)s
                AND window_start >= %(start)s AND window_start < %(end)s) AS changed
        """,
        {"usage_event_id": usage_event_id, "start": hour_of(start), "end": end},
    )
    moment, batch_ids, customers, hours = cursor.fetchone()
    return moment, batch_ids, list(zip(customers or [], hours or [], strict=True))


# --- dimensions ------------------------------------------------------------------------------------------------------


# Kept apart in stored hours, but one in answers: a property that is missing, and one that is null.
SHOWN = sql.SQL("coalesce(nullif({}, '[]'::jsonb), 'null'::jsonb)")


@dataclass(frozen=True, slots=True)
class AskedDimensions:
    """SQL of the dimensions that rows are told apart by (text), and of the condition that they were asked for with."""

    text: sql.Composable
    condition: sql.Composable


def stored_dimensions(metric: Metric, question: Question, parameters: Parameters) -> AskedDimensions:
    """Return what was asked for, out of an aggregate's `dimensions`."""
    parts: dict[str, sql.Composable] = {
        name: sql.SQL("(aggregate.dimensions::jsonb -> {})").format(sql.Literal(i))
        for i, name in enumerate(metric.group_by)
    }
    return _asked(parts, question, parameters)


def dimensions_of_records(metric: Metric, question: Question, parameters: Parameters) -> AskedDimensions:
    """Return what was asked for, out of a record."""
    needed = {*question.group_by, *question.filter_by}
    parts = {name: dimension_part(name, parameters) for name in metric.group_by if name in needed}
    return _asked(parts, question, parameters)


def series_of_records(metric: Metric, parameters: Parameters) -> sql.Composable:
    """Return the SQL of the series that a record's value is held in: all its dimensions, as answers show them."""
    return dimensions_text([SHOWN.format(dimension_part(name, parameters)) for name in metric.group_by])


def _asked(parts: dict[str, sql.Composable], question: Question, parameters: Parameters) -> AskedDimensions:
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for name, wanted in question.filter_by.items():
        values = [dumps(value) for one in wanted for value in _meanings(one)]
        conditions.append(sql.SQL("{} = ANY ({}::text[]::jsonb[])").format(parts[name], parameters.take(values)))
    return AskedDimensions(
        dimensions_text([SHOWN.format(parts[name]) for name in question.group_by]), sql.SQL(" AND ").join(conditions)
    )


def _meanings(wanted: str | Exactly) -> list[Any]:
    """Return the dimensions that are meant: of a text itself, a number, true or false; null stands for missing too."""
    if isinstance(wanted, Exactly):
        return [None, []] if wanted.value is None else [wanted.value]
    text = wanted
    meanings: list[Any] = [text]
    written = dumps(text).encode()
    if len(written) > MAX_PART_BYTES:
        meanings.append({"sha256": sha256(written).hexdigest()})
    if NUMBER.fullmatch(text):
        meanings.append(Decimal(text))
    if text in ("true", "false"):
        meanings.append(text == "true")
    return meanings


# --- where records are read from; the alias is `record`, the conditions are complete but for the customers -----------

_IN_PERIOD = (
    "record.usage_event_id = %(usage_event_id)s AND record.voided_at IS NULL"
    " AND record.timestamp >= %(start)s AND record.timestamp < %(end)s"
)
_CHANGED = "unnest(%(changed_customers)s::bigint[], %(changed_hours)s::timestamptz[]) AS changed (customer_id, hour)"

_ALL_RECORDS = f"(SELECT * FROM usage_usagerecord AS record WHERE {_IN_PERIOD} AND {{customers}}) AS record"
# Hour by hour through an index: OFFSET 0 keeps the planner from making one large join of it. Many hours (every one,
# where the zone is off by half an hour) are rather one pass over the period.
_SPLIT_RECORDS = (
    "unnest(%(split)s::timestamptz[]) AS split (hour) CROSS JOIN LATERAL (SELECT * FROM usage_usagerecord AS record"
    f" WHERE record.timestamp >= split.hour AND record.timestamp < split.hour + interval '1 hour' AND {_IN_PERIOD}"
    " AND {customers} OFFSET 0) AS record"
)
_MANY_SPLIT_RECORDS = (
    "(SELECT * FROM usage_usagerecord AS record"
    f" WHERE {HOUR_OF_RECORD} = ANY (%(split)s) AND {_IN_PERIOD} AND {{customers}}) AS record"
)
_CHANGED_RECORDS = (
    f"{_CHANGED} CROSS JOIN LATERAL (SELECT * FROM usage_usagerecord AS record"
    " WHERE record.customer_id = changed.customer_id"
    " AND record.timestamp >= changed.hour AND record.timestamp < changed.hour + interval '1 hour'"
    f" AND {HOUR_OF_RECORD} <> ALL (%(split)s) AND {_IN_PERIOD} AND {{customers}} OFFSET 0) AS record"
)
# Batch by batch: how many records the newest ones have the planner does not know, and it may rather read all that a
# customer has. OFFSET 0 keeps it from looking at the conditions around.
_PENDING_RECORDS = (
    "(SELECT record.* FROM unnest(%(batch_ids)s::bigint[]) AS batch (id) CROSS JOIN LATERAL ("
    "SELECT * FROM usage_usagerecord AS record WHERE record.batch_id = batch.id OFFSET 0) AS record"
    f" WHERE {HOUR_OF_RECORD} <> ALL (%(split)s) AND {_IN_PERIOD} AND {{customers}}"
    f" AND NOT EXISTS (SELECT FROM {_CHANGED}"
    f" WHERE changed.customer_id = record.customer_id AND changed.hour = {HOUR_OF_RECORD})"
    ") AS record"
)


def record_sources(reading: Reading, customers: str) -> list[sql.Composed]:
    """Return where records are read from, cut down to customers by a condition on `record`."""
    if reading.from_records:
        return [sql.SQL(_ALL_RECORDS).format(customers=sql.SQL(customers))]
    split = _SPLIT_RECORDS if len(reading.split) <= FEW_HOURS else _MANY_SPLIT_RECORDS
    needed = (
        (reading.split, split),
        (reading.changed, _CHANGED_RECORDS),
        (reading.batch_ids, _PENDING_RECORDS),
    )
    return [sql.SQL(source).format(customers=sql.SQL(customers)) for rows, source in needed if rows]


_STORED_HOURS = sql.SQL(
    "aggregate.usage_event_id = %(usage_event_id)s AND aggregate.metric_id = %(metric_id)s"
    " AND aggregate.window_start >= %(first_hour)s AND aggregate.window_start < %(end_hour)s"
    " AND aggregate.window_start <> ALL (%(split)s)"
)
_NOT_CHANGED = sql.SQL(
    f" AND NOT EXISTS (SELECT FROM {_CHANGED}"
    " WHERE changed.customer_id = aggregate.customer_id AND changed.hour = aggregate.window_start)"
)


def stored_hours(reading: Reading) -> sql.Composed:
    """Return the condition on `aggregate`, but for the customers: whole hours inside the period that no correction
    touched since the last fold.
    """
    return sql.Composed([_STORED_HOURS, *([_NOT_CHANGED] if reading.changed else [])])
