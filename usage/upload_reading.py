"""How an upload's file is to be read: chosen or taken from the file, checked against its beginning, and previewed."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from customers.zones import zone
from usage import upload_files as files
from usage.upload_cells import DECIMALS, THOUSANDS
from usage.upload_mapping import MappingError, check_mapping, suggest_mapping
from usage.upload_models import Upload
from usage.upload_rows import (
    DELIMITERS,
    CSVRows,
    LineRows,
    Place,
    Row,
    UnreadableFile,
    read_header,
    sniff_delimiter,
)

PREVIEW_ROWS = 20
MAX_COLUMNS = 500


class UploadRefused(ValueError):
    """The upload cannot be staged or read like this; `field` names what has to be changed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read. None keeps what was chosen before, or takes what the file suggests."""

    delimiter: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    timezone: str | None = None
    mapping: Mapping[str, Any] | None = None


AS_IT_SAYS = Reading()


def read_as(upload: Upload, reading: Reading) -> None:
    """Set how the file is read, and read its beginning in that way; raises UploadRefused. Saves nothing."""
    for name, allowed in (("delimiter", DELIMITERS), ("decimal", DECIMALS), ("thousands", THOUSANDS)):
        chosen = getattr(reading, name)
        if chosen is not None and chosen not in allowed:
            expected = ", ".join(f"{sign!r} ({called})" for sign, called in allowed.items())
            raise UploadRefused(name, f"one of {expected} was expected, got {chosen[:20]!r}")
    upload.decimal = upload.decimal if reading.decimal is None else reading.decimal
    upload.thousands = upload.thousands if reading.thousands is None else reading.thousands
    if upload.thousands == upload.decimal:
        raise UploadRefused(
            "thousands", f"a separator other than the decimal sign was expected, got {upload.decimal!r}"
        )
    try:
        upload.timezone = zone(upload.timezone if reading.timezone is None else reading.timezone).key
    except ValueError as error:
        raise UploadRefused("timezone", str(error)) from error
    with files.path_of(upload.stored_name).open("rb") as stream:
        if upload.format == Upload.Format.CSV:
            _read_columns(upload, reading, stream)
        elif reading.mapping:
            raise UploadRefused("mapping", "no mapping was expected: lines of NDJSON are records already")
        if next(iter(_rows(upload, stream)), None) is None:
            raise UploadRefused("file", "at least one row was expected, the file holds none")


def check_complete(upload: Upload) -> None:
    """Raise UploadRefused unless every column is mapped or left out, and the required fields have one."""
    if upload.format == Upload.Format.CSV:
        try:
            check_mapping(upload.mapping, upload.columns, upload.usage_event.schema)
        except MappingError as error:
            raise UploadRefused("mapping", str(error)) from error


def is_complete(upload: Upload) -> bool:
    """Tell whether the upload can be tried out and ingested as it is read now."""
    try:
        check_complete(upload)
    except UploadRefused:
        return False
    return True


def undecided_columns(upload: Upload) -> list[str]:
    """Return the columns that are neither mapped nor left out."""
    return [column for column in upload.columns if column not in upload.mapping]


def preview(upload: Upload) -> list[Row]:
    """Return the first rows of the file; none once the file was removed."""
    try:
        with files.path_of(upload.stored_name).open("rb") as stream:
            return list(islice(_rows(upload, stream), PREVIEW_ROWS))
    except FileNotFoundError:
        return []


def _read_columns(upload: Upload, reading: Reading, stream: BinaryIO) -> None:
    upload.delimiter = reading.delimiter or (upload.delimiter if upload.pk else sniff_delimiter(stream))
    before, schema = upload.columns, upload.usage_event.schema
    try:
        upload.columns, _ = read_header(stream, upload.delimiter)
    except UnreadableFile as error:
        raise UploadRefused("file", str(error)) from error
    if len(upload.columns) > MAX_COLUMNS:
        raise UploadRefused("file", f"at most {MAX_COLUMNS} columns were expected, got {len(upload.columns)}")
    if reading.mapping is None:
        if upload.columns != before:
            upload.mapping = suggest_mapping(upload.columns, schema)
        return
    try:
        check_mapping(reading.mapping, upload.columns, schema)
    except MappingError as error:
        raise UploadRefused("mapping", str(error)) from error
    upload.mapping = {column: reading.mapping[column] for column in upload.columns}


def _rows(upload: Upload, stream: BinaryIO) -> CSVRows | LineRows:
    if upload.format == Upload.Format.NDJSON:
        return LineRows(stream, Place())
    _, first = read_header(stream, upload.delimiter)
    return CSVRows(stream, upload.delimiter, first)
