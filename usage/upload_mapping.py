"""From the columns of a CSV file to the fields of a record: suggested by name, checked, and applied row by row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from usage.schemas import properties_of, types_of
from usage.upload_cells import CellFormat, ReadCell, cell_reader, encode, timestamp_reader
from usage.upload_rows import Fault, Row

REQUIRED = ("customer_id", "timestamp")
ROOT = (*REQUIRED, "id")
DATA = "data."
# How other systems call the root fields, without case and punctuation.
SYNONYMS = {
    "customer_id": {"customerid", "customer", "customernumber", "custid", "externalid", "externalcustomerid"},
    "timestamp": {"timestamp", "time", "datetime", "date", "ts", "eventtime", "usagetime", "occurredat"},
    "id": {"id", "recordid", "eventid", "idempotencykey", "uuid"},
}
_MISSING = re.compile(r"'(.*)' is required, but is missing", re.DOTALL)


class MappingError(ValueError):
    """The columns cannot be read in this way; the message names the column."""


def targets_of(schema: dict[str, Any]) -> list[str]:
    """Return what a column can be mapped to: the root fields, and `data.<property>` for each property."""
    return [*ROOT, *(DATA + name for name in properties_of(schema))]


def suggest_mapping(columns: list[str], schema: dict[str, Any]) -> dict[str, str | None]:
    """Return a mapping of the columns whose names speak for themselves; the others are left for somebody to decide."""
    found: dict[str, str | None] = {}
    free = dict.fromkeys(targets_of(schema))
    for rule in (_same, _alike, _synonym):
        for column in columns:
            target = next((target for target in free if rule(column, target)), None) if column not in found else None
            if target is not None:
                found[column] = target
                del free[target]
    return {column: found[column] for column in columns if column in found}


def check_mapping(mapping: Mapping[str, Any], columns: list[str], schema: dict[str, Any]) -> None:
    """Raise MappingError unless each column has a target or None, no target comes twice, and the required ones come."""
    unknown = next((column for column in mapping if column not in columns), None)
    if unknown is not None:
        raise MappingError(f"the columns of the file were expected ({_listed(columns)}), got {_quoted(unknown)}")
    undecided = [column for column in columns if column not in mapping]
    if undecided:
        raise MappingError(
            f"a field or null (leave out) was expected for each column, got none for {_listed(undecided)}"
        )
    taken: dict[str, str] = {}
    for column, target in mapping.items():
        if target is None:
            continue
        if not isinstance(target, str) or not _allowed(target, schema):
            expected = _listed(targets_of(schema))
            raise MappingError(
                f"column {_quoted(column)}: one of {expected} or null was expected, got {_quoted(target)}"
            )
        if target in taken:
            raise MappingError(f"each field once was expected, got {target!r} for {_listed([taken[target], column])}")
        taken[target] = column
    missing = [name for name in REQUIRED if name not in taken]
    if missing:
        raise MappingError(f"columns for {_listed(list(REQUIRED))} were expected, got none for {_listed(missing)}")


@dataclass(frozen=True, slots=True)
class _Member:
    index: int
    name: bytes
    read: ReadCell
    null_if_empty: bool


class RowMapper:
    """Makes records of the rows of one file, and tells which column a refusal speaks of."""

    def __init__(
        self,
        columns: list[str],
        mapping: Mapping[str, str | None],
        schema: dict[str, Any],
        cells: CellFormat,
        key_prefix: str,
    ) -> None:
        self._width = len(columns)
        self._prefix = key_prefix
        self._column_of = {target: column for column, target in mapping.items() if target is not None}
        index = {target: columns.index(column) for target, column in self._column_of.items()}
        self._customer, self._timestamp, self._id = index["customer_id"], index["timestamp"], index.get("id")
        self._moment = timestamp_reader(cells)
        self._members = [
            _member(target.removeprefix(DATA), place, schema, cells)
            for target, place in index.items()
            if target.startswith(DATA)
        ]

    def record(self, row: Row) -> tuple[bytes, Fault | None]:
        """Return the record's JSON text, and the fault if the row has one; its own text where no record can be made."""
        cells = row.cells
        if row.fault is not None or cells is None:
            return row.text.encode(), row.fault
        if len(cells) != self._width:
            few = "few" if len(cells) < self._width else "many"
            message = f"{self._width} cells were expected, as the header has, got too {few}: {len(cells)}"
            return row.text.encode(), ("malformed", "", message)
        timestamp, fault = self._moment(cells[self._timestamp])
        key = (cells[self._id].strip() if self._id is not None else "") or f"{self._prefix}{row.line}"
        data = b",".join(
            member.name + (member.read(text) if text else b"null")
            for member in self._members
            if (text := cells[member.index]) or member.null_if_empty
        )
        customer = cells[self._customer].strip()
        record = b'{"customer_id":%b,"timestamp":%b,"data":{%b},"id":%b}' % (
            encode(customer), encode(timestamp), data, encode(key),
        )  # fmt: skip
        return record, fault

    def column_at(self, pointer: str, message: str) -> str:
        """Return the column that a refusal speaks of; empty where it speaks of the row as a whole."""
        missing = _MISSING.fullmatch(message) if pointer == "/data" else None
        if missing:
            return self._column_of.get(DATA + missing[1], "")
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        if steps[:1] == ["data"]:
            return self._column_of.get(DATA + steps[1], "") if len(steps) > 1 else ""
        return self._column_of.get(steps[0], "") if steps else ""


def _member(name: str, place: int, schema: dict[str, Any], cells: CellFormat) -> _Member:
    known = properties_of(schema)
    rest = schema.get("additionalProperties")
    subschema = known[name] if name in known else rest if isinstance(rest, dict) else {}
    nullable = name in schema.get("required", []) and "null" in types_of(subschema)
    return _Member(place, encode(name) + b":", cell_reader(subschema, schema, cells), nullable)


def _allowed(target: str, schema: dict[str, Any]) -> bool:
    if "\0" in target or any("\ud800" <= sign <= "\udfff" for sign in target):
        return False  # cannot be stored
    if target in targets_of(schema):
        return True
    return target.startswith(DATA) and len(target) > len(DATA) and schema.get("additionalProperties") is not False


def _same(column: str, target: str) -> bool:
    return column in (target, target.removeprefix(DATA))


def _alike(column: str, target: str) -> bool:
    return _plain(column) in (_plain(target), _plain(target.removeprefix(DATA))) and bool(_plain(column))


def _synonym(column: str, target: str) -> bool:
    return _plain(column) in SYNONYMS.get(target, ())


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _quoted(value: Any) -> str:
    return repr(value)[:80]


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
