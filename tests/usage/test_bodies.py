"""Bodies: unpacked within their limits, split into records, and never more than they cost."""

import gzip
import io
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage import bodies
from usage.bodies import NDJSON, BodyError, TooLarge, read_gzip, read_plain, split_body, submission_of

PACKED = gzip.compress(b"{}", mtime=0)  # without the time, so that every process names its tests alike


class Trickle:
    """A stream that gives a few bytes at a time, as a network does."""

    def __init__(self, content: bytes, step: int = 7) -> None:
        self.content, self.step, self.at = content, step, 0

    def read(self, size: int, /) -> bytes:
        end = self.at + min(size, self.step)
        part, self.at = self.content[self.at : end], min(end, len(self.content))
        return part


def texts(body: bytes, media_type: str = bodies.JSON, most: int = 100) -> list[bytes]:
    return [bytes(raw) for raw in split_body(body, media_type, max_records=most).raws]


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_the_shapes_of_a_body() -> None:
    for body in (b'[{"a":1} , 2]', b' {"records" : [{"a":1} , 2]}\n'):
        assert texts(body) == [b'{"a":1}', b"2"]
    assert texts(b'{"a":1}') == [b'{"a":1}']
    assert texts(b'{"a":1}\n\n \t\r\n2\r\n{bad\n"x"', NDJSON) == [b'{"a":1}', b"2", b"{bad", b'"x"']
    assert [bytes(raw) for raw in submission_of(["1", "{}"]).raws] == [b"1", b"{}"]


def test_a_key_names_a_lone_record_and_counts_in_a_batch() -> None:
    alone, array = split_body(b"{}", max_records=1, key="k"), split_body(b"[{}]", max_records=1, key="k")
    wrapped = split_body(b'{"records":[{}]}', max_records=1, key="k")
    line = split_body(b"{}\n", NDJSON, max_records=1, key="k")

    assert alone.key_of(0) == "k"
    assert [array.key_of(0), wrapped.key_of(7), line.key_of(1)] == ["k:0", "k:7", "k:1"]
    assert split_body(b"{}", max_records=1).key_of(0) is None


@pytest.mark.parametrize(
    "body",
    [b'{"records":{}}', b'{"records":null}', b'{"records":[],"x":1}', b'{"x":1,"records":[1]}', b'{"records":"["}'],
)
def test_records_is_an_array_and_stands_alone(body: bytes) -> None:
    with pytest.raises(BodyError, match='"records" was expected to be an array and the only field of the body'):
        split_body(body, max_records=9)


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n\n", b"\r\n" * 1000])
def test_lines_without_a_record_are_no_body(body: bytes) -> None:
    with pytest.raises(BodyError, match="at least one record was expected, got none"):
        split_body(body, NDJSON, max_records=9)


@pytest.mark.parametrize(("body", "message"), [(b"{}\n\xff", "byte 3 of the body"), (b'{}\n"\0"', "got a null byte")])
def test_lines_that_are_no_text_are_no_body(body: bytes, message: str) -> None:
    with pytest.raises(BodyError, match=message):
        split_body(body, NDJSON, max_records=9)


# --- how many --------------------------------------------------------------------------------------------------------


def test_one_record_under_and_one_over_the_limit() -> None:
    assert len(texts(b"[1,2,3]", most=3)) == len(texts(b"1\n2\n\n3\n\n", NDJSON, most=3)) == 3
    with pytest.raises(TooLarge, match="at most 3 records are taken in one request, got 4"):
        texts(b"[1,2,3,4]", most=3)
    with pytest.raises(TooLarge, match="at most 3 records are taken in one request, got more"):
        texts(b"1\n2\n3\n4", NDJSON, most=3)


