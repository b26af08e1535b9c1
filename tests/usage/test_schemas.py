"""Data schemas: what can serve and what cannot, and what a sender is told of its mistakes."""

import json
import socket
import string
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from customers.exactjson import loads
from usage.schemas import DIALECT, DataSchema, check_schema, properties_of, types_of

OBJECT = {"type": "object"}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who would hear it if a reference were fetched."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def one_property(schema: Any) -> dict[str, Any]:
    return {**OBJECT, "properties": {"a": schema}}


def complaint(schema: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        check_schema(schema)
    assert not isinstance(caught.value, UnicodeError)
    return str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        OBJECT,
        {"$schema": DIALECT, **OBJECT},
        {"$schema": DIALECT + "#", **OBJECT},
        one_property(True),
        one_property({"type": ["number", "null"], "minimum": Decimal("0.5"), "multipleOf": Decimal("0.01")}),
        one_property({"minimum": Decimal("1E+400"), "maximum": 10**100}),
        one_property({"enum": [1, "1", None, Decimal("0.1"), {"b": []}]}),
        one_property({"pattern": "^[a-z]+$", "format": "uuid"}),
        one_property({"$ref": "#/$defs/b"}) | {"$defs": {"b": {"type": "string"}}},
        one_property({"$ref": "#"}),
        one_property({"$ref": DIALECT}),
        {**OBJECT, "x-unknown-keyword": {"anything": [1]}},
        {**OBJECT, "minProperties": Decimal("1.0")},
        {**OBJECT, "properties": {"": {}, "a/b": {}, "~": {}, "😀": {}}},
    ],
)
def test_these_can_serve(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], 'a JSON object was expected, such as {"type": "object"}, got []'),
        (True, 'a JSON object was expected, such as {"type": "object"}, got true'),
        (None, 'a JSON object was expected, such as {"type": "object"}, got null'),
        ("x" * 200, f'a JSON object was expected, such as {{"type": "object"}}, got \'{"x" * 78}…'),
        ({}, 'at /type: "object" was expected, because data is an object, got null'),
        ({"type": ["object"]}, 'at /type: "object" was expected, because data is an object, got ["object"]'),
        ({"type": "array"}, "at /type: \"object\" was expected, because data is an object, got 'array'"),
        (
            one_property({"type": "float"}),
            (
                "at /properties/a/type: one of array, boolean, integer, null, number, object, string, or a list of "
                "them, was expected, got 'float'"
            ),
        ),
        (one_property(5), "at /properties/a: 5 is not of type 'object', 'boolean'"),
        ({**OBJECT, "required": "a"}, "at /required: 'a' is not of type 'array'"),
        ({**OBJECT, "minProperties": -1}, "at /minProperties: -1 is less than the minimum of 0"),
        (
            one_property({"multipleOf": Decimal("1E-400")}),
            "at /properties/a/multipleOf: 0.0 is less than or equal to the minimum of 0",
        ),
        ({**OBJECT, "$schema": 5}, f"at /$schema: {DIALECT} was expected, got 5"),
        ({**OBJECT, "$schema": None}, f"at /$schema: {DIALECT} was expected, got null"),
        ({**OBJECT, "$schema": {}}, f"at /$schema: {DIALECT} was expected, got {{}}"),
        (
            {**OBJECT, "$schema": "http://json-schema.org/draft-07/schema#"},
            f"at /$schema: {DIALECT} was expected, got 'http://json-schema.org/draft-07/schema#'",
        ),
        ({**OBJECT, "$ref": "#/$defs/nowhere"}, "Pointer '/$defs/nowhere' does not exist"),
    ],
)
def test_these_cannot_serve_and_the_place_is_told(schema: Any, message: str) -> None:
    assert complaint(schema) == message


