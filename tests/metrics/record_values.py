"""What one record gives a metric, told in Python and apart from the code under test: value, filters, dimensions.

Numbers are Fractions, so that nothing here is ever rounded by accident.
"""

import ast
import json
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from hashlib import sha256
from typing import Any

from metrics.models import Metric

MISSING = ("missing",)
NULL = ("null",)
QUOTIENT_DIGITS = 40
LONGEST_PART = 255

Canonical = tuple[Any, ...]  # what kind of value it is, and the value: comparable, hashable, 1 and 1.0 are one

_TOKEN = re.compile(r'"(?:[^"]|"")*"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[^\W\d]\w*|[-+*/(),]|\s+')
_FUNCTIONS = {"min", "max", "coalesce"}


def number(value: Any) -> Fraction | None:
    """Return a JSON number exactly; None for everything else, text and booleans among it."""
    return Fraction(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def canonical(value: Any) -> Canonical:
    """Return a JSON value such that equal ones, and only those, are equal: 1 and 1.0, but not 1 and true or "1"."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int | Decimal):
        return ("number", Fraction(value))
    if isinstance(value, str):
        return ("text", value)
    if isinstance(value, list):
        return ("array", tuple(canonical(part) for part in value))
    return ("object", frozenset((name, canonical(part)) for name, part in value.items()))


def value_of(metric: Metric, data: dict[str, Any]) -> Any:
    """Return what the metric calculates from: a Fraction, a canonical scalar for a unique count, None for no value."""
    if metric.aggregation == "count":
        return Fraction(1)
    if metric.aggregation == "unique_count":
        found = canonical(data.get(metric.property))
        return found if found[0] in ("number", "text", "boolean") else None
    return evaluate(metric.expression, data) if metric.expression else number(data.get(metric.property))


# --- expressions: our own tokens, Python's grammar --------------------------------------------------------------------


def evaluate(text: str, data: dict[str, Any]) -> Fraction | None:
    """Return what an expression of properties gives for a record's data."""
    tree, names = _parsed(text)
    return _value(tree, lambda placeholder: _meaning(names[placeholder], data))


@cache
def _parsed(text: str) -> tuple[ast.expr, dict[str, Fraction | str]]:
    """Replace properties and numbers by names that Python can read without reading anything into them."""
    tokens = [token for token in _TOKEN.findall(text) if not token.isspace()]
    assert "".join(tokens) == "".join(re.findall(r'"(?:[^"]|"")*"|\S', text)), text
    names: dict[str, Fraction | str] = {}
    words = []
    for position, token in enumerate(tokens):
        if token in "+-*/(),":
            words.append(token)
        elif token in _FUNCTIONS and tokens[position + 1 : position + 2] == ["("]:
            words.append(f"call_{token}")
        else:
            words.append(f"given_{position}")
            if token[0] == '"':
                names[words[-1]] = token[1:-1].replace('""', '"')
            else:
                names[words[-1]] = Fraction(token) if token[0] in ".0123456789" else token
    return ast.parse(" ".join(words), mode="eval").body, names


def _meaning(name: Fraction | str, data: dict[str, Any]) -> Fraction | None:
    return number(data.get(name)) if isinstance(name, str) else name


def _value(node: ast.expr, find: Callable[[str], Fraction | None]) -> Fraction | None:
    match node:
        case ast.Name(id=name):
            return find(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _value(operand, find)
            return None if inner is None else -inner
        case ast.BinOp(left=left, op=operator, right=right):
            return _binary(operator, _value(left, find), _value(right, find))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _call(function, [_value(argument, find) for argument in arguments])
    raise AssertionError(f"not an expression of ours: {ast.dump(node)}")


def _binary(operator: ast.operator, left: Fraction | None, right: Fraction | None) -> Fraction | None:
    if left is None or right is None:
        return None
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return None if right == 0 else rounded(left / right, "half_up", QUOTIENT_DIGITS)
    raise AssertionError(f"not an operator of ours: {operator}")


def _call(function: str, values: list[Fraction | None]) -> Fraction | None:
    there = [value for value in values if value is not None]
    if function == "call_coalesce":
        return there[0] if there else None
    if len(there) < len(values):
        return None
    return min(there) if function == "call_min" else max(there)


# --- numbers ----------------------------------------------------------------------------------------------------------


def rounded(value: Fraction, mode: str, digits: int) -> Fraction:
    """Return the value rounded to decimals, by the mode's name."""
    unit = Fraction(10) ** digits
    below, rest = divmod(value * unit, 1)
    negative = value < 0
    up = {
        "half_up": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and not negative),
        "half_even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1),
        "up": rest > 0 and not negative,
        "down": rest > 0 and negative,
        "ceiling": rest > 0,
        "floor": False,
    }[mode]
    return (below + up) / unit


def exactly(value: Fraction) -> Decimal:
    """Return the Decimal that equals a fraction with an end."""
    found = exact_or_none(value)
    assert found is not None, f"{value} has no end in decimals"
    return found


def exact_or_none(value: Fraction) -> Decimal | None:
    """Return the Decimal that equals a fraction, without zeros at its end; None where the digits never end."""
    twos = fives = 0
    rest = value.denominator
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return None
    digits = max(twos, fives)
    return Decimal(f"{value.numerator * 10**digits // value.denominator}e-{digits}")


# --- filters ----------------------------------------------------------------------------------------------------------


def passes(filters: dict[str, Any], data: dict[str, Any]) -> bool:
    """Tell whether a record's data passes a metric's filters; every condition is true or false."""
    if not filters:
        return True
    if "all" in filters:
        return all(passes(inner, data) for inner in filters["all"])
    if "any" in filters:
        return any(passes(inner, data) for inner in filters["any"])
    return _holds(filters["operator"], data.get(filters["property"], MISSING), filters["value"])


def _holds(operator: str, found: Any, wanted: Any) -> bool:
    there = found is not MISSING and found is not None
    match operator:
        case "exists":
            return there is wanted
        case "eq":
            return there and canonical(found) == canonical(wanted)
        case "ne":
            return not _holds("eq", found, wanted)
        case "in":
            return any(_holds("eq", found, one) for one in wanted)
        case "not_in":
            return not _holds("in", found, wanted)
        case "starts_with":
            return isinstance(found, str) and found[: len(wanted)] == wanted
        case "contains":
            if isinstance(found, str):
                return isinstance(wanted, str) and wanted in found
            return isinstance(found, list) and any(canonical(part) == canonical(wanted) for part in found)
    return there and _in_order(operator, found, wanted)


def _in_order(operator: str, found: Any, wanted: Any) -> bool:
    left, right = canonical(found), canonical(wanted)
    if left[0] != right[0] or left[0] not in ("number", "text"):
        return False
    return {
        "gt": left[1] > right[1],
        "gte": left[1] >= right[1],
        "lt": left[1] < right[1],
        "lte": left[1] <= right[1],
    }[operator]


# --- dimensions -------------------------------------------------------------------------------------------------------


def dimensions_of(metric: Metric, data: dict[str, Any]) -> tuple[Canonical, ...]:
    """Return the record's value of each property that the metric groups by, as stored: missing is not null."""
    return tuple(_dimension(data.get(name, MISSING)) for name in metric.group_by)


def _dimension(value: Any) -> Canonical:
    if value is MISSING:
        return MISSING
    if isinstance(value, list | dict) or len(_text(value).encode()) > LONGEST_PART:
        return ("sha256", sha256(_text(value).encode()).hexdigest())
    return canonical(value)


def _text(value: Any) -> str:
    """Return a value's JSON text as PostgreSQL writes jsonb, for what the tests use of it."""
    if isinstance(value, list):
        return "[" + ", ".join(_text(part) for part in value) + "]"
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: (len(member[0].encode()), member[0].encode()))
        return "{" + ", ".join(f"{_text(name)}: {_text(part)}" for name, part in members) + "}"
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return f"{Decimal(value):f}"
    return json.dumps(value, ensure_ascii=False)


def is_meant(text: str, dimension: Canonical) -> bool:
    """Tell whether a text, as somebody writes it in an address, stands for a dimension."""
    kind, *value = dimension
    match kind:
        case "number":
            return re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is not None and Fraction(text) == value[0]
        case "boolean":
            return text == ("true" if value[0] else "false")
        case "sha256":
            return sha256(_text(text).encode()).hexdigest() == value[0]
    return kind == "text" and text == value[0]


def stored_dimensions(text: str) -> tuple[Canonical, ...]:
    """Return stored dimensions in the form that `dimensions_of` gives."""
    if not text:
        return ()
    parts = json.loads(text, parse_float=Decimal)
    return tuple(
        MISSING if part == [] else ("sha256", part["sha256"]) if isinstance(part, dict) else canonical(part)
        for part in parts
    )
