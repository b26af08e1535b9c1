"""A metric's definition as SQL over one record: whether it counts, what its value is, which dimensions it has."""

from dataclasses import dataclass

from psycopg import sql

from metrics.expressions import number_of, parse_expression
from metrics.filters import compiled_filters
from metrics.models import Aggregation, Metric
from metrics.parameters import Parameters

# A part of an index row, five times: beyond this many bytes it is replaced by its hash, so that no row can overflow.
MAX_PART_BYTES = 255
# The stored hour that a record lies in; origin and unit are whole hours of UTC, so no zone has to be looked up.
HOUR_OF_RECORD = "date_bin('1 hour', record.timestamp, '2000-01-01Z')"


@dataclass(frozen=True, slots=True)
class Calculation:
    """SQL about one record, whose alias is `record`; every value in it is a parameter.

    `value` is numeric, for a unique count the hash of the value (uuid), and null where the record has none. `condition`
    is true or false: whether the record counts at all. `dimensions` is the text under which aggregates are kept.
    """

    value: sql.Composable
    condition: sql.Composable
    dimensions: sql.Composable


def calculation(metric: Metric, parameters: Parameters) -> Calculation:
    """Return the metric's definition as SQL; nothing that a record holds can make it fail."""
    return Calculation(
        value=value_of(metric, parameters),
        condition=compiled_filters(metric.filters, parameters),
        dimensions=dimensions_text([dimension_part(name, parameters) for name in metric.group_by]),
    )


def value_of(metric: Metric, parameters: Parameters) -> sql.Composable:
    """Return the SQL of a record's value, as Calculation says."""
    if metric.aggregation == Aggregation.COUNT:
        return sql.SQL("1::numeric")
    if metric.aggregation == Aggregation.UNIQUE_COUNT:
        return _hash_of(metric.property, parameters)
    if metric.expression:
        return parse_expression(metric.expression).compiled(parameters)
    return number_of(metric.property, parameters)


def dimension_part(property_name: str, parameters: Parameters) -> sql.Composable:
    """Return the canonical jsonb of a property as a dimension: 1 and 1.0 are one; missing is [], not null nor "".

    What is no scalar or too long becomes {"sha256": its hash}.
    """
    return sql.SQL(
        """(
        SELECT CASE
            WHEN given IS NULL THEN '[]'::jsonb
            WHEN jsonb_typeof(given) = 'number' THEN to_jsonb(trim_scale(given::numeric))
            WHEN jsonb_typeof(given) IN ('array', 'object') OR octet_length(given::text) > {most}
                THEN jsonb_build_object('sha256', encode(sha256(convert_to(given::text, 'UTF8')), 'hex'))
            ELSE given END
        FROM (SELECT record.data -> {name}::text AS given) AS part)"""
    ).format(most=sql.Literal(MAX_PART_BYTES), name=parameters.take(property_name))


def dimensions_text(parts: list[sql.Composable]) -> sql.Composable:
    """Return the SQL of the text of a JSON array of parts; the empty text where there are none."""
    if not parts:
        return sql.SQL("''")
    return sql.SQL("jsonb_build_array({})::text").format(sql.SQL(", ").join(parts))


def _hash_of(property_name: str, parameters: Parameters) -> sql.Composable:
    """128 bits of the SHA-256 of a scalar's canonical JSON: the type is part of it, 1 and 1.0 are one."""
    return sql.SQL(
        """(
        SELECT encode(substring(sha256(convert_to(
            CASE jsonb_typeof(given)
                WHEN 'number' THEN trim_scale(given::numeric)::text
                WHEN 'string' THEN given::text
                WHEN 'boolean' THEN given::text END, 'UTF8')) FOR 16), 'hex')::uuid
        FROM (SELECT record.data -> {name}::text AS given) AS part)"""
    ).format(name=parameters.take(property_name))