@pytest.mark.parametrize("place", ["title", "$comment", "pattern", "$ref", "$id", "const"])
def test_half_a_surrogate_pair_cannot_serve(place: str) -> None:
    for schema in (
        {**OBJECT, place: "\ud800"},
        one_property({place: "\ud800"}),
        {**OBJECT, "properties": {"\ud800": {}}},
    ):
        assert complaint(schema) == "text without halves of surrogate pairs was expected"


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_a_remote_reference_is_refused_without_any_network(listener: socket.socket, keyword: str) -> None:
    home = f"http://127.0.0.1:{listener.getsockname()[1]}"
    references = [f"{home}/x.json", f"{home}/x.json#/$defs/a", "https://example.com/x.json", "file:///etc/passwd"]

    for reference in [*references, "other.json", "//host/x", "ftp://h/x"]:
        for schema in (
            {**OBJECT, keyword: reference},
            one_property({"items": {keyword: reference}}),
            {**OBJECT, "$id": f"{home}/base.json", "allOf": [{keyword: reference}]},
        ):
            message = complaint(schema)
            assert "\n" not in message
            assert "is not present in a registry" in message or "$dynamicRef is not supported" in message

    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"not": {"not": {"$ref": "#"}}}, {"if": {"$ref": "#/if"}}]
)
def test_a_schema_that_refers_to_itself_without_going_deeper_is_refused(schema: dict[str, Any]) -> None:
    assert complaint({**OBJECT, **schema}) == "a $ref leads back to itself without going deeper into the data"


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_catastrophic_pattern_is_taken_and_is_harmless(pattern: str) -> None:
    """A backtracking engine would need longer than the universe has for this text: that this ends is the test."""
    check_schema(one_property({"pattern": pattern}))

    schema = DataSchema(one_property({"pattern": pattern}))

    assert not schema.is_valid({"a": "a" * 20_000 + "!"})
    (violation,) = schema.violations({"a": "a" * 20_000 + "!"})
    assert violation.pointer == "/a"
    assert len(violation.message) <= 300


@pytest.mark.parametrize(
    "pattern", ["(?=a)a", "(?!a)b", "(?<=a)b", r"(a)\1", "(", "[z-a]", "a{2,1}", "((a{1,1000}){1,1000}){1,1000}"]
)
@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_a_pattern_that_the_linear_engine_cannot_run_is_refused(pattern: str, keyword: str) -> None:
    schema = one_property({"pattern": pattern}) if keyword == "pattern" else {**OBJECT, keyword: {pattern: {}}}

    message = complaint(schema)

    assert 'is not a "regex"' in message
    assert message.startswith(
        f"at /properties/a/pattern: {chr(34)}" if keyword == "pattern" else "at /patternProperties/"
    )
    assert "\n" not in message


def nested(depth: int, keyword: str) -> dict[str, Any]:
    schema: Any = {}
    for _ in range(depth):
        schema = (
            {"properties": {"a": schema}}
            if keyword == "properties"
            else {keyword: [schema] if keyword == "allOf" else schema}
        )
    return {**OBJECT, **schema}


@pytest.mark.parametrize("keyword", ["not", "items", "allOf", "properties", "const", "x-unknown"])
def test_a_deep_schema_is_refused_and_never_a_fault(keyword: str) -> None:
    check_schema(nested(30, keyword))

    for depth in (70, 100, 400, 5_000):
        assert complaint(nested(depth, keyword)).startswith(
            ("a schema nested at most 64 levels", "a schema of at most")
        )


def test_a_large_schema_serves_and_a_huge_one_is_refused() -> None:
    names = [
        first + second + str(digit)
        for first in string.ascii_letters
        for second in string.ascii_letters
        for digit in (1, 2)
    ]
    large = {
        **OBJECT,
        "properties": {name: {"type": "string"} for name in names[:3_800]},
        "additionalProperties": False,
    }

    check_schema(large)

    schema = DataSchema(large)
    assert schema.is_valid({names[0]: "x", names[3_799]: "y"})
    assert not schema.is_valid({names[3_799]: 1})
    assert (
        complaint({**OBJECT, "description": "é" * 60_000})
        == "a schema of at most 100000 bytes was expected, got 120034"
    )


