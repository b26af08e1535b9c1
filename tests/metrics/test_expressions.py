"""Expressions: what parses and what does not, the canonical text, and the SQL against Python's parser and fractions."""

import ast
import operator
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from customers.exactjson import dumps
from metrics.expression_text import Binary, Call, Negation, Node, Number, Property, written
from metrics.expressions import Expression, ExpressionError, number_of, parse_expression
from metrics.parameters import Parameters

A, B, C = Property("a"), Property("b"), Property("c")
TWO = Number(Decimal(2))
ODD_NAMES = ["%s", 'a"b', "{}", "%(x)s", "input-tokens", "größe", "🙂", "", "a b", "\\", "'", "0", "x'); --", "max"]
LARGEST = Decimal("9." + 63 * "9" + "e64")
SMALLEST = Decimal("1." + 62 * "0" + "1e-64")
# Not by unary minus, which would round.
EXTREMES = [LARGEST, SMALLEST, LARGEST.copy_negate(), SMALLEST.copy_negate()]

TOO_MANY = "at most 100 numbers, properties, operators and functions were expected, got more"

tried = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def calculated(value: Expression | str, *rows: Any) -> list[Decimal | None]:
    """What PostgreSQL makes of an expression, for each row of data."""
    expression = parse_expression(value) if isinstance(value, str) else value
    parameters = Parameters()
    return selected(expression.compiled(parameters), parameters, *rows)


def selected(value: sql.Composable, parameters: Parameters, *rows: Any) -> list[Decimal | None]:
    statement = sql.SQL(
        "SELECT {} FROM unnest({}::jsonb[]) WITH ORDINALITY AS record(data, number) ORDER BY number"
    ).format(value, parameters.take([dumps(row) for row in rows]))
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [number for (number,) in cursor.fetchall()]


def exactly(numbers: list[Decimal | None]) -> list[Fraction | None]:
    return [None if number is None else Fraction(number) for number in numbers]


