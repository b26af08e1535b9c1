"""Filters: what is refused and where, their words, and the SQL against an evaluation in Python."""

from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from customers.exactjson import dumps, loads
from metrics.filters import check_filters, compiled_filters, conditions, filters_in_words, properties_of_filters
from metrics.parameters import Parameters

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string"},
        "status": {"type": "integer"},
        "hours": {"type": ["number", "null"]},
        "paid": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "pair": {"type": "array", "prefixItems": [{"type": "number"}], "items": {"type": "string"}},
        "origin": {"type": "object"},
        "code": {"type": ["string", "number"]},
        "either": {"type": ["string", "array"], "items": {"type": "number"}},
        "anything": {},
        "open": True,
    },
}
ODD_NAMES = ["%s", 'a"b', "{}", "%(x)s", "größe", "🙂", "", "\\", "'", "0", "x'); --", "all", "property"]

tried = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def condition(name: str, operator: Any, value: Any) -> dict[str, Any]:
    return {"property": name, "operator": operator, "value": value}


def passed(filters: dict[str, Any], *rows: Any) -> list[Any]:
    """What PostgreSQL makes of filters, for each row of data."""
    parameters = Parameters()
    statement = sql.SQL(
        "SELECT {} FROM unnest({}::jsonb[]) WITH ORDINALITY AS record(data, number) ORDER BY number"
    ).format(compiled_filters(filters, parameters), parameters.take([dumps(row) for row in rows]))
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [answer for (answer,) in cursor.fetchall()]


def refusal(filters: Any, schema: dict[str, Any] = SCHEMA) -> str:
    with pytest.raises(ValueError, match="expected") as refused:
        check_filters(filters, schema)
    return str(refused.value)


def kind(value: Any) -> str:
    return {int: "number", Decimal: "number"}.get(type(value), type(value).__name__)


def equal(left: Any, right: Any) -> bool:
    return kind(left) == kind(right) and bool(left == right)


def passes(filters: Any, data: dict[str, Any]) -> bool:
    """Whether a record passes, by the definition of each operator."""
    if "all" in filters:
        return all(passes(member, data) for member in filters["all"])
    if "any" in filters:
        return any(passes(member, data) for member in filters["any"])
    if not filters:
        return True
    there, value = data.get(filters["property"]), filters["value"]
    comparable = kind(there) == kind(value) and kind(value) in ("number", "str")
    match filters["operator"]:
        case "eq":
            return equal(there, value)
        case "ne":
            return not equal(there, value)
        case "in":
            return any(equal(there, one) for one in value)
        case "not_in":
            return not any(equal(there, one) for one in value)
        case "gt":
            return comparable and there > value
        case "gte":
            return comparable and there >= value
        case "lt":
            return comparable and there < value
        case "lte":
            return comparable and there <= value
        case "exists":
            return (there is not None) == value
        case "contains":
            if isinstance(there, list):
                return any(equal(element, value) for element in there)
            return isinstance(there, str) and isinstance(value, str) and value in there
        case "starts_with":
            return isinstance(there, str) and there.startswith(value)
    raise AssertionError(filters)


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"all": []},
        {"any": [{"all": []}]},
        {"all": [condition("region", "eq", "eu"), condition("region", "ne", "")]},
        {"all": [condition("status", "eq", 200), condition("status", "gt", Decimal("1.5"))]},
        {"all": [condition("status", "in", list(range(100)))]},
        {"any": [condition("hours", "lte", 10**64 - 1), condition("hours", "gte", Decimal("-9.9e64"))]},
        {"any": [condition("hours", "eq", Decimal("1e-64")), condition("hours", "eq", 1.5)]},
        {"any": [condition("paid", "eq", True), condition("paid", "not_in", [False])]},
        {"all": [condition("tags", "contains", "a"), condition("tags", "exists", True)]},
        {"all": [condition("pair", "contains", 1), condition("pair", "contains", "x")]},
        {"all": [condition("either", "contains", 1), condition("either", "contains", "x")]},
        {"all": [condition("origin", "exists", False)]},
        {"all": [condition("code", "gt", "x"), condition("code", "gt", 1), condition("code", "starts_with", "x")]},
        {"all": [condition("code", "in", ["x", 1]), condition("code", "contains", "x" * 1000)]},
        {"all": [condition("anything", "in", ["x", 1, False]), condition("anything", "contains", True)]},
        {"all": [condition("open", "lt", 5), condition("open", "starts_with", "🙂")]},
        {"all": [condition("region", "eq", "eu")] * 50},
        {"all": [{"any": [{"all": [{"any": [{"all": [condition("region", "eq", "eu")]}]}]}]}]},
    ],
)
def test_what_fits_the_schema_is_accepted(filters: dict[str, Any]) -> None:
    check_filters(filters, SCHEMA)


