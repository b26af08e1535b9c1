"""Whether a new schema takes all that an old one took: told from the schemas alone, in doubt with no."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from customers.exactjson import dumps, same_json
from usage.schemas import properties_of, types_of

Schema = dict[str, Any]

# Words for people; they refuse nothing. (Formats are not validated.)
ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format"}
ANNOTATIONS |= {"$comment", "$schema", "contentEncoding", "contentMediaType", "contentSchema"}
LOWER_BOUNDS = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
UPPER_BOUNDS = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
# A schema that holds one of these, and is not the old one to the letter, must be tried on the records.
OPAQUE = {"if", "then", "else", "unevaluatedProperties", "unevaluatedItems", "contains", "minContains", "prefixItems"}
OPAQUE |= {"$anchor", "$id", "patternProperties"}
_REFERENCE = re.compile(r'"\$(?:dynamicRef|ref)":"([^"]*)"')


def narrowings(old: Schema, new: Schema) -> list[str]:
    """Return where the new schema may refuse what the old one took, each a JSON Pointer and words; none: compatible."""
    targets = _REFERENCE.findall(dumps(new))
    elsewhere = not all(target.startswith("#/$defs/") for target in targets)
    if targets and (elsewhere or not same_json(old.get("$defs"), new.get("$defs"))) and not same_json(old, new):
        return ["/$defs: it cannot be told from the schemas alone whether what they refer to takes all that it took"]
    return list(_narrowings(old, new, ""))


def changed_properties(old: Schema, new: Schema) -> set[str]:
    """Return the properties that the new schema leaves out, or of which it does not take every type of before."""
    after = properties_of(new)
    return {
        name
        for name, subschema in properties_of(old).items()
        if name not in after or not _takes_types(types_of(subschema), types_of(after[name]))
    }


def _narrowings(old: Any, new: Any, path: str) -> Iterator[str]:
    if old is False or new is True or same_json(old, new):
        return
    if new is False:
        yield f"{path or '/'}: nothing is taken here any more"
        return
    old = {} if old is True else old
    if OPAQUE & {*old, *new} and not same_json(_rules(old), _rules(new)):
        yield f"{path or '/'}: it cannot be told from the schemas alone whether this takes all that it took"
        return
    for keyword, value in _rules(new).items():
        if keyword in ("properties", "additionalProperties", "items", "$defs"):
            continue
        if keyword not in old or not same_json(old[keyword], value):
            reason = _narrows(keyword, old.get(keyword), value)
            if reason:
                yield f"{path}/{keyword}: {reason}"
    yield from _members(old, new, path)
    if "items" in new:
        yield from _narrowings(old.get("items", True), new["items"], f"{path}/items")


def _members(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """Properties: those that a schema does not name are held to its additionalProperties."""
    before, after = old.get("properties", {}), new.get("properties", {})
    others_before, others_after = old.get("additionalProperties", True), new.get("additionalProperties", True)
    for name in (*after, *(name for name in before if name not in after)):
        place = f"{path}/properties/{name.replace('~', '~0').replace('/', '~1')}"
        yield from _narrowings(before.get(name, others_before), after.get(name, others_after), place)
    yield from _narrowings(others_before, others_after, f"{path}/additionalProperties")


def _rules(schema: Schema) -> Schema:
    return {keyword: value for keyword, value in schema.items() if keyword not in ANNOTATIONS}


def _narrows(keyword: str, old: Any, new: Any) -> str | None:
    """Say how a keyword that was not there, or differs, may refuse more than it did; None if it does not."""
    if keyword == "type":
        return None if _takes_types(types_of({"type": old or []}), types_of({"type": new})) else f"was {dumps(old)}"
    if keyword == "required":
        added = [name for name in new if name not in (old or [])]
        return f"{', '.join(added)} was not required" if added else None
    if keyword in LOWER_BOUNDS:
        return None if old is not None and Decimal(new) <= Decimal(old) else f"was {dumps(old)}"
    if keyword in UPPER_BOUNDS:
        return None if old is not None and Decimal(new) >= Decimal(old) else f"was {dumps(old)}"
    if keyword in ("enum", "anyOf"):
        kept = old is not None and all(any(same_json(value, other) for other in new) for value in old)
        return None if kept else "does not take every value of before"
    if keyword == "allOf":
        fewer = all(any(same_json(value, other) for other in old or []) for value in new)
        return None if fewer else "asks for more than before"
    if keyword == "uniqueItems":
        return "was not asked for" if new else None
    return "was not there" if old is None else "is not the same"


def _takes_types(before: list[str], after: list[str]) -> bool:
    """An empty list means any type; an integer is a number."""
    if not after:
        return True
    return bool(before) and all(name in after or (name == "integer" and "number" in after) for name in before)