def half_away_from_zero(number: Fraction) -> Fraction:
    """Rounded to 40 decimals."""
    size = int(abs(number) * 10**40 + Fraction(1, 2))
    return Fraction(size if number >= 0 else -size, 10**40)


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def by_python(text: str, data: Mapping[str, Any]) -> Fraction | None:
    """What Python's own parser and fractions make of the text; its operators bind as ours do."""

    def value(node: Any) -> Fraction | None:
        match node:
            case ast.Constant():
                return Fraction(ast.get_source_segment(text, node) or "")
            case ast.Name(name):
                number = data.get(name)
                is_number = isinstance(number, int | Decimal) and not isinstance(number, bool)
                return Fraction(str(number)) if is_number else None
            case ast.UnaryOp(ast.USub(), operand):
                return None if (number := value(operand)) is None else -number
            case ast.BinOp(left, sign, right):
                sides = value(left), value(right)
                if sides[0] is None or sides[1] is None:
                    return None
                if isinstance(sign, ast.Div):
                    return half_away_from_zero(sides[0] / sides[1]) if sides[1] else None
                return Fraction(OPERATORS[type(sign)](*sides))
            case ast.Call(ast.Name(function), arguments):
                numbers = [number for argument in arguments if (number := value(argument)) is not None]
                if function == "coalesce":
                    return numbers[0] if numbers else None
                return {"min": min, "max": max}[function](numbers) if len(numbers) == len(arguments) else None
        raise AssertionError(node)

    return value(ast.parse(text, mode="eval").body)


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("a", A),
        ("(((a)))", A),
        ("a + b * c", Binary("+", A, Binary("*", B, C))),
        ("(a + b) * c", Binary("*", Binary("+", A, B), C)),
        ("a - b - c", Binary("-", Binary("-", A, B), C)),
        ("a / b * c", Binary("*", Binary("/", A, B), C)),
        ("a - (b - c)", Binary("-", A, Binary("-", B, C))),
        ("-a * b", Binary("*", Negation(A), B)),
        ("-(a * b)", Negation(Binary("*", A, B))),
        ("a--2", Binary("-", A, Negation(TWO))),
        ("--a", Negation(Negation(A))),
        ("min(a)", Call("min", (A,))),
        ("max (a,b , 2)", Call("max", (A, B, TWO))),
        ("coalesce(a, min(b, c))", Call("coalesce", (A, Call("min", (B, C))))),
        ("min + max * coalesce", Binary("+", Property("min"), Binary("*", Property("max"), Property("coalesce")))),
        ('min("min")', Call("min", (Property("min"),))),
        ('"input-tokens" * 2', Binary("*", Property("input-tokens"), TWO)),
        ('"a""b" + ""', Binary("+", Property('a"b'), Property(""))),
        ("größe", Property("größe")),
        ("a\u2212b \u00d7 c\u00f72", Binary("-", A, Binary("/", Binary("*", B, C), TWO))),
        (" \t\n a\u00a0", A),
        ("a + 2.50", Binary("+", A, Number(Decimal("2.5")))),
        ("a + .5e1", Binary("+", A, Number(Decimal(5)))),
        ("a + 20E-1", Binary("+", A, TWO)),
        ("a + 0.000", Binary("+", A, Number(Decimal(0)))),
    ],
)
def test_a_text_becomes_its_tree(text: str, root: Node) -> None:
    assert parse_expression(text) == Expression(root)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "a number, a property or '(' was expected, got the end"),
        ("  ", 2, "a number, a property or '(' was expected, got the end"),
        ("min(a,)", 6, "a number, a property or '(' was expected, got ')'"),
        ("a +", 3, "a number, a property or '(' was expected, got the end"),
        ("a * / b", 4, "a number, a property or '(' was expected, got '/'"),
        ("+a", 0, "a number, a property or '(' was expected, got '+'"),
        ("min()", 4, "a number, a property or '(' was expected, got ')'"),
        ("()", 1, "a number, a property or '(' was expected, got ')'"),
        ("2a", 1, "an operator was expected, got 'a'"),
        ("1e + a", 1, "an operator was expected, got 'e'"),
        ("a (b)", 0, "one of min, max, coalesce was expected before '(', got 'a'"),
        ("MIN(a)", 0, "one of min, max, coalesce was expected before '(', got 'MIN'"),
        ('a "b"', 2, 'an operator was expected, got "b"'),
        ('"min"(a)', 5, "an operator was expected, got '('"),
        ("a, b", 1, "an operator was expected, got ','"),
        ("a)", 1, "an operator or the end was expected, got ')'"),
        ("(a", 2, "an operator or ')' was expected, got the end"),
        ("(a, b)", 2, "an operator or ')' was expected, got ','"),
        ("max(a b)", 6, "an operator, ',' or ')' was expected, got 'b'"),
        ("a ** b", 3, "a number, a property or '(' was expected, got '*'"),
        ("a // b", 3, "a number, a property or '(' was expected, got '/'"),
        ("a % b", 2, "numbers, properties, + - * / and parentheses were expected, got '%'"),
        ("a; b", 1, "numbers, properties, + - * / and parentheses were expected, got ';'"),
        ("a + 1.", 5, "numbers, properties, + - * / and parentheses were expected, got '.'"),
        ("🙂", 0, "numbers, properties, + - * / and parentheses were expected, got '🙂'"),
        ("'a'", 0, "a property's name in double quotes was expected, got '"),
        ('a + "b', 4, "a closing double quote was expected, got the end"),
        ('"a" + "b""', 6, "a closing double quote was expected, got the end"),
        ("a\0", 1, "text without null characters and halves of surrogate pairs was expected"),
        ('"\ud800"', 1, "text without null characters and halves of surrogate pairs was expected"),
        ("1 + 2", 0, "at least one property was expected, got numbers only"),
        ("a + 1e65", 4, "a number of at most 64 digits, within 1e±64, was expected, got 1e65"),
        ("a + 10e64", 4, "a number of at most 64 digits, within 1e±64, was expected, got 10e64"),
        ("a + 1e-65", 4, "a number of at most 64 digits, within 1e±64, was expected, got 1e-65"),
        ("a*1e9999999999", 2, "a number of at most 64 digits, within 1e±64, was expected, got 1e9999999999"),
        ("a*" + 65 * "1", 2, "a number of at most 64 digits, within 1e±64, was expected, got " + 65 * "1"),
    ],
)
def test_what_is_no_expression_is_refused_at_its_place(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        parse_expression(text)
    assert (str(refused.value), refused.value.position) == (f"at character {position + 1}: {message}", position)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("a" * 501, 500, "at most 500 characters were expected, got 501"),
        ("(" * 10_000, 500, "at most 500 characters were expected, got 10000"),
        ("n" * 402 + 49 * "+a", 500, "at most 500 characters were expected, got 598 with normal spacing"),
        ("(" * 33 + "a" + ")" * 33, 32, "parentheses at most 32 deep were expected, got '('"),
        ("(" * 500, 32, "parentheses at most 32 deep were expected, got '('"),
        ("min(" * 100, 131, "parentheses at most 32 deep were expected, got '('"),
        ("-" * 99 + "a+b", 100, TOO_MANY),
        ("-" * 500, 100, TOO_MANY),
        (
            "max(a" + 99 * ",a" + ")",
            202,
            TOO_MANY,
        ),
    ],
)
def test_what_is_too_large_is_refused(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        parse_expression(text)
    assert (str(refused.value), refused.value.position) == (f"at character {position + 1}: {message}", position)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * 499,
        "(" * 32 + "a" + ")" * 32,
        "min(" * 32 + "a" + ")" * 32,
        "-" * 99 + "a",
        "max(a" + 98 * ",a" + ")",
        "a" + 49 * " - a",
        "a - (" * 32 + "a" + ")" * 32,
        "a*" + 64 * "1",
        "a + 9.9e64",
        "a + 1e-64",
    ],
)
def test_what_is_just_small_enough_is_calculated(text: str) -> None:
    expression = parse_expression(text)
    assert parse_expression(expression.text) == expression
    assert exactly(calculated(expression, {"a": 3})) == [by_python(text.strip(), {"a": 3})]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("((a))+(b*c)", "a + b * c"),
        ("(a+b)*-(c)", "(a + b) * -c"),
        ("a-(b-c)-(c)", "a - (b - c) - c"),
        ("(a/b)/c*(a*b)", "a / b / c * (a * b)"),
        ("-(-(a))-(-(a+b))", "--a - -(a + b)"),
        ("max( (a) ,(b+c) )", "max(a, b + c)"),
        ('"a"+"min"+"a b"+"x""y"+"2"', 'a + min + "a b" + "x""y" + "2"'),
        ("a + 1.500 + 1E3 + 1e-3 + 0e3", "a + 1.5 + 1000 + 0.001 + 0"),
        ("a + 1e19 + 1e20 + 1e64 + 1.5e-64", "a + 10000000000000000000 + 1e20 + 1e64 + 1.5e-64"),
        ("a + 0." + 63 * "1" + " + " + 64 * "7", "a + 0." + 63 * "1" + " + " + 64 * "7"),
        ("a \u2212 b", "a - b"),
    ],
)
def test_the_canonical_text_has_normal_spacing_and_few_parentheses(text: str, canonical: str) -> None:
    assert parse_expression(text).text == canonical


