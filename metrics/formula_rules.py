"""What a formula may be: its parts checked against each other and against the usage event's schema."""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError

from metrics.expressions import ExpressionError, parse_expression
from metrics.filters import check_filters, properties_of_filters
from metrics.models import Aggregation, Metric
from metrics.sandbox import check_sql_metric
from usage.schemas import properties_of, types_of

NUMERIC = {"number", "integer"}
SCALAR = {*NUMERIC, "string", "boolean"}
# What of a metric makes its quantities; all of it is fixed once it is published.
FORMULA = (
    *("usage_event_id", "aggregation", "property", "expression", "percentile", "filters", "group_by"),
    *("rounding_mode", "rounding_digits", "sql", "sql_window"),
)
OF_RECORDS = tuple(name for name in FORMULA if not name.startswith("sql"))
TEXTS = ("code", "name", "unit", "aggregation", "property", "expression", "rounding_mode", "sql", "sql_window")
MAX_GROUP_BY = 5
MAX_DIGITS = 30
MAX_PERCENTILE_PLACES = 20

Mistakes = dict[str, str]


def check_formula(metric: Metric) -> None:
    """Raise ValidationError, by field, for a formula that is incomplete, contradicts itself or does not fit the schema.

    Metrics of records are checked against the usage event's schema as it is now, SQL metrics by the database.
    """
    check_storable(metric)
    if is_sql(metric):
        mistakes = _sql_mistakes(metric)
    elif metric.usage_event is None:
        mistakes = {"usage_event": "a usage event was expected, got none"}
    elif metric.usage_event.organisation_id != metric.organisation_id:
        mistakes = {"usage_event": "a usage event of the metric's own organisation was expected"}
    else:
        mistakes = _record_mistakes(metric, metric.usage_event.schema)
    if mistakes:
        raise ValidationError(mistakes)
    if is_sql(metric):
        check_sql_metric(metric)


def check_storable(metric: Metric) -> None:
    """Raise ValidationError, by field, for text that the database cannot store."""
    fields = (*TEXTS, "filters", "group_by")
    mistakes = {
        field: "text without null characters and without halves of surrogate pairs was expected"
        for field in fields
        if not all(map(_is_storable, _texts_in(getattr(metric, field))))
    }
    if mistakes:
        raise ValidationError(mistakes)


def is_sql(metric: Metric) -> bool:
    """Tell whether the metric is calculated by SQL of its own, not from the records of a usage event."""
    return bool(metric.sql or metric.sql_window)


def properties_used(metric: Metric) -> set[str]:
    """Return the properties of records that the metric reads: for its value, its filters and its dimensions."""
    in_expression = parse_expression(metric.expression).properties if metric.expression else ()
    named = {metric.property} - {""}
    return named | {*in_expression, *metric.group_by} | properties_of_filters(metric.filters)


def has_word(text: str, word: str) -> bool:
    """Tell whether a name is in a SQL text as a word of its own, quoted or not, in whatever case."""
    written = re.escape(word.replace('"', '""'))
    return re.search(rf"(?<!\w){written}(?!\w)", text, re.IGNORECASE) is not None


def numbers_of(schema: dict[str, Any]) -> list[str]:
    """Return the properties that the schema lets be numbers: those a sum can be made of."""
    return _properties_of_types(schema, NUMERIC)


def scalars_of(schema: dict[str, Any]) -> list[str]:
    """Return the properties that the schema lets be text, numbers or booleans: those to group by and to tell apart."""
    return _properties_of_types(schema, SCALAR)


def _properties_of_types(schema: dict[str, Any], wanted: set[str]) -> list[str]:
    properties = properties_of(schema).items()
    return [name for name, sub in properties if wanted & set(types_of(sub)) or not types_of(sub)]


def _sql_mistakes(metric: Metric) -> Mistakes:
    mistakes = {
        field.removesuffix("_id"): "a metric of SQL takes none; its SELECT says all"
        for field in OF_RECORDS
        if getattr(metric, field) not in ("", None, {}, [])
    }
    if not metric.sql.strip():
        mistakes["sql"] = "a SELECT was expected, got none"
    if not metric.sql_window:
        mistakes["sql_window"] = "'day' or 'month' was expected, got none"
    return mistakes


def _record_mistakes(metric: Metric, schema: dict[str, Any]) -> Mistakes:
    mistakes: Mistakes = {}
    checks: tuple[Callable[[Metric, dict[str, Any]], Mistakes], ...] = (
        *(_value_mistakes, _percentile_mistakes, _filter_mistakes, _group_by_mistakes, _rounding_mistakes),
    )
    for check in checks:
        mistakes |= check(metric, schema)
    return mistakes


