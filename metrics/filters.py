"""Conditions on records: checked against the usage event's schema, told in words, compiled to SQL.

Filters are {} or a group, {"all": [...]} or {"any": [...]}, of groups and conditions; a condition is
{"property", "operator", "value"}. Each is true or false of a record, never unknown: `ne` and `not_in` are the
complements of `eq` and `in`, and what is missing or of another type is in no order.
"""

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from customers.exactjson import dumps
from metrics.expression_text import written_name
from metrics.expressions import number_of
from metrics.filter_checks import GROUPS, MEMBERSHIP, ORDER, FilterCheck, exact
from metrics.parameters import Parameters

_WORDS = {
    "eq": "is",
    "ne": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "gt": ">",
    "gte": "≥",
    "lt": "<",
    "lte": "≤",
    "contains": "contains",
    "starts_with": "starts with",
}


def conditions(filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the conditions of filters, in their order, whatever groups they are in."""
    for name in GROUPS:
        for member in filters.get(name, ()):
            if "property" in member:
                yield member
            else:
                yield from conditions(member)


def properties_of_filters(filters: dict[str, Any]) -> set[str]:
    """Return the names of the properties that filters look at."""
    return {condition["property"] for condition in conditions(filters)}


def check_filters(filters: Any, schema: dict[str, Any]) -> None:
    """Raise ValueError, with the place, for what are no filters of records of this schema."""
    if filters == {} and isinstance(filters, dict):
        return
    FilterCheck(schema).group(filters)


def compiled_filters(filters: dict[str, Any], parameters: Parameters) -> sql.Composable:
    """Return the SQL that tells whether a record passes: a boolean, never null; the record's alias is `record`."""
    if "property" in filters:
        return _compiled_condition(filters, parameters)
    for name, connective, of_none in (("all", " AND ", "TRUE"), ("any", " OR ", "FALSE")):
        if members := filters.get(name):
            parts = [compiled_filters(member, parameters) for member in members]
            return sql.SQL("({})").format(sql.SQL(connective).join(parts))
        if name in filters:
            return sql.SQL(of_none)
    return sql.SQL("TRUE")


def filters_in_words(filters: dict[str, Any]) -> str:
    """Return filters as a clause, such as `region is “eu” and status ≥ 500`; empty if every record passes."""
    return "" if next(conditions(filters), None) is None else _in_words(filters, "")


def _compiled_condition(condition: dict[str, Any], parameters: Parameters) -> sql.Composable:
    name, operator, value = condition["property"], condition["operator"], condition["value"]
    if operator in ORDER and not isinstance(value, str):
        return sql.SQL("coalesce({} {} {}::numeric, false)").format(
            number_of(name, parameters), sql.SQL(ORDER[operator]), parameters.take(exact(value))
        )
    # As text: of a parameter without a type PostgreSQL may think that it is an array's index.
    data = sql.SQL("(record.data -> {}::text)").format(parameters.take(name))
    match operator:
        case "eq":
            return _is_among(data, [value], parameters)
        case "ne":
            return sql.SQL("(NOT {})").format(_is_among(data, [value], parameters))
        case "in":
            return _is_among(data, value, parameters)
        case "not_in":
            return sql.SQL("(NOT {})").format(_is_among(data, value, parameters))
        case "exists":
            # A missing property has no type, a null one the type null.
            sign = sql.SQL("<>" if value else "=")
            return sql.SQL("(coalesce(jsonb_typeof({}), 'null') {} 'null')").format(data, sign)
    return _compiled_text(data, operator, value, parameters)


def _is_among(data: sql.Composable, values: list[Any], parameters: Parameters) -> sql.Composable:
    """Equality of jsonb: 1 is 1.0 and not "1"; what is missing equals nothing."""
    if len(values) == 1:
        return sql.SQL("coalesce({} = {}::jsonb, false)").format(data, parameters.take(dumps(values[0])))
    among = parameters.take([dumps(value) for value in values])
    return sql.SQL("coalesce({} = ANY ({}::jsonb[]), false)").format(data, among)


def _compiled_text(data: sql.Composable, operator: str, value: Any, parameters: Parameters) -> sql.Composable:
    """What looks into text, and `contains`, which looks into arrays too. Collation "C" goes by code points."""
    test = {
        "contains": 'strpos({text} COLLATE "C", {value}::text) > 0',
        "starts_with": 'starts_with({text} COLLATE "C", {value}::text)',
    } | {name: f'{{text}} COLLATE "C" {sign} {{value}}::text' for name, sign in ORDER.items()}
    whens = []
    if isinstance(value, str):
        text = sql.SQL("({} #>> '{{}}')").format(data)
        whens.append(sql.SQL("WHEN 'string' THEN " + test[operator]).format(text=text, value=parameters.take(value)))
    if operator == "contains":
        # An array contains a scalar when one of its own elements equals it.
        held = parameters.take(dumps(value))
        whens.append(sql.SQL("WHEN 'array' THEN {} @> {}::jsonb").format(data, held))
    return sql.SQL("(CASE jsonb_typeof({}) {} ELSE false END)").format(data, sql.SQL(" ").join(whens))


def _in_words(member: dict[str, Any], outside: str) -> str:
    """The words of a group or a condition; in parentheses if the group around it joins with another word."""
    if "property" in member:
        return _condition_in_words(member)
    ((name, members),) = member.items()
    if len(members) == 1:
        return _in_words(members[0], outside)
    if not members:
        return "always"
    text = (" and " if name == "all" else " or ").join(_in_words(inner, name) for inner in members)
    return f"({text})" if outside and outside != name else text


def _condition_in_words(condition: dict[str, Any]) -> str:
    name, operator, value = written_name(condition["property"]), condition["operator"], condition["value"]
    if operator == "exists":
        return f"{name} is {'there' if value else 'missing'}"
    values = value if operator in MEMBERSHIP else [value]
    return f"{name} {_WORDS[operator]} {', '.join(map(_value_in_words, values))}"


def _value_in_words(value: Any) -> str:
    if isinstance(value, str):
        return f"“{value}”"
    return str(value).lower() if isinstance(value, bool) else str(value)