def test_properties_come_once_and_in_order() -> None:
    assert parse_expression('c + min(a, -"%s", c) / coalesce(b, a, 1)').properties == ("c", "a", "%s", "b")


functions = st.sampled_from(["min", "max", "coalesce"])
literals = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent).normalize(),
    st.integers(0, 10**20),
    st.integers(-40, 40),
)
names = st.one_of(st.sampled_from(["a", "b", "c"]), st.sampled_from(ODD_NAMES))
trees: st.SearchStrategy[Node] = st.recursive(
    st.one_of(names.map(Property), literals.map(Number)),
    lambda inner: st.one_of(
        inner.map(Negation),
        st.builds(Binary, st.sampled_from("+-*/"), inner, inner),
        st.builds(
            Call, st.sampled_from(["min", "max", "coalesce"]), st.lists(inner, min_size=1, max_size=3).map(tuple)
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(trees)
def test_the_canonical_text_parses_to_the_same_tree(tree: Node) -> None:
    expression = parse_expression(written(Binary("+", A, tree)))
    assert expression == Expression(Binary("+", A, tree))
    assert parse_expression(expression.text) == expression


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('ab2.e-+*/(),min"\0 \ud800🙂%{'), max_size=40))
def test_any_text_parses_or_is_refused_at_a_place_in_it(text: str) -> None:
    position, canonical = 0, None
    try:
        canonical = parse_expression(text).text
    except ExpressionError as refused:
        position = refused.position
    assert 0 <= position <= len(text)
    assert canonical is None or parse_expression(canonical) == parse_expression(text)


texts: st.SearchStrategy[str] = st.recursive(
    st.sampled_from(["a", "b", "c", "0", "2", "0.1", "7e3", "3.3e-9"]),
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner),
        inner.map("({})".format),
        inner.map("-{}".format),
        st.builds(
            "{}({})".format, st.sampled_from(["min", "max", "coalesce"]), st.lists(inner, min_size=1).map(", ".join)
        ),
    ),
    max_leaves=10,
)
numbers = st.one_of(
    st.integers(-3, 3),
    st.decimals(allow_nan=False, allow_infinity=False, places=5, min_value=-1000, max_value=1000),
    st.sampled_from(EXTREMES),
)
values = st.one_of(numbers, numbers, numbers, st.sampled_from([None, True, "5", "", [1], {"a": 1}]))
rows = st.dictionaries(st.sampled_from("abc"), values)


@pytest.mark.django_db
@tried
@given(texts, st.lists(rows, min_size=1, max_size=6))
@example("a / b", [{"a": 1, "b": 3}])
def test_the_sql_calculates_what_fractions_calculate(text: str, data: list[dict[str, Any]]) -> None:
    expression = parse_expression(f"a + {text}")
    assert exactly(calculated(expression, *data)) == [by_python(f"a + {text}", row) for row in data]