CORPUS = [
    (one_property({"type": "number"}), ["1", "1.5", "1e3", '"1"', "true", "null", "-0", "[]"]),
    (one_property({"type": "integer"}), ["1", "1.0", "1.5", "1e3", "1e-3", "true", "-1.00"]),
    (one_property({"type": ["string", "null"]}), ['"x"', "null", "0", "false"]),
    (one_property({"minimum": 0, "exclusiveMaximum": 10}), ["0", "-0.0", "-0.5", "10", "9.5", '"x"']),
    (one_property({"multipleOf": Decimal("0.5")}), ["1", "1.5", "1.25", "0"]),
    (
        one_property({"enum": [1, "a", None, [1], {"b": 2}]}),
        ["1", "1.0", "true", '"a"', "null", "[1]", '{"b":2.0}', "2"],
    ),
    (one_property({"const": False}), ["false", "0", "null"]),
    (one_property({"minLength": 2, "maxLength": 3}), ['"a"', '"ab"', '"😀😀😀"', '"abcd"', "5"]),
    (one_property({"pattern": "^a.c"}), ['"abcd"', '"xabc"', '"a"', "1"]),
    (
        one_property({"type": "array", "items": {"type": "number"}, "minItems": 1, "uniqueItems": True}),
        ["[]", "[1]", "[1,1.0]", '["x"]', "[1,true]"],
    ),
    (one_property({"prefixItems": [{"type": "string"}], "items": False}), ['["a"]', '["a",1]', "[1]", "[]"]),
    (one_property({"contains": {"type": "number"}, "maxContains": 1}), ["[1]", "[1,2]", '["x"]']),
    (one_property({"anyOf": [{"type": "string"}, {"minimum": 5}]}), ['"x"', "6", "4", "null"]),
    (one_property({"oneOf": [{"type": "number"}, {"type": "integer"}]}), ["1.5", "1", '"x"']),
    (one_property({"not": {"type": "string"}}), ['"x"', "1"]),
    (
        one_property({"if": {"type": "number"}, "then": {"minimum": 1}, "else": {"type": "string"}}),
        ["0", "1", '"x"', "null"],
    ),
    (one_property({"$ref": "#/$defs/d"}) | {"$defs": {"d": {"type": "boolean"}}}, ["true", "0"]),
    (one_property({"$ref": "#"}), ["{}", '{"a":{}}', '{"a":1}', "1"]),
    (
        one_property({"required": ["b"], "additionalProperties": False, "properties": {"b": {}}}),
        ["{}", '{"b":1}', '{"b":1,"c":2}'],
    ),
    (
        one_property({"patternProperties": {"^x": {"type": "number"}}, "propertyNames": {"maxLength": 2}}),
        ['{"x":1}', '{"x":""}', '{"abc":1}'],
    ),
    (one_property({"dependentRequired": {"b": ["c"]}}), ['{"b":1}', '{"b":1,"c":1}', "{}"]),
    (one_property({"unevaluatedProperties": False, "allOf": [{"properties": {"b": {}}}]}), ['{"b":1}', '{"c":1}']),
    (one_property({"format": "date-time"}), ['"now"', '"2025-06-17T14:03:12Z"', "5"]),
    (one_property(False), ["1", "null"]),
]


@pytest.mark.parametrize(("schema", "values"), CORPUS)
def test_both_validators_agree(schema: dict[str, Any], values: list[str]) -> None:
    """The one that does the work, with exact numbers, and the reference implementation, with floats."""
    check_schema(schema)
    fast = DataSchema(schema)
    slow = Draft202012Validator(loads_float(schema))
    verdicts = set()

    for value in values:
        text = f'{{"a":{value}}}'
        valid = fast.is_valid(loads(text))
        assert valid is slow.is_valid(json.loads(text)), text
        assert (list(fast.violations(loads(text))) == []) is valid
        verdicts.add(valid)
    assert verdicts == {True, False} or schema["properties"]["a"] in (False, {"format": "date-time"})


