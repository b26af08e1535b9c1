"""The statements behind explanations: where a quantity was read, which records it counts, and which not and why."""

from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from metrics.calculation import HOUR_OF_RECORD, Calculation, calculation
from metrics.filters import compiled_filters
from metrics.merged_sql import OF_CUSTOMERS
from metrics.models import Aggregation, Metric
from metrics.parameters import Parameters
from metrics.questions import Question
from metrics.reading import (
    AskedDimensions,
    Reading,
    dimensions_of_records,
    record_sources,
    series_of_records,
    stored_hours,
)
from metrics.reading import stored_dimensions as dimensions_of_stored_hours
from usage.record_filters import EPOCH, Place


class Tally(NamedTuple):
    """How many records of the customer and the period are counted, and how many are not, by reason."""

    counted: int
    filtered_out: int
    no_value: int
    voided: int


class RecordRow(NamedTuple):
    """A record as a metric sees it: `value` is text (None if there is none), `dimensions` the text of a JSON array."""

    id: int
    record_id: str | None
    timestamp: datetime
    data: str
    value: str | None
    dimensions: str
    passes: bool
    voided: bool


class RecordFacts(NamedTuple):
    """What a metric makes of one record; `holds` tells which of some conditions hold."""

    value: str | None
    dimensions: str
    passes: bool
    holds: list[bool]


# --- where it was read -----------------------------------------------------------------------------------------------

_STORED_RUNS = sql.SQL(
    """
    SELECT min(hour), max(hour) + interval '1 hour', sum(record_count)::bigint
    FROM (SELECT hour, record_count, hour - row_number() OVER (ORDER BY hour) * interval '1 hour' AS run
          FROM (SELECT aggregate.window_start AS hour, sum(aggregate.record_count) AS record_count
                FROM metrics_metricaggregate AS aggregate
                WHERE {stored_hours} AND aggregate.customer_id = ANY (%(customers)s) AND {condition}
                GROUP BY 1) AS hours) AS numbered
    GROUP BY run ORDER BY 1 LIMIT %(limit)s
    """
)
_HOURS_OF_RECORDS = sql.SQL(
    f"""
    SELECT {HOUR_OF_RECORD}, count(*)
    FROM {{source}} WHERE {{counts}} AND {{condition}} GROUP BY 1
    """
)
_PENDING_BATCHES = sql.SQL(
    """
    SELECT batch.id, batch.received_at, date_trunc('hour', min(record.timestamp), 'UTC'),
           date_trunc('hour', max(record.timestamp), 'UTC') + interval '1 hour', count(*)
    FROM {source} JOIN usage_ingestbatch AS batch ON batch.id = record.batch_id
    WHERE {counts} AND {condition} GROUP BY 1, 2 ORDER BY 1 LIMIT %(limit)s
    """
)


def stored_runs(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customer_id: int, limit: int
) -> list[tuple[datetime, datetime, int]]:
    """Return (start, end, records) of the stored hours that were read, hours that follow each other as one.

    Primary key of aggregates.
    """
    parameters = reading.parameters(metric, customers=[customer_id], limit=limit)
    asked = dimensions_of_stored_hours(metric, question, parameters)
    cursor.execute(_STORED_RUNS.format(stored_hours=stored_hours(reading), condition=asked.condition), parameters)
    return cursor.fetchall()


def hours_of_records(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customer_id: int, source: str
) -> dict[datetime, int]:
    """Return how many records were read one by one in each hour, for the reason `source`: "split" or "changed".

    Index (usage_event, customer, timestamp).
    """
    parameters = reading.parameters(metric, customers=[customer_id])
    statement = _of_records(_HOURS_OF_RECORDS, metric, reading, question, parameters, source)
    if statement is None:
        return {}
    cursor.execute(statement, parameters)
    return dict(cursor.fetchall())


def batches_of_records(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customer_id: int, limit: int
) -> list[tuple[int, datetime, datetime, datetime, int]]:
    """Return (batch, its received_at, first hour, end of the last hour, records) of the pending batches that were read.

    Index (batch).
    """
    parameters = reading.parameters(metric, customers=[customer_id], limit=limit)
    statement = _of_records(_PENDING_BATCHES, metric, reading, question, parameters, "batch_ids")
    if statement is None:
        return []
    cursor.execute(statement, parameters)
    return cursor.fetchall()


