"""A stretch of an upload's rows as a submission to ingestion, bounded in rows and bytes."""

from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from usage.bodies import Submission
from usage.envelopes import Problem
from usage.upload_cells import CellFormat
from usage.upload_mapping import RowMapper
from usage.upload_models import Upload
from usage.upload_rows import CSVRows, Fault, LineRows, Place, Row, read_header

CHUNK_ROWS = 5_000
CHUNK_BYTES = 8 * 1024 * 1024

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows, the submission made of them (one record a row, in their order), and the place after them."""

    rows: list[Row]
    submission: Submission
    end: Place
    last: bool


class UploadReader:
    """Reads an upload's file in chunks from a place on."""

    def __init__(self, upload: Upload, schema: dict[str, object], stream: BinaryIO, place: Place) -> None:
        """Raises UnreadableFile, MappingError, KeyError for a file or a mapping that was never accepted."""
        self._prefix = upload.key_prefix
        self._mapper: RowMapper | None = None
        self._rows: CSVRows | LineRows
        if upload.format == Upload.Format.CSV:
            columns, first = read_header(stream, upload.delimiter)
            cells = CellFormat(upload.decimal, upload.thousands, upload.timezone)
            self._mapper = RowMapper(columns, upload.mapping, schema, cells, self._prefix)
            self._rows = CSVRows(stream, upload.delimiter, place if place.offset else first)
        else:
            self._rows = LineRows(stream, place)
        self._iterator = iter(self._rows)

    def chunk(self) -> Chunk:
        """Return the next rows; empty at the end of the file."""
        rows: list[Row] = []
        texts: list[bytes] = []
        faults: dict[int, Fault] = {}
        size, last = 0, False
        while len(rows) < CHUNK_ROWS and size < CHUNK_BYTES:
            row = next(self._iterator, None)
            if row is None:
                last = True
                break
            text, fault = self._mapper.record(row) if self._mapper else _with_id(row, self._prefix)
            if fault is not None:
                faults[len(rows)] = fault
            rows.append(row)
            texts.append(text)
            size += len(row.text) + len(text)
        submission = Submission(b"\n".join(texts), list(map(msgspec.Raw, texts)), faults=faults)
        return Chunk(rows, submission, self._rows.place, last)

    def error_row(self, chunk: Chunk, problem: Problem) -> tuple[int, str, str, str, str]:
        """Return a refusal as a row of the error file: line, code, column, message, the row's own text."""
        row = chunk.rows[problem.index]
        message = problem.message
        if problem.code == "duplicate_in_batch":
            first = chunk.rows[int(message.split()[1])].line
            message = f"line {first} of this file has the same id and other content"
        column = self._mapper.column_at(problem.pointer, message) if self._mapper else problem.pointer
        return row.line, problem.code, column, message, row.text


def _with_id(row: Row, prefix: str) -> tuple[bytes, Fault | None]:
    """A line of NDJSON; one without an id gets its line's."""
    text = row.text.encode()
    if row.fault is not None:
        return text, row.fault
    try:
        fields = _object.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text, None
    if bytes(fields.get("id", b"null")) != b"null":
        return text, None
    return msgspec.json.encode({**fields, "id": f"{prefix}{row.line}"}), None
