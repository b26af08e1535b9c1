"""What structured tables are called, and their columns: from slugs and schemas, without a database."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from usage.schemas import properties_of, types_of

NAME_BYTES = 63  # what PostgreSQL keeps of a name
MAX_PROPERTIES = 1_000  # PostgreSQL's own limit is 1,664 columns in all
DIGEST = 8

FIXED = (
    ("customer_id", "text"),
    ("timestamp", "timestamptz"),
    ("received_at", "timestamptz"),
    ("id", "bigint"),
    ("record_id", "text"),
)
# What PostgreSQL adds to its own tables; nobody shall take a property for one of those.
SYSTEM = ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid")
PREFIX = "data_"

_CUT = re.compile(f".{{{NAME_BYTES - DIGEST - 1}}}_[0-9a-f]{{{DIGEST}}}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a structured table: its PostgreSQL type, and the property that it shows (None: a fixed column)."""

    name: str
    type: str
    property: str | None = None


def table_name(slug: str) -> str:
    """Return the name of the usage event's table: the slug, or a cut one with a hash where PostgreSQL would cut it."""
    # A slug that looks like a cut one is treated as one, so that no two slugs share a table.
    return _cut(slug, slug) if len(slug) > NAME_BYTES or _CUT.fullmatch(slug) else slug


def columns_of(schema: dict[str, Any]) -> list[Column]:
    """Return the columns of a table: the fixed ones, then the schema's properties in their order.

    A property is called as it is, unless its name is empty, is one of the fixed columns or of PostgreSQL's own in any
    case (then it gets `data_` in front), or is longer than 63 bytes or taken by then (then it is cut and ends in
    a hash of the name). Names that need no change are given first. Beyond MAX_PROPERTIES, properties have no column.
    """
    properties = dict(list(properties_of(schema).items())[:MAX_PROPERTIES])
    names = _column_names(list(properties))
    fixed = [Column(name, kind) for name, kind in FIXED]
    return fixed + [Column(names[name], _type(subschema), name) for name, subschema in properties.items()]


def _column_names(properties: list[str]) -> dict[str, str]:
    reserved = {name for name, _ in FIXED} | set(SYSTEM)
    wanted = {name: PREFIX + name if name.lower() in reserved or not name else name for name in properties}
    names = {name: name for name in properties if wanted[name] == name and len(name.encode()) <= NAME_BYTES}
    for name in properties:
        if name not in names:
            names[name] = next(free for free in _candidates(wanted[name], name) if free not in names.values())
    return names


def _candidates(wanted: str, name: str) -> Iterator[str]:
    if len(wanted.encode()) <= NAME_BYTES:
        yield wanted
    salted = name
    while True:
        yield _cut(wanted, salted)
        salted += "+"


def _cut(text: str, hashed: str) -> str:
    digest = hashlib.sha256(hashed.encode()).hexdigest()[:DIGEST]
    return f"{text.encode()[: NAME_BYTES - DIGEST - 1].decode(errors='ignore')}_{digest}"


def _type(subschema: dict[str, Any]) -> str:
    match sorted(set(types_of(subschema)) - {"null"}):
        case ["string"]:
            return "text"
        case ["boolean"]:
            return "boolean"
        case ["integer"] | ["number"] | ["integer", "number"]:
            return "numeric"
        case _:
            return "jsonb"