def _of_records(
    form: sql.SQL, metric: Metric, reading: Reading, question: Question, parameters: Parameters, source: str
) -> sql.Composed | None:
    """Return the statement over one of the places where records are read; None if there is nothing to read there."""
    there = [name for name in ("split", "changed", "batch_ids") if getattr(reading, name)]
    if source not in there:
        return None
    places = dict(zip(there, record_sources(reading, OF_CUSTOMERS), strict=True))
    counts = calculation(metric, parameters).condition
    condition = dimensions_of_records(metric, question, parameters).condition
    return form.format(source=places[source], counts=counts, condition=condition)


# --- the records -----------------------------------------------------------------------------------------------------

_SEEN = sql.SQL(
    "usage_usagerecord AS record CROSS JOIN LATERAL (SELECT {value} AS value, {counts} AS passes) AS seen"
    " WHERE record.usage_event_id = %(usage_event_id)s AND record.customer_id = %(customer_id)s AND {condition}"
)
_IN_PERIOD = sql.SQL(" AND record.timestamp >= %(start)s AND record.timestamp < %(end)s")
_COUNTED = sql.SQL(" AND record.voided_at IS NULL AND passes AND value IS NOT NULL")
_TALLY = sql.SQL(
    """
    SELECT count(*) FILTER (WHERE record.voided_at IS NULL AND passes AND value IS NOT NULL),
           count(*) FILTER (WHERE record.voided_at IS NULL AND NOT passes),
           count(*) FILTER (WHERE record.voided_at IS NULL AND passes AND value IS NULL),
           count(*) FILTER (WHERE record.voided_at IS NOT NULL)
    FROM {seen}
    """
)
_ROWS = sql.SQL(
    "SELECT record.id, record.idempotency_key, record.timestamp, record.data::text, {shown}, {dimensions}, passes,"
    " record.voided_at IS NOT NULL"
)


def tally(cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customer_id: int) -> Tally:
    """Return how many records of the period are counted and how many are not; a record has one reason, voided first.

    Index (usage_event, customer, timestamp).
    """
    parameters = reading.parameters(metric, customer_id=customer_id)
    counted = calculation(metric, parameters)
    asked = dimensions_of_records(metric, question, parameters)
    cursor.execute(_TALLY.format(seen=_seen(counted, asked) + _IN_PERIOD), parameters)
    return Tally(*cursor.fetchone())


def records_page(
    cursor: CursorWrapper,
    metric: Metric,
    question: Question,
    customer_id: int,
    *,
    skipped: bool,
    place: Place | None,
    limit: int,
) -> list[RecordRow]:
    """Return the records of the period beyond a place, oldest first; if the place looks back, those before it, newest
    first. Index (usage_event, customer, timestamp).
    """
    parameters = Parameters(
        usage_event_id=metric.usage_event_id,
        customer_id=customer_id,
        start=question.start,
        end=question.end,
        limit=limit,
    )
    statement = _rows_of(metric, question, parameters, sql.SQL("") if skipped else _COUNTED)
    backwards = place is not None and place.backwards
    if place is not None:
        sign = sql.SQL("<" if backwards else ">")
        # The first comparison bounds the index; the second tells records of one moment apart.
        statement += sql.SQL(
            " AND record.timestamp {sign}= %(moment)s AND (record.timestamp, record.id) {sign} (%(moment)s, %(id)s)"
        ).format(sign=sign)
        parameters |= {"moment": place.moment, "id": place.record_id}
    order = sql.SQL("DESC" if backwards else "ASC")
    statement += sql.SQL(" ORDER BY record.timestamp {order}, record.id {order} LIMIT %(limit)s").format(order=order)
    cursor.execute(statement, parameters)
    return [RecordRow(*row) for row in cursor.fetchall()]


