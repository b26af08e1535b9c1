"""The rows of an uploaded file, one after the other, each with its line; what cannot be read is a fault of its row."""

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_LINE = 1024 * 1024
KEPT_TEXT = 10_000
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}

# The limit is the process's; lines are cut at MAX_LINE before.
csv.field_size_limit(MAX_LINE + 2)

# code, JSON Pointer, message
Fault = tuple[str, str, str]
NULL_FAULT: Fault = ("null_character", "", "text without null characters was expected; they are shown as \\0")


class UnreadableFile(ValueError):
    """The file as a whole cannot be read as what it was said to be."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row begins: byte offset, and number of the line counted from 1."""

    offset: int = 0
    line: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the line that it begins in, its text, its cells if it is CSV, and what is wrong with it, if anything."""

    line: int
    text: str
    cells: list[str] | None = None
    fault: Fault | None = None


class _LineTooLong(Exception):
    pass


class _Lines:
    """The lines of a stream from a place on, as csv.reader wants them; `taken` are those of the row being read."""

    def __init__(self, stream: BinaryIO, place: Place) -> None:
        self._stream = stream
        self.taken: list[str] = []
        self._bytes = 0
        self.go_to(place)

    def go_to(self, place: Place) -> None:
        self._stream.seek(place.offset)
        self.place = place

    def begin_row(self) -> None:
        self.taken, self._bytes = [], 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_LINE + 1)
        if not raw:
            raise StopIteration
        whole = len(raw) <= MAX_LINE or raw.endswith(b"\n")
        length = len(raw) if whole else len(raw) + self._skip_rest()
        if self.place.offset == 0:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        self.place = Place(self.place.offset + length, self.place.line + 1)
        text = raw.decode() if whole else raw[:KEPT_TEXT].decode(errors="ignore")
        self._bytes += len(raw)
        self.taken.append(text)
        if self._bytes > MAX_LINE + 1 or not whole:
            raise _LineTooLong
        return text

    def _skip_rest(self) -> int:
        skipped = 0
        while part := self._stream.readline(MAX_LINE):
            skipped += len(part)
            if part.endswith(b"\n"):
                break
        return skipped


class CSVRows:
    """Iterates over the rows of CSV text (RFC 4180) from a place on; `place` is where the next row begins.

    Empty lines are passed over. After a row that cannot be read, reading goes on at the line after its first, so that
    a quotation mark that is never closed costs one row and not the rest of the file.
    """

    def __init__(self, stream: BinaryIO, delimiter: str, place: Place) -> None:
        self._lines = _Lines(stream, place)
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)

    @property
    def place(self) -> Place:
        return self._lines.place

    def __iter__(self) -> Iterator[Row]:
        while True:
            start = self.place
            self._lines.begin_row()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except _LineTooLong:
                yield self._unreadable(start, f"a row of at most {MAX_LINE} bytes was expected")
            except csv.Error as error:
                yield self._unreadable(start, f"a row of CSV was expected: {_explained(error)}")
            else:
                if cells:
                    text = "".join(self._lines.taken).rstrip("\r\n")
                    shown, fault = _without_nulls(text)
                    yield Row(start.line, shown, cells, fault)

    def _unreadable(self, start: Place, message: str) -> Row:
        text = self._lines.taken[0].rstrip("\r\n")
        if len(self._lines.taken) > 1:
            self._lines.go_to(start)
            self._lines.begin_row()
            next(self._lines)
        shown, _ = _without_nulls(text[:KEPT_TEXT])
        return Row(start.line, shown, fault=("malformed", "", message))


class LineRows:
    """Iterates over the lines of NDJSON from a place on, empty ones left out; `place` is where the next one begins."""

    def __init__(self, stream: BinaryIO, place: Place) -> None:
        self._lines = _Lines(stream, place)

    @property
    def place(self) -> Place:
        return self._lines.place

    def __iter__(self) -> Iterator[Row]:
        while True:
            start = self.place
            self._lines.begin_row()
            try:
                text = next(self._lines).rstrip("\r\n")
            except StopIteration:
                return
            except _LineTooLong:
                message = f"a line of at most {MAX_LINE} bytes was expected"
                yield Row(start.line, _without_nulls(self._lines.taken[0])[0], fault=("malformed", "", message))
                continue
            if text.strip(" \t\r"):
                shown, fault = _without_nulls(text)
                yield Row(start.line, shown, fault=fault)


def read_header(stream: BinaryIO, delimiter: str) -> tuple[list[str], Place]:
    """Return the names of the columns and where the first row begins; raises UnreadableFile.

    A column without a name is called by its number.
    """
    rows = CSVRows(stream, delimiter, Place())
    header = next(iter(rows), None)
    if header is None:
        raise UnreadableFile("a header and at least one row were expected, the file is empty")
    if header.fault is not None or header.cells is None:
        message = header.fault[2] if header.fault else "got none"
        raise UnreadableFile(f"line {header.line}: a header was expected: {message}")
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(header.cells, 1)]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise UnreadableFile(
            f"line {header.line}: columns with different names were expected, got '{twice[:60]}' twice"
        )
    return names, rows.place


def sniff_delimiter(stream: BinaryIO) -> str:
    """Return the delimiter that the first line speaks for: the most frequent one outside quotation marks."""
    stream.seek(0)
    outside = stream.readline(MAX_LINE).decode(errors="replace").split('"')[::2]
    counts = {delimiter: sum(part.count(delimiter) for part in outside) for delimiter in DELIMITERS}
    return max(counts, key=lambda delimiter: counts[delimiter])


def _without_nulls(text: str) -> tuple[str, Fault | None]:
    r"""Text that can be kept, and no JSON any more: each null character becomes a backslash and a zero."""
    return (text, None) if "\0" not in text else (text.replace("\0", "\\0"), NULL_FAULT)


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quotation mark is opened and never closed"
    if "new-line character" in text:
        return "lines that end in LF or CRLF were expected, got a CR alone"
    return text
