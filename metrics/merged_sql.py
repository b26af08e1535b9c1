"""States of windows that merge: read from stored hours, and from records where these are not complete."""

from typing import Any, NamedTuple

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from metrics.calculation import calculation
from metrics.formulas import StateColumn, state_columns
from metrics.models import Metric
from metrics.parameters import Parameters
from metrics.questions import Question
from metrics.reading import EDGES, Reading, dimensions_of_records, record_sources, stored_dimensions, stored_hours

OF_CUSTOMERS = "record.customer_id = ANY (%(customers)s)"

State = dict[str, Any]


class Place(NamedTuple):
    """Whose state it is: customer, number of the window in the period, dimensions (text of a JSON array, or "")."""

    customer_id: int
    window: int
    dimensions: str


_STORED = sql.SQL(
    f"""
    SELECT aggregate.customer_id, width_bucket(aggregate.window_start, {EDGES}) - 1, {{dimensions}},
           {{states}}
    FROM {{table}} AS aggregate
    WHERE {{stored_hours}} AND aggregate.customer_id = ANY (%(customers)s) AND {{condition}}
    {{groups}}
    """
)
_RAW = sql.SQL(
    f"""
    SELECT record.customer_id, width_bucket(record.timestamp, {EDGES}) - 1, {{dimensions}}, {{states}}
    FROM {{source}} CROSS JOIN LATERAL (SELECT {{value}} AS value OFFSET 0) AS counted
    WHERE {{counts}} AND {{condition}}
    {{groups}}
    """
)
_MERGED = sql.SQL(
    """
    SELECT customer_id, index, dimensions, {states}
    FROM ({parts}) AS part (customer_id, index, dimensions, {names})
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT %(limit)s
    """
)
# Where there is one part, it is merged already.
_ONE_PART = sql.SQL("{parts} ORDER BY 1, 2, 3 LIMIT %(limit)s")
_EACH = sql.SQL(" UNION ALL ")
_GROUPED = sql.SQL("GROUP BY 1, 2, 3")
AS_THEY_ARE = sql.SQL("")


def selected_from_records(
    metric: Metric,
    reading: Reading,
    question: Question,
    parameters: Parameters,
    states: sql.Composable,
    groups: sql.SQL,
) -> list[sql.Composed]:
    """Return a SELECT of (customer, index, dimensions, states) for each place where records are read."""
    asked = dimensions_of_records(metric, question, parameters)
    counted = calculation(metric, parameters)
    return [
        _RAW.format(
            dimensions=asked.text,
            states=states,
            source=source,
            value=counted.value,
            counts=counted.condition,
            condition=asked.condition,
            groups=groups,
        )
        for source in record_sources(reading, OF_CUSTOMERS)
    ]


def _parts(
    metric: Metric,
    reading: Reading,
    question: Question,
    parameters: Parameters,
    *,
    table: str,
    stored: sql.Composable,
    raw: sql.Composable,
    groups: sql.SQL = _GROUPED,
    stored_groups: sql.SQL = _GROUPED,
) -> list[sql.Composed]:
    """Return the SELECTs of all places, stored hours first."""
    parts = selected_from_records(metric, reading, question, parameters, raw, groups)
    if not reading.from_records:
        asked = stored_dimensions(metric, question, parameters)
        parts.insert(
            0,
            _STORED.format(
                dimensions=asked.text,
                states=stored,
                table=sql.Identifier(table),
                condition=asked.condition,
                groups=stored_groups,
                stored_hours=stored_hours(reading),
            ),
        )
    return parts


def read_columns(
    cursor: CursorWrapper,
    metric: Metric,
    reading: Reading,
    question: Question,
    parameters: Parameters,
    columns: tuple[StateColumn, ...],
) -> dict[Place, State]:
    """Return the state that some columns hold, merged over stored hours and records."""
    merged = sql.SQL(", ").join(column.merged for column in columns)
    of_records = sql.SQL(", ").join(column.of() for column in columns)
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    # By the hour and without dimensions each stored hour is a window of its own: there is nothing to merge.
    alone = reading.is_by_the_hour and not metric.group_by
    parts = _parts(
        metric,
        reading,
        question,
        parameters,
        table="metrics_metricaggregate",
        stored=names if alone else merged,
        raw=of_records,
        stored_groups=AS_THEY_ARE if alone else _GROUPED,
    )
    statement = _ONE_PART if len(parts) == 1 else _MERGED
    cursor.execute(statement.format(states=merged, parts=_EACH.join(parts), names=names), parameters)
    return states_of(cursor, *(column.name for column in columns))


def read_merged(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, parameters: Parameters
) -> dict[Place, State]:
    """Return the state of the columns that the aggregation keeps."""
    return read_columns(cursor, metric, reading, question, parameters, state_columns(metric))


_DISTINCT = sql.SQL(
    """
    SELECT customer_id, index, dimensions, count(DISTINCT value_hash)
    FROM ({parts}) AS part (customer_id, index, dimensions, value_hash)
    WHERE value_hash IS NOT NULL
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT %(limit)s
    """
)


def read_distinct(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, parameters: Parameters
) -> dict[Place, State]:
    """Return that state, and how many distinct values there are."""
    states = read_merged(cursor, metric, reading, question, Parameters(parameters))
    parts = _parts(
        metric,
        reading,
        question,
        parameters,
        table="metrics_metricdistinctvalue",
        stored=sql.SQL("aggregate.value_hash"),
        raw=sql.SQL("value"),
        groups=AS_THEY_ARE,
        stored_groups=AS_THEY_ARE,
    )
    cursor.execute(_DISTINCT.format(parts=_EACH.join(parts)), parameters)
    return together(states, states_of(cursor, "distinct_count"))


def states_of(cursor: CursorWrapper, *names: str) -> dict[Place, State]:
    """Return the fetched rows, whose last columns have these names, by place."""
    return {Place(*row[:3]): dict(zip(names, row[3:], strict=True)) for row in cursor.fetchall()}


def together(one: dict[Place, State], other: dict[Place, State]) -> dict[Place, State]:
    """Return the states of both by place, in order."""
    return {place: {**one.get(place, {}), **other.get(place, {})} for place in sorted({*one, *other})}
