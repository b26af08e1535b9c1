"""Arithmetic on a record's properties: an expression, the properties that it uses, its text and its SQL.

A value is strict: what misses a part is null, except inside coalesce. A divisor of zero gives null.

No SQL that is made here can fail, whatever numbers are stored. They have at most 64 digits and are 0 or within 1e±64,
so a leaf is below 1e65 with at most 127 decimals; so is a literal. A product adds up sizes and decimals, a quotient is
below 10 to the dividend's size plus the divisor's decimals and has 40 decimals itself. 100 nodes hold at most 50
factors: a value stays below 1e6500 with at most 6,350 decimals, and numeric holds 131,072 digits with 16,383 decimals.
"""

from dataclasses import dataclass
from functools import cached_property

from psycopg import sql

from metrics.expression_text import (
    MAX_CHARACTERS,
    Binary,
    Call,
    ExpressionError,
    Negation,
    Node,
    Number,
    Property,
    parse,
    written,
)
from metrics.parameters import Parameters


@dataclass(frozen=True)
class Expression:
    """A parsed expression. Two are equal when their trees are."""

    root: Node

    @cached_property
    def properties(self) -> tuple[str, ...]:
        """The names of the properties that it uses, each once, in order of appearance."""
        return tuple(dict.fromkeys(_names(self.root)))

    @cached_property
    def text(self) -> str:
        """The expression with normal spacing and no parentheses too many; it parses to the same tree."""
        return written(self.root)

    def compiled(self, parameters: Parameters) -> sql.Composable:
        """Return the SQL of one record's value: numeric, null if it has none; the record's alias is `record`."""
        return _compiled(self.root, parameters, {})


def parse_expression(text: str) -> Expression:
    """Return the expression that a text holds; raises ExpressionError, which says where and what was expected."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(MAX_CHARACTERS, f"at most {MAX_CHARACTERS} characters were expected, got {len(text)}")
    expression = Expression(parse(text))
    if not expression.properties:
        raise ExpressionError(0, "at least one property was expected, got numbers only")
    if len(expression.text) > MAX_CHARACTERS:
        message = f"at most {MAX_CHARACTERS} characters were expected, got {len(expression.text)} with normal spacing"
        raise ExpressionError(len(text), message)
    return expression


def number_of(property_name: str, parameters: Parameters) -> sql.Composable:
    """Return the SQL of a record's property as a number: numeric, null for anything that is no JSON number."""
    return _guarded(parameters.take(property_name))


def _names(node: Node) -> list[str]:
    match node:
        case Property(name):
            return [name]
        case Negation(operand):
            return _names(operand)
        case Binary(_, left, right):
            return _names(left) + _names(right)
        case Call(_, arguments):
            return [name for argument in arguments for name in _names(argument)]
    return []


def _guarded(name: sql.Composable) -> sql.Composable:
    # As text: of a parameter without a type PostgreSQL may think that it is an array's index.
    return sql.SQL(
        "CASE WHEN jsonb_typeof(record.data -> {name}::text) = 'number' THEN (record.data -> {name}::text)::numeric END"
    ).format(name=name)


# A null among the arguments wins as an infinity, which no JSON number is, and is made null again: each argument is
# written once, where least and greatest would pass over nulls.
_EXTREMES = {"min": ("least", "-Infinity"), "max": ("greatest", "Infinity")}
# Rounded half away from zero to 40 decimals, by the exact division that cuts at the 41st: "/" chooses its decimals
# itself, and to round twice is to round wrong.
_QUOTIENT = sql.SQL("trim_scale(round(div({left} * 1e41, nullif({right}, 0)) * 1e-41, 40))")


def _compiled(node: Node, parameters: Parameters, places: dict[str, sql.Placeholder]) -> sql.Composable:
    match node:
        case Number(value):
            return sql.SQL("{}::numeric").format(parameters.take(value))
        case Property(name):
            if name not in places:
                places[name] = parameters.take(name)
            return _guarded(places[name])
        case Negation(operand):
            return sql.SQL("(- {})").format(_compiled(operand, parameters, places))
        case Binary(operator, left, right):
            sides = {"left": _compiled(left, parameters, places), "right": _compiled(right, parameters, places)}
            if operator == "/":
                return _QUOTIENT.format(**sides)
            return sql.SQL(f"({{left}} {operator} {{right}})").format(**sides)
        case Call(function, arguments):
            return _compiled_call(function, [_compiled(argument, parameters, places) for argument in arguments])


def _compiled_call(function: str, arguments: list[sql.Composable]) -> sql.Composable:
    if function == "coalesce":
        return sql.SQL("coalesce({})").format(sql.SQL(", ").join(arguments))
    chosen, stand_in = _EXTREMES[function]
    present = [sql.SQL("coalesce({}, {}::numeric)").format(argument, stand_in) for argument in arguments]
    return sql.SQL("nullif({}({}), {}::numeric)").format(sql.SQL(chosen), sql.SQL(", ").join(present), stand_in)