NAMES = ", ".join(f"'{name}'" for name in SCHEMA["properties"])
PROPERTY = "a property of the usage event's schema was expected"
OPERATOR = "one of eq, ne, in, not_in, gt, gte, lt, lte, exists, contains, starts_with was expected"
FITTING = "an operator for a property of type"
MEMBERS = "property, operator and value were expected"
LIST = "a list of 1 to 100 values was expected"
NULL = "got null; exists tells what is null or missing"
SOME = "at least one condition was expected, because no record would pass"
NUMBER = "a number of at most 64 digits, within 1e±64, was expected"
GROUP = 'an object with one member, "all" or "any", was expected'
UNSTORABLE = "text without null characters and halves of surrogate pairs was expected"


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([], f"{GROUP}, got a list of 0"),
        (None, f"{GROUP}, got null"),
        ("all", f"{GROUP}, got 'all'"),
        (condition("region", "eq", "eu"), f"{GROUP}, got an object of 3"),
        ({"all": [], "any": []}, f"{GROUP}, got an object of 2"),
        ({"not": []}, f"{GROUP}, got an object of 1"),
        ({"all": {}}, "at all: a list of conditions was expected, got an object of 0"),
        ({"all": None}, "at all: a list of conditions was expected, got null"),
        ({"any": []}, f"at any: {SOME}, got a list of 0"),
        (
            {"all": [{"any": []}]},
            f"at all[0].any: {SOME}, got a list of 0",
        ),
        ({"all": [5]}, "at all[0]: a condition or a group was expected, got 5"),
        ({"all": [True]}, "at all[0]: a condition or a group was expected, got true"),
        ({"all": [{}]}, "at all[0]: a condition or a group was expected, got an object of 0"),
        ({"all": [{"all": [], "property": "region"}]}, f"at all[0]: {GROUP}, got an object of 2"),
    ],
)
def test_what_is_no_group_is_refused_at_its_place(filters: Any, message: str) -> None:
    assert refusal(filters) == message


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            {"property": "region", "operator": "eq"},
            f".value: {MEMBERS}, this is missing",
        ),
        ({"value": 1}, f".property: {MEMBERS}, this is missing"),
        ({**condition("region", "eq", "x"), "not": 1}, f": {MEMBERS}, got 'not'"),
        (
            condition("regoin", "eq", "x"),
            f".property: {PROPERTY} ({NAMES}), got 'regoin'",
        ),
        (
            condition("region", "equals", "x"),
            f".operator: {OPERATOR}, got 'equals'",
        ),
        (
            condition("region", None, "x"),
            f".operator: {OPERATOR}, got null",
        ),
        (
            condition("region", ["eq"], "x"),
            f".operator: {OPERATOR}, got a list of 1",
        ),
        (condition("region", "eq", None), f".value: text was expected, {NULL}"),
        (condition("region", "eq", 5), ".value: text was expected, got 5"),
        (condition("region", "eq", ["x"]), ".value: text was expected, got a list of 1"),
        (condition("region", "in", "x"), f".value: {LIST}, got 'x'"),
        (condition("region", "in", []), f".value: {LIST}, got a list of 0"),
        (
            condition("region", "not_in", ["x"] * 101),
            f".value: {LIST}, got a list of 101",
        ),
        (
            condition("region", "in", ["x", None]),
            f".value[1]: text was expected, {NULL}",
        ),
        (condition("region", "in", ["x", 1]), ".value[1]: text was expected, got 1"),
        (condition("status", "eq", "200"), ".value: a number was expected, got '200'"),
        (condition("status", "eq", True), ".value: a number was expected, got true"),
        (condition("hours", "gt", "1"), ".value: a number was expected, got '1'"),
        (condition("paid", "eq", 1), ".value: true or false was expected, got 1"),
        (condition("paid", "gt", True), f".operator: {FITTING} boolean was expected, got 'gt'"),
        (condition("code", "gt", True), ".value: text or a number was expected, got true"),
        (condition("anything", "gt", False), ".value: text or a number was expected, got false"),
        (
            condition("status", "contains", 2),
            f".operator: {FITTING} integer was expected, got 'contains'",
        ),
        (
            condition("hours", "starts_with", "2"),
            f".operator: {FITTING} number or null was expected, got 'starts_with'",
        ),
        (condition("tags", "eq", "x"), f".operator: {FITTING} array was expected, got 'eq'"),
        (condition("tags", "contains", 5), ".value: text was expected, got 5"),
        (condition("either", "contains", True), ".value: text or a number was expected, got true"),
        (condition("origin", "ne", "x"), f".operator: {FITTING} object was expected, got 'ne'"),
        (condition("region", "exists", "true"), ".value: true or false was expected, got 'true'"),
        (condition("region", "exists", None), ".value: true or false was expected, got null"),
        (condition("region", "exists", 1), ".value: true or false was expected, got 1"),
        (condition("region", "eq", "x" * 1001), ".value: text of at most 1000 characters was expected, got 1001"),
        (condition("region", "eq", "x\0"), f".value: {UNSTORABLE}"),
        (condition("region", "in", ["x", "\udc00"]), f".value[1]: {UNSTORABLE}"),
        (condition("hours", "eq", 10**64), f".value: {NUMBER}, got 1{64 * '0'}"),
        (condition("hours", "eq", 10**5000), f".value: {NUMBER}, got an absurdly long one"),
        (condition("hours", "eq", Decimal("1e65")), f".value: {NUMBER}, got 1E+65"),
        (condition("hours", "eq", Decimal("1e-65")), f".value: {NUMBER}, got 1E-65"),
        (condition("hours", "eq", Decimal("0." + 65 * "1")), f".value: {NUMBER}, got 0.{65 * '1'}"),
        (condition("hours", "eq", Decimal("NaN")), f".value: {NUMBER}, got NaN"),
        (condition("hours", "eq", float("inf")), f".value: {NUMBER}, got inf"),
    ],
)
def test_what_is_no_condition_is_refused_at_its_place(broken: Any, message: str) -> None:
    right = condition("region", "eq", "eu")
    assert refusal({"all": [right, {"any": [broken]}]}) == f"at all[1].any[0]{message}"