def _value_mistakes(metric: Metric, schema: dict[str, Any]) -> Mistakes:
    """One value is calculated from: a property or an expression; a count takes none."""
    if metric.aggregation not in Aggregation.values:
        came = f"'{metric.aggregation}'" if metric.aggregation else "none"
        return {"aggregation": f"one of {', '.join(Aggregation.values)} was expected, got {came}"}
    if metric.aggregation == Aggregation.COUNT:
        given = [field for field in ("property", "expression") if getattr(metric, field)]
        return {field: f"a count takes no {field}; it counts records" for field in given}
    if metric.property and metric.expression:
        return {"expression": "either a property or an expression was expected, got both"}
    kinds, expected = numbers_of(schema), "a number"
    if metric.aggregation == Aggregation.UNIQUE_COUNT:
        if metric.expression:
            return {"expression": "a unique count takes no expression; it tells the values of a property apart"}
        kinds, expected = scalars_of(schema), "a text, number or boolean"
    if metric.expression:
        return _expression_mistakes(metric.expression, schema)
    if metric.property in kinds:
        return {}
    came = f"'{metric.property}'" if metric.property else "none"
    return {"property": f"{expected} of the usage event's schema was expected ({_listed(kinds)}), got {came}"}


def _expression_mistakes(text: str, schema: dict[str, Any]) -> Mistakes:
    try:
        used = parse_expression(text).properties
    except ExpressionError as error:
        return {"expression": str(error)}
    numbers = numbers_of(schema)
    others = [name for name in used if name not in numbers]
    if not others:
        return {}
    expected = f"numbers of the usage event's schema were expected ({_listed(numbers)})"
    # What is no plain word falls into several without its quotation marks: in-tokens is read as in minus tokens.
    meant = next((name for name in numbers if not set(others).isdisjoint(re.split(r"\W+", name))), None)
    hint = f"; a name such as '{meant}' is written in double quotes" if meant else ""
    return {"expression": f"{expected}, got {_listed(others)}{hint}"}


def _percentile_mistakes(metric: Metric, schema: dict[str, Any]) -> Mistakes:
    if metric.aggregation != Aggregation.PERCENTILE:
        return {} if metric.percentile is None else {"percentile": "this goes with the aggregation percentile only"}
    if metric.percentile is None:
        return {"percentile": "a number from 0 to 100 was expected, got none"}
    value = metric.percentile
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        return {"percentile": f"a number from 0 to 100 was expected, got {str(value)[:60]!r}"}
    if not 0 <= value <= 100:
        return {"percentile": f"a number from 0 to 100 was expected, got {str(value)[:60]}"}
    if int(Decimal(value).as_tuple().exponent) < -MAX_PERCENTILE_PLACES:
        return {"percentile": f"at most {MAX_PERCENTILE_PLACES} decimal places were expected"}
    return {}


def _filter_mistakes(metric: Metric, schema: dict[str, Any]) -> Mistakes:
    try:
        check_filters(metric.filters, schema)
    except ValueError as error:
        return {"filters": str(error)}
    return {}


def _group_by_mistakes(metric: Metric, schema: dict[str, Any]) -> Mistakes:
    names, scalars = metric.group_by, scalars_of(schema)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return {"group_by": f"a list of names of properties was expected, got {str(names)[:60]}"}
    if len(names) > MAX_GROUP_BY:
        return {"group_by": f"at most {MAX_GROUP_BY} properties were expected, got {len(names)}"}
    if len(set(names)) < len(names):
        return {"group_by": f"each property was expected once, got {_listed(names)}"}
    others = [name for name in names if name not in scalars]
    if not others:
        return {}
    expected = f"texts, numbers or booleans of the usage event's schema were expected ({_listed(scalars)})"
    return {"group_by": f"{expected}, got {_listed(others)}"}


def _rounding_mistakes(metric: Metric, schema: dict[str, Any]) -> Mistakes:
    digits = metric.rounding_digits
    if not metric.rounding_mode:
        return {} if digits is None else {"rounding_mode": "a mode was expected beside the digits, got none"}
    if digits is None:
        return {"rounding_digits": "digits were expected beside the mode, got none"}
    if type(digits) is not int or not 0 <= digits <= MAX_DIGITS:
        return {"rounding_digits": f"a whole number from 0 to {MAX_DIGITS} was expected, got {str(digits)[:60]}"}
    return {}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name[:60]}'" for name in names) or "none is there"


def _texts_in(value: Any) -> Iterator[str]:
    """Every text inside a JSON value; a loop, so that no depth can hurt."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, dict):
            left += [*inner, *inner.values()]
        elif isinstance(inner, list | tuple):
            left += inner


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
