"""The body of a request: unpacked within its limits, and split into the texts of its records."""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import msgspec

JSON = "application/json"
NDJSON = "application/x-ndjson"
CHUNK = 64 * 1024
MAX_DEPTH = 64
MAX_TEXT = 255
MAX_MEMBERS = 10_000
# Below this many commas the parser may take an array apart before its elements are counted: it costs little memory.
DENSE = 500_000


class BodyError(ValueError):
    """The body as a whole cannot be read; nothing of it was looked at further."""


class TooLarge(BodyError):
    """The body holds more bytes or more records than one request may."""


class Stream(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Counted:
    """A stream that counts the bytes that were taken from it."""

    stream: Stream
    taken: int = 0

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""
        part = self.stream.read(size)
        self.taken += len(part)
        return part


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]


class PlainEnvelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The wire form of a record in whose fields nothing calls for a closer look; `data` is text still."""

    customer_id: _Name
    timestamp: str
    data: msgspec.Raw
    id: _Name | None = None


@dataclass(slots=True)
class Submission:
    """The records of one request, each as its own JSON text, in the order sent; `body` holds them all.

    `key` gives an identity to records that have none: itself to a record that came alone, `<key>:<index>` to those of a
    batch. `faults` are the texts, by index, of which their reader could not make a record: code, pointer, message.
    `plain` are the records if all of them could be read as such at once; `texts` is None until somebody asks for it.
    """

    body: bytes
    texts: list[msgspec.Raw] | None
    alone: bool = False
    key: str | None = None
    faults: Mapping[int, tuple[str, str, str]] = field(default_factory=dict)
    array: bytes = b""
    plain: list[PlainEnvelope] | None = None

    @property
    def raws(self) -> list[msgspec.Raw]:
        """Return the text of each record."""
        if self.texts is None:
            self.texts = _array.decode(self.array)
        return self.texts

    def __len__(self) -> int:
        return len(self.raws if self.plain is None else self.plain)

    def key_of(self, index: int) -> str | None:
        """Return the identity that the request gives to a record without an id of its own."""
        if self.key is None or self.alone:
            return self.key
        return f"{self.key}:{index}"


def submission_of(texts: list[str]) -> Submission:
    """Return records that are known by their JSON texts as a batch."""
    return Submission("\n".join(texts).encode(), [msgspec.Raw(text.encode()) for text in texts])


_array = msgspec.json.Decoder(list[msgspec.Raw])
_plain_array = msgspec.json.Decoder(list[PlainEnvelope])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
# A line that holds anything, past all that hold nothing.
_LINE = re.compile(rb"[ \t\r\n]*+([^\n]+)")
# A string, closed or not, is one token, so that what stands in it is not looked at; nothing is ever tried twice.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)


def read_plain(stream: Stream, limit: int) -> bytes:
    """Return the bytes of a stream; raises TooLarge as soon as there are more than the limit."""
    parts: list[bytes] = []
    size = 0
    while part := stream.read(limit + 1 - size):
        size += len(part)
        if size > limit:
            raise TooLarge(f"a body of at most {limit} bytes is taken")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_gzip(stream: Stream, limit: int) -> bytes:
    """Return the unpacked bytes of a gzip stream (RFC 1952, members in a row count as one).

    Memory stays within the limit, whatever the packed bytes would unpack to. Raises TooLarge, BodyError.
    """
    parts: list[bytes] = []
    size = packed = 0
    members = 1
    unpacker = zlib.decompressobj(wbits=31)
    try:
        while chunk := stream.read(CHUNK):
            packed += len(chunk)
            while chunk:
                if unpacker.eof:
                    unpacker = zlib.decompressobj(wbits=31)
                    members += 1
                part = unpacker.decompress(chunk, limit + 1 - size)
                size += len(part)
                # Members that unpack to nothing cost as much as they are long, so that has a limit too.
                if size > limit or packed > limit or members > MAX_MEMBERS:
                    raise TooLarge(f"a body that unpacks to at most {limit} bytes is taken")
                parts.append(part)
                chunk = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as error:
        raise BodyError(f"gzip was expected, as Content-Encoding says: {error}") from None
    if not unpacker.eof:
        raise BodyError("gzip was expected, as Content-Encoding says: it ends before its time")
    return b"".join(parts)


def split_body(body: bytes, media_type: str = JSON, *, max_records: int, key: str | None = None) -> Submission:
    """Return the records of a body: an object, an array, {"records": […]}, or lines of NDJSON.

    Raises BodyError for anything else and for no record at all, TooLarge over the limit. A line of NDJSON that is no
    JSON is a record like others: it is refused alone.
    """
    try:
        if not body.isascii():
            body.decode()
        split = _split_lines if media_type == NDJSON else _split_json
        submission = split(body, max_records, key)
    except UnicodeDecodeError as error:
        raise BodyError(f"UTF-8 was expected, byte {error.start} of the body is not") from None
    except msgspec.DecodeError as error:
        raise BodyError(f"JSON was expected: {error}") from None
    except RecursionError:
        raise BodyError(f"JSON nested at most {MAX_DEPTH} levels deep was expected") from None
    if not len(submission):
        raise BodyError("at least one record was expected, got none")
    if len(submission) > max_records:
        raise _too_many(max_records, str(len(submission)))
    return submission


def _split_json(body: bytes, max_records: int, key: str | None) -> Submission:
    first = body.lstrip(b" \t\r\n")[:1]
    if first == b"[":
        return _split_array(body, body, max_records, key)
    if first == b"{":
        fields = _object.decode(body)
        if "records" not in fields:
            return Submission(body, [msgspec.Raw(body)], alone=True, key=key)
        if len(fields) == 1 and bytes(fields["records"])[:1] == b"[":
            return _split_array(body, bytes(fields["records"]), max_records, key)
        raise BodyError('"records" was expected to be an array and the only field of the body')
    msgspec.json.decode(body, type=msgspec.Raw)  # what is no JSON at all is told as such
    raise BodyError('a record (a JSON object), an array of records or {"records": […]} was expected')


def _split_lines(body: bytes, max_records: int, key: str | None) -> Submission:
    if b"\0" in body:
        raise BodyError("NDJSON was expected, got a null byte")
    raws: list[msgspec.Raw] = []
    for line in _LINE.finditer(body):
        if len(raws) == max_records:
            raise _too_many(max_records, "more")
        raws.append(msgspec.Raw(line[1].rstrip(b" \t\r")))
    return Submission(body, raws, key=key)


def _split_array(body: bytes, array: bytes, max_records: int, key: str | None) -> Submission:
    """Take an array apart. One of millions of tiny elements is counted first: each would cost fifty bytes."""
    if len(array) > DENSE and array.count(b",") > max(DENSE, max_records) and _over(array, max_records):
        raise _too_many(max_records, "more")
    try:
        return Submission(body, None, key=key, array=array, plain=_plain_array.decode(array))
    except (msgspec.DecodeError, RecursionError):
        return Submission(body, _array.decode(array), key=key)


def _over(array: bytes, most: int) -> bool:
    """Tell whether the array's readable part has more elements than that."""
    depth, elements = 0, 1
    for token in _TOKEN.finditer(array):
        mark = token[0]
        if mark == b"," and depth == 1:
            elements += 1
            if elements > most:
                return True
        elif mark in (b"[", b"{"):
            depth += 1
        elif mark in (b"]", b"}"):
            depth -= 1
    return False


def _too_many(max_records: int, came: str) -> TooLarge:
    return TooLarge(f"at most {max_records} records are taken in one request, got {came}")
