"""States of windows that do not merge: percentiles and values weighted by time, read from records."""

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from metrics.calculation import calculation
from metrics.exactly import EXACT
from metrics.formulas import RECORD_COUNT, VALUE_COUNT
from metrics.merged_sql import (
    AS_THEY_ARE,
    OF_CUSTOMERS,
    Place,
    State,
    read_columns,
    selected_from_records,
    states_of,
    together,
)
from metrics.models import Metric
from metrics.parameters import Parameters
from metrics.questions import Question
from metrics.reading import EDGES, Reading, dimensions_of_records, record_sources, series_of_records

# The ranks around p (n - 1), counted from 0; nulls sort behind the values.
_PERCENTILE = sql.SQL(
    """
    WITH ranked AS (
        SELECT customer_id, index, dimensions, value,
               row_number() OVER (PARTITION BY customer_id, index, dimensions ORDER BY value) - 1 AS rank,
               count(*) OVER (PARTITION BY customer_id, index, dimensions) AS record_count,
               count(value) OVER (PARTITION BY customer_id, index, dimensions) AS value_count
        FROM ({parts}) AS part (customer_id, index, dimensions, value))
    SELECT customer_id, index, dimensions, max(record_count), max(value_count),
           max(value) FILTER (WHERE rank = floor(%(fraction)s::numeric * (value_count - 1))),
           max(value) FILTER (WHERE rank = ceil(%(fraction)s::numeric * (value_count - 1)))
    FROM ranked
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT %(limit)s
    """
)


def read_percentile(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, parameters: Parameters
) -> dict[Place, State]:
    """Return the counts of each place, and the two values around the rank that is asked for."""
    parts = selected_from_records(metric, reading.of_records(), question, parameters, sql.SQL("value"), AS_THEY_ARE)
    assert metric.percentile is not None
    cursor.execute(_PERCENTILE.format(parts=parts[0]), {**parameters, "fraction": EXACT.scaleb(metric.percentile, -2)})
    return states_of(cursor, "record_count", "value_count", "lower", "upper")


# Each value is held from its moment, or from the start of the period for the last one before it, to the next one of
# the same series (customer and all dimensions as answers show them), and at most until the moment of the snapshot.
_HELD = sql.SQL(
    """
    WITH given AS (
        SELECT record.customer_id, {series} AS series, {dimensions} AS dimensions, record.timestamp, record.id, value
        FROM {inside} CROSS JOIN LATERAL (SELECT {value} AS value) AS counted
        WHERE {counts} AND {condition} AND value IS NOT NULL
        UNION ALL ({carried_in})),
    held AS (
        SELECT customer_id, dimensions, value, timestamp AS held_from,
               least(%(until)s, lead(timestamp, 1, %(until)s)
                     OVER (PARTITION BY customer_id, series ORDER BY timestamp, id)) AS held_until
        FROM given)
    SELECT customer_id, index - 1, dimensions,
           sum(value * extract(epoch FROM least(held_until, ({edges})[index + 1])
                                        - greatest(held_from, ({edges})[index])))
    FROM held CROSS JOIN LATERAL generate_series(
        width_bucket(held_from, {edges}),
        width_bucket(held_until - interval '1 microsecond', {edges})) AS index
    WHERE held_from < held_until
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT %(limit)s
    """
)
# One series a customer: its last value is the first one that the index meets, going back.
_CARRIED_IN_ONE = sql.SQL(
    """
    SELECT customer_id, '', {dimensions}, %(start)s, 0, value
    FROM unnest(%(customers)s::bigint[]) AS customer (id) CROSS JOIN LATERAL (
        SELECT record.*, value
        FROM usage_usagerecord AS record CROSS JOIN LATERAL (SELECT {value} AS value) AS counted
        WHERE record.usage_event_id = %(usage_event_id)s AND record.voided_at IS NULL
          AND record.customer_id = customer.id AND record.timestamp < %(start)s
          AND {counts} AND {condition} AND value IS NOT NULL
        ORDER BY record.timestamp DESC, record.id DESC LIMIT 1) AS record
    """
)
_CARRIED_IN_EACH = sql.SQL(
    """
    SELECT DISTINCT ON (record.customer_id, series)
           record.customer_id, {series} AS series, {dimensions}, %(start)s::timestamptz, 0::bigint, value
    FROM usage_usagerecord AS record CROSS JOIN LATERAL (SELECT {value} AS value) AS counted
    WHERE record.usage_event_id = %(usage_event_id)s AND record.voided_at IS NULL
      AND record.customer_id = ANY (%(customers)s) AND record.timestamp < %(start)s
      AND {counts} AND {condition} AND value IS NOT NULL
    ORDER BY record.customer_id, series, record.timestamp DESC, record.id DESC
    """
)


def read_weighted(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, parameters: Parameters
) -> dict[Place, State]:
    """Return the counts of each place, and the sum of values times the seconds they were held."""
    states = read_columns(cursor, metric, reading, question, Parameters(parameters), (RECORD_COUNT, VALUE_COUNT))
    counted = calculation(metric, parameters)
    asked = dimensions_of_records(metric, question, parameters)
    fragments = {
        "edges": sql.SQL(EDGES),
        "series": series_of_records(metric, parameters),
        "dimensions": asked.text,
        "value": counted.value,
        "counts": counted.condition,
        "condition": asked.condition,
    }
    (inside,) = record_sources(reading.of_records(), OF_CUSTOMERS)
    carried_in = _CARRIED_IN_EACH if metric.group_by else _CARRIED_IN_ONE
    statement = _HELD.format(inside=inside, carried_in=carried_in.format(**fragments), **fragments)
    cursor.execute(statement, parameters)
    return together(states, states_of(cursor, "held_seconds"))
