"""Schemas whose references multiply or never end are refused before a record meets them."""

from typing import Any

import pytest

from usage.schema_cost import MAX_LOOKS, TooCostly, check_cost
from usage.schemas import DataSchema, check_schema

OBJECT = {"type": "object"}


def reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def doubling(levels: int, keyword: str = "allOf") -> dict[str, Any]:
    """2 ** levels looks at one value."""
    parts = {f"a{level}": {keyword: [reference(f"a{level + 1}")] * 2} for level in range(levels)}
    return {**OBJECT, **reference("a0"), "$defs": {**parts, f"a{levels}": {}}}


@pytest.mark.parametrize(
    "schema",
    [
        {**OBJECT, "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {**OBJECT, "properties": {"children": {"items": {"$ref": "#"}}}},
        {**OBJECT, "additionalProperties": {"anyOf": [{"type": "number"}, {"$ref": "#"}]}},
        {
            **OBJECT,
            "$defs": {"money": {"type": "number"}},
            "properties": {f"p{n}": reference("money") for n in range(999)},
        },
        {**OBJECT, "properties": {"$ref": {"type": "string"}, "a/b": {"$ref": "#/properties/$ref"}}},
        {
            **OBJECT,
            "properties": {
                "a/b": {},
                "c": {"$ref": "#/properties/a~1b"},
                "é": {},
                "d": {"$ref": "#/properties/%C3%A9"},
            },
        },
        {**OBJECT, "prefixItems": [{}], "properties": {"c": {"$ref": "#/prefixItems/0"}}},
        doubling(11),
    ],
)
def test_what_ends_in_time_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema)

    assert DataSchema(schema).is_valid({}) is True


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_looks_that_double_are_refused(keyword: str) -> None:
    message = f"at most {MAX_LOOKS} looks at one value were expected; its \\$ref multiply"

    for levels in (13, 40, 400):
        with pytest.raises(ValueError, match=message):
            check_schema(doubling(levels, keyword))


def test_looks_that_double_with_every_level_of_the_data_are_refused() -> None:
    """Each level is innocent; together they look 2 ** 64 times."""
    inner = {"properties": {"x": reference("a")}}
    for part in (
        {"allOf": [inner, inner]},
        {**inner, "patternProperties": {"^x": reference("a")}},
        {**inner, "not": inner},
    ):
        schema = {**OBJECT, **reference("a"), "$defs": {"a": part}}

        with pytest.raises(TooCostly, match="looks at one value"):
            check_cost(schema)


def test_a_loop_without_going_deeper_is_refused() -> None:
    for parts in (
        {"a": reference("b"), "b": reference("a")},
        {"a": {"allOf": [{"if": reference("b")}]}, "b": {"dependentSchemas": {"x": reference("a")}}},
    ):
        with pytest.raises(TooCostly, match="leads back to itself"):
            check_cost({**OBJECT, **reference("a"), "$defs": parts})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "#name", "$defs": {"x": {"$anchor": "name"}}}, "a place in this schema such as '#/\\$defs/name'"),
        ({"$id": "http://x/y", "$ref": "http://x/y#/$defs/a", "$defs": {"a": {}}}, "got 'http://x/y#/\\$defs/a'"),
        ({"$dynamicRef": "#"}, "\\$dynamicRef is not supported; use \\$ref"),
    ],
)
def test_references_that_cannot_be_followed_here_are_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schema({**OBJECT, **schema})


def test_the_largest_schemas_are_judged() -> None:
    chain = {f"a{level}": reference(f"a{level + 1}") for level in range(2_500)}
    check_cost({**OBJECT, **reference("a0"), "$defs": {**chain, "a2500": {}}})

    with pytest.raises(ValueError, match="a schema of at most 100000 bytes was expected, got 1000"):
        check_schema({**OBJECT, "description": "x" * 1_000_000})
