"""One cell of a CSV file as JSON: exact numbers, booleans, texts and instants, as the schema's types ask for them.

What does not read as the type that is asked for stays a string, so that the schema's own refusal names it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from customers.zones import zone
from usage.timestamps import parse_timestamp
from usage.upload_rows import Fault

TRUE = frozenset({"true", "1", "yes"})
FALSE = frozenset({"false", "0", "no"})
DECIMALS = {".": "point", ",": "comma"}
THOUSANDS = {"": "none", ",": "comma", ".": "point", " ": "space", "'": "apostrophe"}
_SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"
_ZONED = re.compile(r"(?:[Zz]|[+-]\d\d:\d\d)\Z")
_MAX_REFERENCES = 10

encode = msgspec.json.Encoder().encode
ReadCell = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class CellFormat:
    """How numbers and instants are written: decimal sign, thousands separator, the zone of timestamps without one."""

    decimal: str = "."
    thousands: str = ""
    timezone: str = "UTC"


def number_reader(cells: CellFormat) -> Callable[[str], bytes | None]:
    """Return a function from text to a JSON number with the same digits, or None for text that is no number."""
    separators = _SPACES if cells.thousands == " " else cells.thousands
    whole = rf"\d{{1,3}}(?:[{re.escape(separators)}]\d{{3}})+|\d*" if separators else r"\d*"
    written = re.compile(rf"([+-]?)({whole})(?:{re.escape(cells.decimal)}(\d+))?(?:[eE]([+-]?\d{{1,9}}))?", re.ASCII)
    without_separators = str.maketrans("", "", separators)

    def read(text: str) -> bytes | None:
        found = written.fullmatch(text.strip())
        if found is None or not (found[2] or found[3]):
            return None
        integer = found[2].translate(without_separators).lstrip("0") or "0"
        fraction = f".{found[3]}" if found[3] else ""
        exponent = f"e{found[4]}" if found[4] else ""
        return f"{'-' if found[1] == '-' else ''}{integer}{fraction}{exponent}".encode()

    return read


def cell_reader(subschema: dict[str, Any], schema: dict[str, Any], cells: CellFormat) -> ReadCell:
    """Return a function from a cell that is not empty to JSON of a type that the subschema allows.

    Where several types are allowed, the narrowest one that the text reads as; where none is named, JSON if it is JSON.
    """
    types = _types(subschema, schema)
    number = number_reader(cells)
    anything = not types

    def read(text: str) -> bytes:
        if not types.isdisjoint({"number", "integer"}) and (digits := number(text)) is not None:
            return digits
        if "boolean" in types and (word := text.strip().lower()) in TRUE | FALSE:
            return b"true" if word in TRUE else b"false"
        if anything and (digits := number(text)) is not None and not _zero_led(text):
            return digits
        if (anything or not types.isdisjoint({"object", "array"})) and (value := _json(text, anything)) is not None:
            return value
        return encode(text)

    return read


def timestamp_reader(cells: CellFormat) -> Callable[[str], tuple[str, Fault | None]]:
    """Return a function from text to what the record shall say, and what is wrong with it in this zone if something is.

    Text with a zone, and text that is no timestamp at all, stays as it is: ingestion has its say.
    """
    if cells.timezone == "UTC":
        return lambda text: (text.strip(), None)
    place = zone(cells.timezone)

    def read(text: str) -> tuple[str, Fault | None]:
        text = text.strip()
        try:
            written = parse_timestamp(text)
        except ValueError:
            return text, None
        if _ZONED.search(text, 10):
            return text, None
        local = written.replace(tzinfo=place)
        if local.utcoffset() == local.replace(fold=1).utcoffset():
            return _in_utc(local), None
        there = local.astimezone(UTC).astimezone(place).replace(tzinfo=None) == local.replace(tzinfo=None)
        trouble = "happens twice there" if there else "does not exist there"
        message = (
            f"a timestamp with its offset was expected: {text} {trouble}, because {cells.timezone} turns its clocks"
        )
        # With the zone's name the text stays refused when it is replayed: as it was, it would be taken for UTC.
        return f"{text} {cells.timezone}", ("timestamp", "/timestamp", message)

    return read


def _in_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _types(subschema: dict[str, Any], schema: dict[str, Any]) -> frozenset[str]:
    for _ in range(_MAX_REFERENCES):
        reference = subschema.get("$ref")
        if not isinstance(reference, str):
            break
        subschema = _referred(reference, schema)
    named = subschema.get("type")
    if isinstance(named, str):
        return frozenset([named])
    if isinstance(named, list):
        return frozenset(named)
    values = [subschema["const"]] if "const" in subschema else subschema.get("enum", [])
    return frozenset(_type_of(value) for value in values)


def _referred(reference: str, schema: dict[str, Any]) -> dict[str, Any]:
    place: Any = schema if reference.startswith("#") else {}
    for step in reference[1:].split("/")[1:]:
        place = place.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(place, dict) else {}
    return place if isinstance(place, dict) else {}


def _type_of(value: Any) -> str:
    for kind, name in ((bool, "boolean"), (str, "string"), (dict, "object"), (list, "array"), (type(None), "null")):
        if isinstance(value, kind):
            return name
    return "number"


def _json(text: str, anything: bool) -> bytes | None:
    """The text itself if it is JSON of an object or an array; of true, false and null too where anything goes."""
    stripped = text.strip()
    if stripped[:1] not in ("{", "[") and not (anything and stripped in ("true", "false", "null")):
        return None
    try:
        msgspec.json.decode(stripped.encode())
    except (msgspec.DecodeError, RecursionError):
        return None
    return stripped.encode()


def _zero_led(text: str) -> bool:
    """Whether digits are rather a name, such as 007."""
    digits = text.strip().lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
