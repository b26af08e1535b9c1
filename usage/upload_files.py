"""The files of uploads on disk: received under their limit, found again, removed; web and worker share the folder."""

import codecs
import csv
import hashlib
import io
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

PIECE = 64 * 1024
DAY = 24 * 60 * 60
ERRORS = ".errors.csv"
ERROR_COLUMNS = ("line", "code", "column", "message", "row")


class FileRefused(ValueError):
    """The file cannot be taken; nothing of it was kept."""


class FileTooLarge(FileRefused):
    """The file holds more bytes than the limit (setting UPLOAD_MAX_BYTES)."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that was received whole: its generated name, its content's SHA-256, its length in bytes."""

    name: str
    sha256: str
    size: int


def receive(pieces: Iterable[bytes]) -> StagedFile:
    """Write the pieces to a new file that only we may read, and return what it is when all is on disk.

    Raises FileTooLarge as soon as there is too much, FileRefused for what is not UTF-8, with the byte and the line.
    """
    name = uuid.uuid4().hex
    target = path_of(name)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest, utf8, size = hashlib.sha256(), _Utf8(), 0
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            for piece in pieces:
                size += len(piece)
                if size > settings.UPLOAD_MAX_BYTES:
                    raise FileTooLarge(f"a file of at most {settings.UPLOAD_MAX_BYTES} bytes is taken")
                utf8.check(piece)
                digest.update(piece)
                stream.write(piece)
            utf8.check(b"", final=True)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return StagedFile(name, digest.hexdigest(), size)


def path_of(stored_name: str) -> Path:
    """Return where the file of an upload is."""
    return Path(settings.UPLOAD_DIR) / stored_name


def errors_path_of(stored_name: str) -> Path:
    """Return where the error file of an upload is."""
    return Path(settings.UPLOAD_DIR) / f"{stored_name}{ERRORS}"


def append_errors(stored_name: str, length: int, errors: Iterable[tuple[int, str, str, str, str]]) -> int:
    """Append to an error file after its first `length` bytes, and return its new length when all is on disk.

    What a crash left behind them, which no transaction speaks of, is overwritten.
    """
    text = io.StringIO()
    csv.writer(text).writerows(errors)
    with open(errors_path_of(stored_name), "ab", opener=_private) as stream:
        stream.truncate(length)
        stream.write(text.getvalue().encode())
        stream.flush()
        os.fsync(stream.fileno())
        return stream.tell()


def read_errors(stored_name: str, length: int) -> Iterator[bytes]:
    """Return the error file as CSV with a header, its first `length` bytes piece by piece.

    Raises FileNotFoundError at once if there should be one and is none.
    """
    path = errors_path_of(stored_name)
    if length:
        path.stat()
    return _pieces(path, length)


def _pieces(path: Path, length: int) -> Iterator[bytes]:
    yield (",".join(ERROR_COLUMNS) + "\r\n").encode()
    if length:
        with path.open("rb") as stream:
            while length and (piece := stream.read(min(PIECE, length))):
                length -= len(piece)
                yield piece


def remove(stored_name: str) -> None:
    """Remove the files of an upload, as far as they are there."""
    path_of(stored_name).unlink(missing_ok=True)
    errors_path_of(stored_name).unlink(missing_ok=True)


def remove_strays(known: set[str]) -> None:
    """Remove what belongs to no upload: left half received by a crash, a day ago or earlier."""
    folder, limit = Path(settings.UPLOAD_DIR), time.time() - DAY
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.removesuffix(ERRORS) not in known and path.stat().st_mtime < limit:
            path.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Utf8:
    """Checks that pieces are UTF-8 together."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._bytes, self._lines = 0, 1

    def check(self, piece: bytes, *, final: bool = False) -> None:
        waiting = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            line = self._lines + error.object[: error.start].count(b"\n")
            byte = self._bytes - waiting + error.start
            shown = f"0x{error.object[error.start]:02x}"
            message = f"UTF-8 was expected, byte {byte} of the file (line {line}) is {shown}; save it as UTF-8"
            raise FileRefused(message) from None
        self._bytes += len(piece)
        self._lines += piece.count(b"\n")
