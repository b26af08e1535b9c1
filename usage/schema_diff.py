"""What differs between two schemas: property by property in words, and line by line in their JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from customers.exactjson import dumps, same_json
from usage.schemas import properties_of, types_of

MAX_LINES = 3_000
MAX_SHOWN = 120
CONTEXT = 3
# What has words of its own, or says nothing about which data is valid.
_STRUCTURE = {"type", "properties", "required", "items"}
_ANNOTATIONS = {"title", "description", "examples", "$comment", "default"}


@dataclass(frozen=True, slots=True)
class PropertyChange:
    """One property (by its path below data) or constraint that differs; `kind` is one of the five names below."""

    path: str
    kind: str
    before: str
    after: str


ADDED, REMOVED, RETYPED, CONSTRAINT, WORDING = "added", "removed", "retyped", "constraint changed", "wording changed"


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of the comparison: `mark` is "-", "+", " " or "…" for lines left out."""

    mark: str
    text: str


def property_changes(old: dict[str, Any], new: dict[str, Any]) -> list[PropertyChange]:
    """Return what a sender would notice, in the new schema's order, then what was removed."""
    return list(_changes("", old, new))


def line_diff(old: Any, new: Any) -> list[DiffLine] | None:
    """Return the differing lines of the indented JSON with some around them; None for schemas too long to compare."""
    before, after = dumps(old, indent=2).splitlines(), dumps(new, indent=2).splitlines()
    if max(len(before), len(after)) > MAX_LINES:
        return None
    lines: list[DiffLine] = []
    end = 0
    for group in SequenceMatcher(None, before, after, autojunk=True).get_grouped_opcodes(CONTEXT):
        if group[0][1] > end:
            lines.append(DiffLine("…", ""))
        for kind, i1, i2, j1, j2 in group:
            if kind == "equal":
                lines += [DiffLine(" ", text) for text in before[i1:i2]]
            else:
                lines += [DiffLine("-", text) for text in before[i1:i2]]
                lines += [DiffLine("+", text) for text in after[j1:j2]]
        end = group[-1][2]
    return [*lines, DiffLine("…", "")] if lines and end < len(before) else lines


def _changes(path: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[PropertyChange]:
    if types_of(old) != types_of(new):
        yield PropertyChange(path or "data", RETYPED, _types(old), _types(new))
    yield from _keywords(path, old, new)
    yield from _properties(path, old, new)
    if "items" in old or "items" in new:
        yield from _changes(f"{path}[]", _subschema(old.get("items")), _subschema(new.get("items")))


def _properties(path: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[PropertyChange]:
    before, after = properties_of(old), properties_of(new)
    required_before, required_after = set(old.get("required", [])), set(new.get("required", []))
    for name, subschema in after.items():
        inner = f"{path}.{name}" if path else name
        if name not in before:
            yield PropertyChange(inner, ADDED, "", _described(subschema, name in required_after))
            continue
        if (name in required_before) != (name in required_after):
            was, becomes = ("required", "optional") if name in required_before else ("optional", "required")
            yield PropertyChange(inner, CONSTRAINT, was, becomes)
        yield from _changes(inner, before[name], subschema)
    for name, subschema in before.items():
        if name not in after:
            inner = f"{path}.{name}" if path else name
            yield PropertyChange(inner, REMOVED, _described(subschema, name in required_before), "")


def _keywords(path: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[PropertyChange]:
    for keyword in [*new, *(keyword for keyword in old if keyword not in new)]:
        if keyword in _STRUCTURE or (keyword in old and keyword in new and same_json(old[keyword], new[keyword])):
            continue
        kind = WORDING if keyword in _ANNOTATIONS else CONSTRAINT
        yield PropertyChange(path or "data", kind, _shown(keyword, old), _shown(keyword, new))


def _shown(keyword: str, schema: dict[str, Any]) -> str:
    if keyword not in schema:
        return ""
    text = f"{keyword}: {dumps(schema[keyword])}"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _described(subschema: dict[str, Any], required: bool) -> str:
    return f"{_types(subschema)}, {'required' if required else 'optional'}"


def _types(schema: dict[str, Any]) -> str:
    return " or ".join(types_of(schema)) or "any type"


def _subschema(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