def test_what_is_too_much_is_refused() -> None:
    right = condition("region", "eq", "eu")
    deep: Any = {"all": [right]}
    for _ in range(2_000):
        deep = {"all": [deep]}
    place = ".".join(["all[0]"] * 5)
    assert refusal(deep) == f"at {place}: groups nested at most 5 deep were expected"
    assert refusal({"all": [{"all": [right]}] + [right] * 50}) == "at all[50]: at most 50 conditions were expected"
    assert refusal({"all": [{"all": []}] * 50}) == "at all[49]: at most 50 groups were expected"
    long_list: Any = []
    for _ in range(2_000):
        long_list = [long_list]
    assert (
        refusal({"all": [condition("region", "eq", long_list)]})
        == "at all[0].value: text was expected, got a list of 1"
    )


def test_a_schema_without_properties_has_none_to_filter_by() -> None:
    expected = f"at all[0].property: {PROPERTY} (none is there), got 'x'"
    assert refusal({"all": [condition("x", "eq", 1)]}, {"type": "object"}) == expected
    many = {"type": "object", "properties": {f"p{number}": {} for number in range(30)}}
    shown = ", ".join(f"'p{number}'" for number in range(20))
    expected = f"at all[0].property: {PROPERTY} ({shown}, …), got 'x'"
    assert refusal({"all": [condition("x", "eq", 1)]}, many) == expected