@pytest.mark.parametrize(
    ("keywords", "valid", "invalid"),
    [
        ({"maximum": Decimal("0.1")}, "0.1", "0.10000000000000000000001"),
        ({"const": Decimal("0.1")}, "0.10", "0.100000000000000000001"),
        ({"multipleOf": Decimal("0.01")}, "123456789012345678.01", "1.005"),
        ({"type": "integer"}, "12345678901234567890.0", "12345678901234567890.5"),
        ({"exclusiveMinimum": 0}, "1e-64", "0"),
        ({"maximum": 9007199254740993}, "9007199254740993", "9007199254740994"),
        ({"enum": [10**20]}, "1e20", "100000000000000000001"),
    ],
)
def test_numbers_are_compared_exactly(keywords: dict[str, Any], valid: str, invalid: str) -> None:
    schema = DataSchema(one_property(keywords))

    assert schema.is_valid({"a": loads(valid)})
    assert not schema.is_valid({"a": loads(invalid)})


@pytest.mark.parametrize(
    ("schema", "data", "pointer", "message"),
    [
        (one_property({"type": "number"}), {"a": "5"}, "/a", "'5' is not of type 'number'"),
        (one_property({"type": "string"}), {"a": Decimal("0.125")}, "/a", "0.125 is not of type 'string'"),
        ({**OBJECT, "required": ["b"]}, {}, "", "'b' is required, but is missing"),
        (
            {**OBJECT, "properties": {"a": {}}, "additionalProperties": False},
            {"x": 1},
            "",
            "'x' is not in the schema, which allows no additional properties",
        ),
        (one_property(False), {"a": 1}, "/a", "1 is not in the schema, which allows nothing here"),
        (one_property({"enum": ["eu", "us"]}), {"a": "EU"}, "/a", '\'EU\' is not one of ["eu","us"]'),
        (one_property({"minimum": 0}), {"a": -1}, "/a", "-1 is less than the minimum of 0"),
        (one_property({"maximum": Decimal("0.5")}), {"a": 1}, "/a", "1 is greater than the maximum of 0.5"),
        (one_property({"minLength": 2}), {"a": "5"}, "/a", '"5" is shorter than 2 characters'),
        (
            {**OBJECT, "properties": {"a~/b": {"items": {"type": "string"}}}},
            {"a~/b": ["x", 1]},
            "/a~0~1b/1",
            "1 is not of type 'string'",
        ),
    ],
)
def test_a_violation_names_the_place_what_was_expected_and_what_came(
    schema: dict[str, Any], data: Any, pointer: str, message: str
) -> None:
    assert [(violation.pointer, violation.message) for violation in DataSchema(schema).violations(data)] == [
        (pointer, message)
    ]


def test_a_message_stays_short_whatever_came() -> None:
    for schema in (
        {"type": "number"},
        {"enum": ["x" * 5_000]},
        {"pattern": "^b"},
        {"maxLength": 3},
        {"const": "x" * 5_000},
    ):
        for violation in DataSchema(one_property(schema)).violations({"a": "a" * 100_000}):
            assert len(violation.message) <= 300


def test_properties_and_their_types() -> None:
    schema = {**OBJECT, "properties": {"a": {"type": "number"}, "b": True, "c": {"type": ["string", "null"]}, "d": {}}}

    properties = properties_of(schema)

    assert list(properties) == ["a", "b", "c", "d"]
    assert [types_of(sub) for sub in properties.values()] == [["number"], [], ["string", "null"], []]
    assert properties_of(OBJECT) == {}


def loads_float(schema: Any) -> Any:
    """The Python validator knows float, not Decimal."""
    if isinstance(schema, dict):
        return {name: loads_float(inner) for name, inner in schema.items()}
    if isinstance(schema, list):
        return [loads_float(inner) for inner in schema]
    return float(schema) if isinstance(schema, Decimal) else schema


def test_a_property_name_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ValueError, match="at /properties: names without null characters"):
        check_schema({"type": "object", "properties": {"a\0": {"type": "number"}}})