@pytest.mark.parametrize(
    ("body", "media_type"),
    [(b"[" + b"1," * 1_500_000 + b"1]", bodies.JSON), (b'{"records":[' + b"{}," * 1_000_000 + b"1]}", bodies.JSON)]
    + [(b"1\n" * 1_500_000, NDJSON), (b"\n" * 3_000_000 + b"1\n" * 101, NDJSON)],
)
def test_millions_of_tiny_records_cost_no_memory(body: bytes, media_type: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            texts(body, media_type)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 3 * len(body)


def test_many_commas_inside_of_records_are_no_records() -> None:
    record = b'{"a":"' + b"," * 400_000 + b'\\",[{","b":[' + b"1," * 400_000 + b"1]}"

    assert texts(b"[" + record + b"," + record + b"]", most=2) == [record, record]
    with pytest.raises(TooLarge, match="got more"):
        texts(b"[" + record + b"," + record + b"]", most=1)
    with pytest.raises(BodyError, match="JSON was expected"):
        texts(b'["' + b'\\",' * 400_000, most=1)


# --- how long --------------------------------------------------------------------------------------------------------


def test_one_byte_under_and_one_over_the_limit() -> None:
    for stream in (io.BytesIO, Trickle):
        assert read_plain(stream(b"x" * 100), 100) == b"x" * 100
        assert read_plain(stream(b""), 100) == b""
        assert read_gzip(stream(gzip.compress(b"x" * 100)), 100) == b"x" * 100
        for read, content in ((read_plain, b"x" * 101), (read_gzip, gzip.compress(b"x" * 101))):
            with pytest.raises(TooLarge, match="at most 100 bytes"):
                read(stream(content), 100)


def test_members_in_a_row_are_one_body() -> None:
    packed = gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"c" * 90)

    assert read_gzip(Trickle(packed, 1), 92) == read_gzip(io.BytesIO(packed), 92) == b"ab" + b"c" * 90
    with pytest.raises(TooLarge):
        read_gzip(io.BytesIO(packed), 91)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (b"", "ends before its time"),
        (b"{}", "incorrect header check"),
        (PACKED[:-1], "ends before its time"),
        (PACKED[:12], "ends before its time"),
        (PACKED + b"garbage", "incorrect header check"),
        (PACKED + PACKED[:5], "ends before its time"),
        (PACKED[:-8] + b"\0" * 8, "incorrect data check"),
    ],
)
def test_what_is_no_gzip_is_told(packed: bytes, message: str) -> None:
    with pytest.raises(BodyError, match=f"gzip was expected, as Content-Encoding says: .*{message}"):
        read_gzip(io.BytesIO(packed), 100)


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            read_gzip(io.BytesIO(bomb), 1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4_000_000


def test_members_that_hold_nothing_have_a_limit_too() -> None:
    empty = gzip.compress(b"")
    assert read_gzip(io.BytesIO(empty * 10_000), 1_000_000) == b""
    with pytest.raises(TooLarge):
        read_gzip(io.BytesIO(empty * 10_001), 1_000_000)
    with pytest.raises(TooLarge):
        read_gzip(io.BytesIO(empty * 100), 1_000)


@given(st.binary(max_size=200), st.integers(1, 9))
def test_no_bytes_raise_anything_but_body_error(packed: bytes, step: int) -> None:
    for content in (packed, gzip.compress(packed), gzip.compress(packed)[:-3]):
        try:
            unpacked = read_gzip(Trickle(content, step), 300)
        except BodyError:
            continue
        assert unpacked == packed or content == packed


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_every_line_that_holds_anything_is_one_record(lines: list[bytes]) -> None:
    body = b"\n".join(lines)
    meant = [line.strip(b" \t\r") for line in body.split(b"\n")]
    try:
        assert texts(body, NDJSON) == [line for line in meant if line]
    except BodyError as error:
        assert not any(meant) or "UTF-8" in str(error) or "null byte" in str(error)  # noqa: PT017
    else:
        assert all(isinstance(raw, msgspec.Raw) for raw in split_body(body, NDJSON, max_records=9).raws)
