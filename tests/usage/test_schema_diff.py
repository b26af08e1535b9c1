"""Differences of schemas: what a sender would notice, property by property, and the lines of the JSON."""

from typing import Any

import pytest

from usage.schema_diff import line_diff, property_changes

HOURS: dict[str, Any] = {
    "type": "object",
    "properties": {"hours": {"type": "number", "minimum": 0}, "region": {"type": "string"}},
    "required": ["hours"],
    "additionalProperties": False,
}


def with_hours(**subschema: Any) -> dict[str, Any]:
    return {**HOURS, "properties": {**HOURS["properties"], "hours": subschema}}


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (HOURS, []),
        (
            {**HOURS, "properties": {**HOURS["properties"], "tier": {"type": ["string", "null"]}}},
            [("tier", "added", "", "string or null, optional")],
        ),
        (
            {**HOURS, "properties": {"hours": HOURS["properties"]["hours"]}},
            [("region", "removed", "string, optional", "")],
        ),
        (with_hours(type="string", minimum=0), [("hours", "retyped", "number", "string")]),
        (with_hours(minimum=0), [("hours", "retyped", "number", "any type")]),
        (with_hours(type="number", minimum=1), [("hours", "constraint changed", "minimum: 0", "minimum: 1")]),
        (with_hours(type="number", minimum=0.0), []),
        (with_hours(type="number"), [("hours", "constraint changed", "minimum: 0", "")]),
        (
            with_hours(type="number", minimum=0, title="Hours"),
            [("hours", "wording changed", "", 'title: "Hours"')],
        ),
        ({**HOURS, "required": []}, [("hours", "constraint changed", "required", "optional")]),
        ({**HOURS, "required": ["hours", "region"]}, [("region", "constraint changed", "optional", "required")]),
        (
            {**HOURS, "additionalProperties": True},
            [("data", "constraint changed", "additionalProperties: false", "additionalProperties: true")],
        ),
    ],
)
def test_what_a_sender_would_notice_is_told(new: dict[str, Any], expected: list[tuple[str, str, str, str]]) -> None:
    found = [(change.path, change.kind, change.before, change.after) for change in property_changes(HOURS, new)]
    assert found == expected


def test_properties_inside_properties_and_items_have_a_path() -> None:
    old = {"type": "object", "properties": {"disk": {"type": "object", "properties": {"gb": {"type": "number"}}}}}
    new = {"type": "object", "properties": {"disk": {"type": "object", "properties": {"gb": {"type": "integer"}}}}}
    assert [(change.path, change.kind) for change in property_changes(old, new)] == [("disk.gb", "retyped")]

    old = {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}}
    new = {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string", "maxLength": 5}}}}
    assert [(change.path, change.after) for change in property_changes(old, new)] == [("tags[]", "maxLength: 5")]


@pytest.mark.parametrize("odd", [True, False, {}, {"properties": {}}, {"type": []}, {"$ref": "#/properties/b"}])
def test_subschemas_of_any_shape_are_compared(odd: Any) -> None:
    plain = {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}}
    other = {"type": "object", "properties": {"a": odd, "b": {}}}
    changed = property_changes(plain, other)
    assert {change.path for change in changed} == {"a"}
    assert len(property_changes(other, plain)) == len(changed)


def test_lines_are_compared_with_some_around_them() -> None:
    many = {f"p{number:02}": {"type": "number"} for number in range(20)}
    old = {"type": "object", "properties": many}
    new = {"type": "object", "properties": {**many, "p10": {"type": "string"}}}
    found = line_diff(old, new)
    assert found is not None
    assert [(line.mark, line.text.strip()) for line in found] == [
        ("…", ""),
        (" ", '"type": "number"'),
        (" ", "},"),
        (" ", '"p10": {'),
        ("-", '"type": "number"'),
        ("+", '"type": "string"'),
        (" ", "},"),
        (" ", '"p11": {'),
        (" ", '"type": "number"'),
        ("…", ""),
    ]


def test_equal_schemas_have_no_lines_and_endless_ones_are_not_compared() -> None:
    assert line_diff(HOURS, HOURS) == []
    long = {"type": "object", "properties": {f"p{number}": {"type": "number"} for number in range(1_100)}}
    assert line_diff(HOURS, long) is None