def carried_in(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customer_id: int, limit: int
) -> list[RecordRow]:
    """Return the records whose values a weighted sum holds at the start of the period, one for each series.

    A series is a combination of the dimensions. Index (usage_event, customer, timestamp): where there is one series,
    one look back.
    """
    parameters = reading.parameters(metric, customer_id=customer_id, limit=limit)
    counted = calculation(metric, parameters)
    asked = dimensions_of_records(metric, _by_all_dimensions(metric, question), parameters)
    rows = _ROWS.format(shown=_shown(metric, parameters), dimensions=asked.text)
    before = _seen(counted, asked) + _BEFORE_PERIOD + _COUNTED
    form = _NEWEST_OF_EACH if metric.group_by else _NEWEST
    cursor.execute(form.format(rows=rows, series=series_of_records(metric, parameters), before=before), parameters)
    return [RecordRow(*row[: len(RecordRow._fields)]) for row in cursor.fetchall()]


def facts_of_record(
    cursor: CursorWrapper, metric: Metric, record_id: int, conditions: list[dict[str, Any]]
) -> RecordFacts:
    """Return what a metric makes of a record of its usage event, and which of the given conditions hold. Primary key.

    What it gives is the same, voided or not.
    """
    parameters = Parameters(record_id=record_id, usage_event_id=metric.usage_event_id)
    counted = calculation(metric, parameters)
    # Nothing is asked of the dimensions but to be shown, so the period does not matter.
    anything = Question(start=EPOCH, end=EPOCH, group_by=metric.group_by)
    asked = dimensions_of_records(metric, anything, parameters)
    statement = _FACTS.format(
        value=counted.value,
        shown=_shown(metric, parameters),
        dimensions=asked.text,
        counts=counted.condition,
        holds=sql.SQL(", ").join(compiled_filters(condition, parameters) for condition in conditions),
    )
    cursor.execute(statement, parameters)
    return RecordFacts(*cursor.fetchone())


_BEFORE_PERIOD = sql.SQL(" AND record.timestamp < %(start)s")
_NEWEST = sql.SQL("{rows} FROM {before} ORDER BY record.timestamp DESC, record.id DESC LIMIT 1")
_NEWEST_OF_EACH = sql.SQL(
    """
    SELECT DISTINCT ON (series) *
    FROM ({rows}, {series} FROM {before})
        AS found (id, record_id, moment, data, value, dimensions, passes, voided, series)
    ORDER BY series, moment DESC, id DESC LIMIT %(limit)s
    """
)
_FACTS = sql.SQL(
    """
    SELECT {shown}, {dimensions}, {counts}, ARRAY[{holds}]::boolean[]
    FROM usage_usagerecord AS record CROSS JOIN LATERAL (SELECT {value} AS value) AS seen
    WHERE record.id = %(record_id)s AND record.usage_event_id = %(usage_event_id)s
    """
)


def _rows_of(metric: Metric, question: Question, parameters: Parameters, which: sql.SQL) -> sql.Composed:
    counted = calculation(metric, parameters)
    asked = dimensions_of_records(metric, _by_all_dimensions(metric, question), parameters)
    rows = _ROWS.format(shown=_shown(metric, parameters), dimensions=asked.text)
    return rows + sql.SQL(" FROM ") + _seen(counted, asked) + _IN_PERIOD + which


def _seen(counted: Calculation, asked: AskedDimensions) -> sql.Composed:
    return _SEEN.format(value=counted.value, counts=counted.condition, condition=asked.condition)


def _shown(metric: Metric, parameters: Parameters) -> sql.Composable:
    """The value as text: a number with every digit, or, where distinct values are counted, the scalar as JSON."""
    if metric.aggregation != Aggregation.UNIQUE_COUNT:
        return sql.SQL("value::text")
    return sql.SQL(
        "CASE WHEN value IS NOT NULL THEN CASE jsonb_typeof(record.data -> {name}::text)"
        " WHEN 'number' THEN trim_scale((record.data -> {name}::text)::numeric)::text"
        " ELSE (record.data -> {name}::text)::text END END"
    ).format(name=parameters.take(metric.property))


def _by_all_dimensions(metric: Metric, question: Question) -> Question:
    return replace(question, group_by=tuple(metric.group_by))