def test_conditions_are_found_in_every_group() -> None:
    inner = [condition(name, "exists", True) for name in ("b", "c", "b")]
    filters = {"all": [condition("a", "eq", 1), {"any": [inner[0], {"all": inner[1:]}]}]}
    assert list(conditions(filters)) == [condition("a", "eq", 1), *inner]
    assert properties_of_filters(filters) == {"a", "b", "c"}
    assert (list(conditions({})), properties_of_filters({"all": []})) == ([], set())


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({}, ""),
        ({"all": [{"all": []}]}, ""),
        ({"all": [condition("region", "eq", "eu")]}, "region is “eu”"),
        (
            {
                "all": [
                    condition("region", "eq", "eu"),
                    {"any": [condition("status", "gte", 500), condition("endpoint", "starts_with", "/v1")]},
                ]
            },
            "region is “eu” and (status ≥ 500 or endpoint starts with “/v1”)",
        ),
        (
            {"any": [{"all": [condition("a", "gt", 1)]}, {"all": [condition("b", "lt", 2), condition("c", "ne", "")]}]},
            "a > 1 or (b < 2 and c is not “”)",
        ),
        (
            {
                "all": [
                    {"all": [condition("a", "exists", True), condition("b", "exists", False)]},
                    condition("c", "lt", 1),
                ]
            },
            "a is there and b is missing and c < 1",
        ),
        ({"all": [condition("a", "lte", 1), condition("b", "gte", 2)]}, "a ≤ 1 and b ≥ 2"),
        ({"all": [{"any": [condition("a", "eq", True), condition("a", "eq", False)]}]}, "a is true or a is false"),
        ({"any": [{"all": []}, condition("a", "contains", "x")]}, "always or a contains “x”"),
        ({"all": [condition("a-b", "in", [1, Decimal("1.50"), "x"])]}, '"a-b" is one of 1, 1.50, “x”'),
        ({"all": [condition('a"b', "not_in", [Decimal("1e64")])]}, '"a""b" is none of 1E+64'),
    ],
)
def test_filters_are_told_in_words(filters: dict[str, Any], words: str) -> None:
    assert filters_in_words(filters) == words


VALUES: list[Any] = [
    1, Decimal("1.0"), 2, Decimal("-0.5"), "1", "", "a", "ab", "B", "é", "🙂", "\uffff", "%", "_", True, False, None,
    [], ["a"], [1, "ab"], [["a"]], [None, True], {}, {"a": 1}, [{"a": "a"}],
]  # fmt: skip
SCALARS = [value for value in VALUES if isinstance(value, int | Decimal | str)]


@pytest.mark.django_db
@pytest.mark.parametrize("operator", ["eq", "ne", "in", "not_in", "gt", "gte", "lt", "lte", "contains", "starts_with"])
def test_every_operator_on_every_pair_of_values(operator: str) -> None:
    rows = [{"x": value} for value in VALUES] + [{}]
    answers = []
    for value in SCALARS:
        is_text = isinstance(value, str)
        if (operator == "starts_with" and not is_text) or (operator[:2] in ("gt", "lt") and isinstance(value, bool)):
            continue
        wanted = condition("x", operator, [value, "a"] if operator.endswith("in") else value)
        answers = passed({"all": [wanted]}, *rows)
        assert answers == [passes(wanted, row) for row in rows], value
    assert {True, False} >= set(answers)


@pytest.mark.django_db
def test_exists_tells_missing_and_null_from_the_rest() -> None:
    rows = [{}, {"x": None}, {"x": False}, {"x": 0}, {"x": ""}, {"x": []}, {"x": {}}, {"y": 1}]
    assert passed({"all": [condition("x", "exists", True)]}, *rows) == [False, False, *5 * [True], False]
    assert passed({"all": [condition("x", "exists", False)]}, *rows) == [True, True, *5 * [False], True]


@pytest.mark.django_db
def test_text_is_in_the_order_of_code_points() -> None:
    texts = ["", "B", "Z", "a", "aB", "ab", "z", "é", "\ue000", "\uffff", "🙂"]
    rows = [{"x": text} for text in texts]
    for place, text in enumerate(texts):
        filters = {"all": [condition("x", "lt", text)]}
        assert passed(filters, *rows) == [True] * place + [False] * (len(texts) - place)
        # And not only because this database happens to be in that order itself.
        assert 'COLLATE "C" <' in compiled_filters(filters, Parameters()).as_string(None)