@pytest.mark.django_db
def test_what_misses_a_part_is_null_except_inside_coalesce() -> None:
    rows: list[Any] = [{"a": 5}, {"a": 5, "b": None}, {"a": 5, "b": "1"}, {"a": 5, "b": True}, {"a": 5, "b": [1]}, {}]
    for text in ("a + b", "b - a", "a * b", "a / b", "b / a", "-b", "min(a, b)", "max(b, a)", "min(b)"):
        assert calculated(text, *rows) == [None] * 6, text
    assert calculated("coalesce(b, a)", *rows) == [Decimal(5)] * 5 + [None]
    assert calculated("coalesce(a + b, 7) + min(a, 1)", *rows) == [Decimal(8)] * 5 + [None]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("a", "b", "quotient"),
    [
        (1, 0, None),
        (0, 0, None),
        (0, 5, "0"),
        (6, 3, "2"),
        (1, 3, "0." + 40 * "3"),
        (2, 3, "0." + 39 * "6" + "7"),
        (-2, 3, "-0." + 39 * "6" + "7"),
        (1, 2 * 10**40, "1e-40"),
        (-1, 2 * 10**40, "-1e-40"),
        # A hair below the half: who rounds to fewer decimals first and then again gets 1e-40.
        (1, 2 * 10**40 + 1, "0"),
        (-1, 2 * 10**40 + 1, "0"),
        (1, 2 * 10**40 - 1, "1e-40"),
        (Decimal("1e64"), Decimal("1e-64"), "1e128"),
        (Decimal("1e-64"), Decimal("1e64"), "0"),
        (Decimal("1e-20"), Decimal("3e19"), "3" + "e-40"),
    ],
)
def test_a_quotient_has_forty_decimals_half_away_from_zero(a: Any, b: Any, quotient: str | None) -> None:
    assert calculated("a / b", {"a": a, "b": b}) == [quotient and Decimal(quotient)]


@pytest.mark.django_db
@pytest.mark.parametrize("sign", "*/")
@pytest.mark.parametrize("factors", [50 * "a", 25 * "ab"])
@pytest.mark.parametrize("in_pairs", [False, True])
def test_fifty_factors_of_any_size_are_calculated(sign: str, factors: str, in_pairs: bool) -> None:
    parts = list(factors)
    while in_pairs and len(parts) > 1:  # of pairs, so that quotients divide quotients
        parts = [f"({sign.join(parts[at : at + 2])})" for at in range(0, len(parts), 2)]
    text = sign.join(parts)
    data = [{"a": a, "b": b} for a in EXTREMES[:3] for b in EXTREMES[1:]]
    assert exactly(calculated(text, *data)) == [by_python(text, row) for row in data]


@pytest.mark.django_db
def test_the_largest_values_stay_far_from_what_numeric_can_hold() -> None:
    data = {"a": LARGEST, "b": SMALLEST, "c": Decimal("1e-64")}

    def value(text: str) -> Decimal:
        return calculated(text, data)[0] or Decimal(0)

    product, decimals, quotient = (
        " * ".join(50 * ["a"]),
        " * ".join(50 * ["b"]),
        " / ".join(["a", *24 * ["(b - c)"]]),
    )
    sizes = [(number.adjusted(), number.as_tuple().exponent) for number in map(value, (product, decimals, quotient))]
    assert sizes == [(3249, 0), (-3200, -50 * 127), (64 + 24 * 127, 0)]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_can_be_a_property_s(name: str) -> None:
    expression = Expression(Binary("*", Property(name), Binary("+", Property(name), TWO)))
    assert parse_expression(expression.text) == expression
    assert calculated(expression, {name: 5}, {f"{name} ": 5}) == [Decimal(35), None]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["a", *ODD_NAMES])
def test_a_property_is_a_number_only_when_json_says_so(name: str) -> None:
    parameters = Parameters()
    number = number_of(name, parameters)
    rows: list[Any] = [{name: value} for value in (5, Decimal("-1.50"), LARGEST, "5", True, None, [5], {"a": 5})]
    assert selected(number, parameters, *rows, {}) == [Decimal(5), Decimal("-1.5"), LARGEST, *6 * [None]]


def test_each_name_and_number_is_one_parameter_and_no_text() -> None:
    parameters = Parameters()
    compiled = parse_expression('"%s" * "%s" + 7 / min("%s", 7)').compiled(parameters)
    assert list(parameters.values()) == ["%s", 7, 7]
    text = compiled.as_string(None)
    assert "%s" not in text.replace("%(", "")
    assert "7" not in text


@pytest.mark.parametrize("function", ["min", "max", "coalesce"])
def test_the_sql_grows_with_the_expression_and_no_faster(function: str) -> None:
    def length(depth: int) -> int:
        expression = parse_expression(f"{function}(a, " * depth + "a" + ")" * depth)
        return len(expression.compiled(Parameters()).as_string(None))

    assert length(30) - length(20) == length(20) - length(10)
