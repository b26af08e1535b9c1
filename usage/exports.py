"""Exports: records by filter as CSV or NDJSON, in chunks of bytes, however many there are."""

import csv
import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

from customers.exactjson import dumps, loads
from usage.history import moment_text
from usage.models import UsageEvent
from usage.record_filters import RecordFilter
from usage.record_queries import stream_records
from usage.record_sql import ROWS_AT_ONCE, RecordRow
from usage.record_wire import wire_record
from usage.references import batch_reference
from usage.schemas import properties_of

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
# What a spreadsheet would take for a formula at the start of a cell.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
BEFORE = ["customer_id", "timestamp", "id", "record_id"]
AFTER = ["received_at", "batch", "schema_version", "revision", "voided_at", "other_data"]


def export_records(asked: RecordFilter, kind: str, usage_event: UsageEvent | None = None) -> Iterator[bytes]:
    """Yield the records asked for, oldest first, as of one moment, as `csv` (of one usage event) or `ndjson`.

    Numbers keep every digit. In CSV, text that a spreadsheet would take for a formula gets an apostrophe before it;
    NDJSON is exact.
    """
    if kind == "ndjson":
        return _chunks(asked, _as_ndjson)
    assert usage_event is not None
    return _csv(asked, list(properties_of(usage_event.schema)))


def _csv(asked: RecordFilter, properties: list[str]) -> Iterator[bytes]:
    yield _rows([[*BEFORE, *(f"data.{name}" for name in properties), *AFTER]])
    yield from _chunks(asked, lambda rows: _rows([_cells(row, properties) for row in rows]))


def _chunks(asked: RecordFilter, write: Any) -> Iterator[bytes]:
    records = stream_records(asked)
    try:
        while rows := list(islice(records, ROWS_AT_ONCE)):
            yield write(rows)
    finally:
        records.close()  # type: ignore[attr-defined]


def _as_ndjson(rows: list[RecordRow]) -> bytes:
    return "".join(dumps(wire_record(row)) + "\n" for row in rows).encode()


def _rows(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cells(row: RecordRow, properties: list[str]) -> list[str]:
    data = loads(row.data)
    values = [_cell(data.pop(name)) if name in data else "" for name in properties]
    return [
        _text(row.customer_id),
        moment_text(row.timestamp),
        str(row.id),
        _text(row.record_id or ""),
        *values,
        moment_text(row.received_at),
        batch_reference(row.batch_id, row.received_at),
        str(row.schema_version),
        str(row.revision),
        (row.voided_at and moment_text(row.voided_at)) or "",
        dumps(data) if data else "",
    ]


def _cell(value: Any) -> str:
    return _text(value) if isinstance(value, str) else dumps(value)


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