@pytest.mark.django_db
def test_text_is_looked_for_as_it_is_and_not_as_a_pattern() -> None:
    rows = [{"x": text} for text in ("100%", "100", "a_b", "axb", "a\\b", ".*", "A_B")]
    assert passed({"all": [condition("x", "contains", "%")]}, *rows) == [True, *6 * [False]]
    assert passed({"all": [condition("x", "contains", "_")]}, *rows) == [False, False, True, False, False, False, True]
    assert passed({"all": [condition("x", "starts_with", "a\\")]}, *rows) == [*4 * [False], True, False, False]
    assert passed({"all": [condition("x", "starts_with", ".")]}, *rows) == [*5 * [False], True, False]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("there", "given"), [("1.0", "1"), ("1", "1.000"), ("100", "1e2"), ("0.1", "1e-1"), ("-0", "0"), ("1e64", "1E+64")]
)
def test_numbers_are_equal_however_they_are_written(there: str, given: str) -> None:
    filters = loads(dumps({"all": [condition("x", "eq", loads(given)), condition("x", "gte", loads(given))]}))
    assert passed(filters, loads(f'{{"x": {there}}}'), {"x": there}) == [True, False]


@pytest.mark.django_db
def test_the_largest_and_the_smallest_numbers_are_compared() -> None:
    sizes = ["9." + 63 * "9" + "e64", "1." + 62 * "0" + "1e-64"]
    extremes = [Decimal(sign + size) for sign in ("", "-") for size in sizes]
    rows = [{"x": value} for value in [*extremes, 0]]
    for value in extremes:
        check_filters({"all": [condition("anything", "eq", value)]}, SCHEMA)
        for operator in ("eq", "gt", "lte"):
            wanted = condition("x", operator, value)
            assert passed({"all": [wanted]}, *rows) == [passes(wanted, row) for row in rows]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_and_values_never_become_sql(name: str) -> None:
    for operator in ("eq", "contains", "starts_with", "gte"):
        filters = {"all": [condition(name, operator, name)]}
        check_filters(filters, {"type": "object", "properties": {name: {"type": "string"}}})
        assert passed(filters, {name: name}, {name: "\t"}, {}) == [True, name == "" and operator != "eq", False]
    parameters = Parameters()
    text = compiled_filters({"all": [condition("%s", "in", ["'%s'", "{}"])]}, parameters).as_string(None)
    assert "%s" not in text.replace("%(", "")
    assert list(parameters.values()) == ["%s", ["\"'%s'\"", '"{}"']]


@pytest.mark.django_db
def test_groups_of_groups() -> None:
    yes, no = condition("x", "eq", 1), condition("x", "eq", 2)
    table: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"all": []}, True),
        ({"all": [yes, no]}, False),
        ({"any": [no, yes]}, True),
        ({"any": [no, {"all": []}]}, True),
        ({"all": [yes, {"any": [no, {"all": [yes, {"any": [no, no]}]}]}]}, False),
        ({"all": [{"any": [yes, no]}, {"any": [no, yes]}]}, True),
        ({"any": [{"all": [no, yes]}, no]}, False),
    ]
    for filters, answer in table:
        assert passed(filters, {"x": 1}) == [answer], filters


scalars = st.one_of(st.sampled_from(SCALARS), st.text("aB%é🙂", max_size=2))
names = st.sampled_from(["x", "y", "%s"])
orders = st.sampled_from(["gt", "gte", "lt", "lte"])
leaves = st.one_of(
    st.builds(condition, names, st.sampled_from(["eq", "ne", "contains"]), scalars),
    st.builds(condition, names, st.sampled_from(["in", "not_in"]), st.lists(scalars, min_size=1, max_size=4)),
    st.builds(condition, names, orders, scalars.filter(lambda value: not isinstance(value, bool))),
    st.builds(condition, names, st.just("starts_with"), scalars.filter(lambda value: isinstance(value, str))),
    st.builds(condition, names, st.just("exists"), st.booleans()),
)


filters_of_any_shape = st.recursive(
    leaves,
    lambda members: st.one_of(
        st.builds(lambda of: {"all": of}, st.lists(members, max_size=3)),
        st.builds(lambda of: {"any": of}, st.lists(members, min_size=1, max_size=3)),
    ),
    max_leaves=5,
).map(lambda member: {"all": [member]})
anything = st.one_of(st.sampled_from(VALUES), scalars, st.lists(scalars, max_size=3))


@pytest.mark.django_db
@tried
@given(filters_of_any_shape, st.lists(st.dictionaries(names, anything), min_size=1, max_size=6))
def test_the_sql_lets_pass_what_the_definition_lets_pass(filters: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    assert passed(filters, *rows) == [passes(filters, row) for row in rows]
    for leaf in conditions(filters):
        check_filters({"all": [leaf]}, {"type": "object", "properties": {"x": {}, "y": {}, "%s": {}}})
