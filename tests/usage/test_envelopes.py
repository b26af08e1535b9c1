"""Envelopes: each record yields itself or one problem, and no bytes whatever do any harm."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customers.exactjson import dumps
from usage.bodies import BodyError, TooLarge, split_body, submission_of
from usage.envelopes import (
    NO_LIMITS,
    Problem,
    TimeLimits,
    _read_each,
    _read_together,
    check_data,
    check_text,
    read_records,
)
from usage.received import ReceivedRecord
from usage.schema_cost import DIALECT
from usage.schemas import DataSchema

ANYTHING = DataSchema({"type": "object"})
HOURS = DataSchema({"type": "object", "properties": {"hours": {"type": "number"}}, "required": ["hours"]})
GOOD = '{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z","data":{}}'


def read(body: str | bytes, schema: DataSchema = ANYTHING) -> tuple[list[ReceivedRecord], list[Problem]]:
    sent = split_body(body.encode() if isinstance(body, str) else body, max_records=1000)
    records, problems = read_records(sent, schema)
    return list(records), problems


def with_data(data: str) -> str:
    return f'{{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z","data":{data}}}'


def refusal(body: str | bytes, schema: DataSchema = ANYTHING) -> tuple[str, str, str]:
    records, problems = read(body, schema)
    assert records == []
    (problem,) = problems
    return problem.code, problem.pointer, problem.message


def test_a_record_is_read_and_its_data_kept_as_text() -> None:
    text = ' {"customer_id": "cus_1", "timestamp": "2025-06-17T14:03:12.5+02:00", "data": {"a": 1.50 }, "id": "x"}\n'

    assert read(text) == (
        [
            ReceivedRecord(
                0, "cus_1", datetime(2025, 6, 17, 12, 3, 12, 500_000, tzinfo=UTC), key="x", data=b'{"a": 1.50 }'
            )
        ],
        [],
    )


def test_an_id_of_null_is_none() -> None:
    (record,), _ = read(GOOD[:-1] + ',"id":null}')

    assert record.key is None


def test_records_and_problems_keep_the_order_sent() -> None:
    records, problems = read(f"[{GOOD}, 1, {GOOD}, {{}}, {GOOD}]")

    assert [record.index for record in records] == [0, 2, 4]
    assert [(problem.index, problem.code) for problem in problems] == [(1, "malformed"), (3, "missing_field")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON was expected: Input data was truncated"),
        (b" \n\t ", "JSON was expected: Input data was truncated"),
        (b"[]", "at least one record was expected, got none"),
        (b" [ ] ", "at least one record was expected, got none"),
        (b'"x"', 'a record (a JSON object), an array of records or {"records": […]} was expected'),
        (b"1", 'a record (a JSON object), an array of records or {"records": […]} was expected'),
        (b"null", 'a record (a JSON object), an array of records or {"records": […]} was expected'),
        (b"true", 'a record (a JSON object), an array of records or {"records": […]} was expected'),
        (b"not JSON", "JSON was expected: JSON is malformed: invalid character (byte 1)"),
        (b"{'customer_id': 1}", "JSON was expected: JSON is malformed: object keys must be strings (byte 1)"),
        (GOOD.encode("utf-16"), "UTF-8 was expected, byte 0 of the body is not"),
        (GOOD.encode().replace(b'"c"', b'"\xff"'), "UTF-8 was expected, byte 16 of the body is not"),
        (GOOD.encode().replace(b'"c"', b'"\xed\xa0\x80"'), "UTF-8 was expected, byte 16 of the body is not"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "JSON was expected: JSON is malformed: invalid character (byte 0)"),
        (b"[" * 100_000, "JSON nested at most 64 levels deep was expected"),
        (b'{"a":' * 100_000, "JSON nested at most 64 levels deep was expected"),
        (b"[" * 100_000 + b"]" * 100_000, "JSON nested at most 64 levels deep was expected"),
    ],
)
def test_a_body_that_is_none_is_refused_whole(body: bytes, message: str) -> None:
    with pytest.raises(BodyError) as caught:
        read(body)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "1e", "-", "0x1", "1_0", "٣"]
)
def test_what_is_no_json_number_makes_no_json_body(number: str) -> None:
    with pytest.raises(BodyError, match="JSON was expected"):
        read(with_data(f'{{"a":{number}}}'))


@pytest.mark.parametrize(
    "half", ["\\ud800", "\\udc00", "a\\ud800b", "\\ud800\\u0041", "\\ud800\\ud800", "\\uDFFF\\uD800"]
)
@pytest.mark.parametrize(
    "record",
    [
        GOOD.replace('"c"', '"%s"'),
        GOOD.replace("2025-06-17T14:03:12Z", "%s"),
        with_data('{"a":["%s"]}'),
        with_data('{"%s":1}'),
        GOOD[:-1] + ',"id":"%s"}',
        GOOD[:-1] + ',"%s":1}',
    ],
)
def test_half_a_surrogate_pair_makes_no_json_body_wherever_it_stands(record: str, half: str) -> None:
    with pytest.raises(BodyError, match="JSON was expected: "):
        read(record.replace("%s", half))


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "😀", "\\u00e9", "\\\\ud800", "\\\\u0000", "\x7f", "\u2028", "\\/"])
def test_whole_characters_are_fine_everywhere(text: str) -> None:
    body = f'{{"customer_id":"{text}","timestamp":"2025-06-17T14:03:12Z","data":{{"{text}":"{text}"}},"id":"{text}"}}'

    (record,), problems = read(body)

    meant = json.loads(f'"{text}"')
    assert problems == []
    assert (record.customer_id, record.key, json.loads(record.data)) == (meant, meant, {meant: meant})


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (GOOD.replace('"c"', '"a\\u0000b"'), "null_character", "/customer_id"),
        (GOOD.replace("2025-06-17T14:03:12Z", "\\u0000"), "timestamp", "/timestamp"),
        (GOOD[:-1] + ',"id":"\\u0000"}', "null_character", "/id"),
        (with_data('{"a":"\\u0000"}'), "null_character", "/data"),
        (with_data('{"\\u0000":1}'), "null_character", "/data"),
        (with_data('{"a":[{"b":"x\\\\\\u0000"}]}'), "null_character", "/data"),
        (with_data('{"a":"\\u0000","a":1}'), "null_character", "/data"),
        (GOOD[:-1] + ',"\\u0000":1}', "unknown_field", "/\0"),
    ],
)
def test_null_characters_are_refused_in_every_field(body: str, code: str, pointer: str) -> None:
    assert refusal(body)[:2] == (code, pointer)


@pytest.mark.parametrize(
    ("body", "code", "pointer", "message"),
    [
        ("[1]", "malformed", "", "a record, that is a JSON object, was expected: Expected `object`, got `int`"),
        ("[[]]", "malformed", "", "a record, that is a JSON object, was expected: Expected `object`, got `array`"),
        ("{}", "missing_field", "/customer_id", "'customer_id' is required, but is missing"),
        ('{"customer_id":"c"}', "missing_field", "/timestamp", "'timestamp' is required, but is missing"),
        (
            '{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z"}',
            "missing_field",
            "/data",
            "'data' is required, but is missing",
        ),
        (GOOD.replace('"c"', "5"), "customer_id", "/customer_id", "a string was expected, got 5"),
        (GOOD.replace('"c"', "null"), "customer_id", "/customer_id", "a string was expected, got null"),
        (GOOD.replace('"c"', "1e99999"), "customer_id", "/customer_id", "a string was expected, got 1e99999"),
        (GOOD.replace('"c"', '["c"]'), "customer_id", "/customer_id", 'a string was expected, got ["c"]'),
        (
            GOOD.replace('"c"', '""'),
            "customer_id",
            "/customer_id",
            "a string of 1 to 255 characters was expected, got 0 characters",
        ),
        (
            GOOD.replace('"c"', '"' + "c" * 256 + '"'),
            "customer_id",
            "/customer_id",
            "a string of 1 to 255 characters was expected, got 256 characters",
        ),
        (
            GOOD.replace('"2025-06-17T14:03:12Z"', "1750168992"),
            "timestamp",
            "/timestamp",
            "a string was expected, got 1750168992",
        ),
        (GOOD[:-1] + ',"id":5}', "malformed", "/id", "a string was expected, got 5"),
        (GOOD[:-1] + ',"id":{}}', "malformed", "/id", "a string was expected, got {}"),
        (GOOD[:-1] + ',"id":""}', "malformed", "/id", "a string of 1 to 255 characters was expected, got 0 characters"),
        (
            GOOD[:-1] + ',"id":"' + "x" * 1_000_000 + '"}',
            "malformed",
            "/id",
            "a string of 1 to 255 characters was expected, got 1000000 characters",
        ),
        (
            GOOD[:-1] + ',"a/b~c":1}',
            "unknown_field",
            "/a~1b~0c",
            "'customer_id', 'timestamp', 'data' and 'id' are the fields of a record, got 'a/b~c'",
        ),
        (with_data("[]"), "schema", "/data", "[] is not of type 'object'"),
        (with_data("null"), "schema", "/data", "null is not of type 'object'"),
        (with_data('"x"'), "schema", "/data", "\"x\" is not of type 'object'"),
    ],
)
def test_each_field_is_checked_and_the_message_says_what_came(body: str, code: str, pointer: str, message: str) -> None:
    assert refusal(body) == (code, pointer, message)


@pytest.mark.parametrize(
    ("timestamp", "problem"),
    [
        ("2025-06-17T14:00:00Z", None),
        (
            "2025-06-17T13:59:59.999999Z",
            ("too_old", "from 2025-06-17T14:00:00+00:00 on, got 2025-06-17T13:59:59.999999"),
        ),
        ("2025-06-17T17:00:00+02:00", None),
        ("2025-06-17T15:00:00.000001Z", ("too_new", "up to 2025-06-17T15:00:00+00:00, got 2025-06-17T15:00:00.000001")),
    ],
)
def test_limits_of_time_are_included(timestamp: str, problem: tuple[str, str] | None) -> None:
    limits = TimeLimits(datetime(2025, 6, 17, 14, tzinfo=UTC), datetime(2025, 6, 17, 15, tzinfo=UTC))
    sent = split_body(GOOD.replace("2025-06-17T14:03:12Z", timestamp).encode(), max_records=1)

    records, problems = read_records(sent, ANYTHING, limits)

    if problem is None:
        assert (len(records), problems) == (1, [])
    else:
        assert [(found.code, found.pointer) for found in problems] == [(problem[0], "/timestamp")]
        assert problems[0].message == f"this usage event takes records {problem[1]}+00:00"


def test_data_is_checked_against_the_schema() -> None:
    assert refusal(with_data('{"hours":"5"}'), HOURS) == ("schema", "/data/hours", "'5' is not of type 'number'")
    assert refusal(with_data("{}"), HOURS) == ("schema", "/data", "'hours' is required, but is missing")


@pytest.mark.parametrize(
    ("key", "told"), [("evt-1", "evt-1"), ("x" * 255, "x" * 255), ("x" * 256, None), ("é\\u00e9", "éé")]
)
def test_a_refused_record_is_named_by_its_id_where_that_can_be_told(key: str, told: str | None) -> None:
    _, (problem,) = read(GOOD.replace('"c"', "5")[:-1] + f',"id":"{key}"}}')

    assert problem.id == told


@pytest.mark.parametrize("text", ["c" * 255, "é" * 255, "😀" * 255, " ", "\u202e", "'; --", "%s", "\\n"])
def test_identities_of_255_characters_of_any_kind_are_fine(text: str) -> None:
    body = dumps({"customer_id": text, "timestamp": "2025-06-17T14:03:12Z", "data": {}, "id": text})

    (record,), _ = read(body)

    assert (record.customer_id, record.key) == (text, text)


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "-0.0", str(2**70), "9" * 64, "0." + "0" * 62 + "1", "1e64", "1E+64", "1e-64", "-1.5e64", "9.9e63"]
    + ["1" * 56 + "e8", "0e64", "1e0000", "1e00064"],
)
def test_numbers_of_64_digits_within_1e64_keep_every_digit(number: str) -> None:
    (record,), problems = read(with_data(f'{{"a":{number}}}'))

    assert problems == []
    assert record.data == f'{{"a":{number}}}'.encode()


@pytest.mark.parametrize(
    "number",
    ["1e65", "1E+65", "1e-65", "1e400", "-1e400", "1e-400", "9" * 65, "0." + "0" * 64 + "1", "1." + "0" * 64, "0e65"]
    + ["9" * 64 + "e9", "1" * 57 + "e9", "0." + "0" * 56 + "1e-9", "1e" + "9" * 100, "1e0000064", "10e64", "9" * 5000]
    + ["[" * 3 + "1e99" + "]" * 3, "1.1" + "1" * 63],
)
def test_numbers_beyond_are_refused_however_they_are_written(number: str) -> None:
    code, pointer, message = refusal(with_data(f'{{"a":{number}}}'))

    assert (code, pointer) == ("number", "/data")
    assert message.startswith("a number of at most 64 digits, within 1e±64, was expected, got ")
    assert len(message) < 120


@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,70})(\.[0-9]{1,70})?([eE][+-]?[0-9]{1,3})?\Z"))
def test_the_bounds_of_numbers_are_those_of_their_value(number: str) -> None:
    digits = len(re.sub(r"[eE].*|[-.]", "", number))
    within = digits <= 64 and abs(Decimal(number).adjusted()) <= 64

    records, problems = read(with_data(f'{{"a":{number}}}'))

    assert (len(records), len(problems)) == ((1, 0) if within else (0, 1))


def test_long_digits_inside_text_are_no_number() -> None:
    (record,), problems = read(with_data('{"a":"' + "9" * 100 + '","' + "1" * 100 + '":"\\"1e999"}'))

    assert problems == []
    assert record.key is None


@pytest.mark.parametrize(("depth", "records"), [(64, 1), (65, 0), (400, 0)])
@pytest.mark.parametrize(("left", "right"), [('{"a":', "}"), ("[", "]")])
def test_data_may_nest_64_levels(depth: int, records: int, left: str, right: str) -> None:
    data = '{"a":' + left * (depth - 1) + "1" + right * (depth - 1) + "}"

    stored, problems = read(with_data(data))

    assert len(stored) == records
    assert [problem.code for problem in problems] == ["malformed"] * (1 - records)


@pytest.mark.parametrize("place", [with_data('{"a":%s}'), GOOD.replace('"c"', "%s"), GOOD[:-1] + ',"id":%s}', "[%s]"])
def test_deep_nesting_is_refused_but_never_a_fault(place: str) -> None:
    for depth in (100, 400):
        assert refusal(place.replace("%s", "[" * depth + "]" * depth))[0] in ("malformed", "customer_id")
    for depth in (1_000, 10_000):  # how deep the parser goes is Python's business
        with suppress(BodyError):
            assert len(read(place.replace("%s", "[" * depth + "]" * depth))[1]) == 1
    with pytest.raises(BodyError, match="JSON nested at most 64 levels deep was expected"):
        read(place.replace("%s", "[" * 100_000 + "]" * 100_000))


def test_brackets_inside_text_are_no_nesting() -> None:
    (record,), _ = read(with_data('{"a":"' + "[{" * 40_000 + '"}'))

    assert len(record.data) > 80_000


def test_of_a_field_that_appears_twice_the_last_counts() -> None:
    (record,), _ = read('{"customer_id":"a","customer_id":"b","timestamp":"2025-06-17T14:03:12Z","data":{"x":1,"x":2}}')

    assert (record.customer_id, record.data) == ("b", b'{"x":1,"x":2}')


@pytest.mark.parametrize("first", ['"customer_id":5', '"data":7', '"id":{}', '"timestamp":[[]]'])
def test_what_an_earlier_one_of_two_fields_says_does_not_matter(first: str) -> None:
    body = f'[{GOOD},{{{first},"id":"b",{GOOD[1:]}]'

    records, problems = read(body)

    assert problems == []
    assert [(found.index, found.key, found.customer_id, found.data) for found in records] == [
        (0, None, "c", b"{}"),
        (1, "b", "c", b"{}"),
    ]
    records, problems = read(body.replace('"data":{}}]', '"data":{"hours":"5"}}]'), HOURS)
    assert [(found.index, found.code, found.id) for found in problems] == [(0, "schema", None), (1, "schema", "b")]


def test_more_records_than_allowed_are_too_many() -> None:
    body = f"[{GOOD},{GOOD},{GOOD}]".encode()

    assert len(split_body(body, max_records=3).raws) == 3
    with pytest.raises(TooLarge, match="at most 2 records are taken in one request, got 3"):
        split_body(body, max_records=2)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_body_error(body: bytes) -> None:
    try:
        records, problems = read(body)
    except BodyError:
        return
    assert len(records) + len(problems) >= 1


JSON_TEXTS = st.recursive(
    st.sampled_from(
        ["null", "true", "0", "-0", "1e400", "1" * 65, "1e-5", '""', '"\\u0000"', '"c"', '"😀"', "{}", "[]"]
    )
    | st.sampled_from(
        ['"2025-06-17T14:03:12Z"', '"0001-01-01T00:00:00+10:00"', '"9999-12-31T23:59:59-10:00"', '"now"']
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(st.sampled_from(["a", "b", "\\u0000", "customer_id"]), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)
RECORD_TEXTS = JSON_TEXTS | st.lists(
    st.tuples(st.sampled_from(["customer_id", "timestamp", "data", "id", "Id", ""]), JSON_TEXTS), max_size=6
).map(lambda pairs: "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}")


@given(st.lists(RECORD_TEXTS | st.just(GOOD), min_size=1, max_size=6))
def test_records_and_problems_together_are_what_was_sent(texts: list[str]) -> None:
    records, problems = read("[" + ",".join(texts) + "]", HOURS)

    assert sorted([record.index for record in records] + [problem.index for problem in problems]) == list(
        range(len(texts))
    )
    for problem in problems:
        assert problem.pointer == "" or problem.pointer.startswith("/")
        assert json.loads(dumps({"message": problem.message, "id": problem.id}))["message"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": "\0"}, "/data: text without the character"),
        ({"a": "\ud800"}, "a surrogate without its pair"),
        ({"\udfff": 1}, "a surrogate without its pair"),
        ({"a": Decimal("1e65")}, "/data: a number of at most 64 digits"),
        ({"a": 10**64}, "/data: a number of at most 64 digits"),
        ({"hours": "5"}, "/data/hours: '5' is not of type 'number'"),
        ([], "/data: [] is not of type 'object'"),
    ],
)
def test_data_of_a_form_is_held_to_the_same_rules(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_data(data, DataSchema({"type": "object", "properties": {"hours": {"type": "number"}}}))

    assert message in str(caught.value)


def test_deep_data_of_a_form_is_refused() -> None:
    data: dict[str, Any] = {}
    for _ in range(64):
        data = {"a": data}

    with pytest.raises(ValueError, match="nested at most 64 levels"):
        check_data(data, ANYTHING)
    check_data(data["a"], ANYTHING)


@pytest.mark.parametrize("text", ["", "x" * 256, "a\0b"])
def test_text_that_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="was expected"):
        check_text(text)


# --- the quick way ---------------------------------------------------------------------------------------------------

NUMBERS = [
    "1",
    "1.50",
    "-0.0",
    "1.50000000000000000001",
    "9007199254740992.5",
    "1e5",
    "1E64",
    "1e65",
    "0.1e-64",
    "1e999999999",
]
LONG_NUMBERS = ["9" * 64, "9" * 65, "9" * 33 + "." + "9" * 33]
TEXTS = ['"a"', '"0e1"', '"\\u0000"', '"\\ud83d\\ude00"', '"\\\\u0000"', '"' + "9" * 70 + '"', '"é\\n"', '""']
NESTED = ["[1,[2]]", "[" * 70 + "]" * 70, "[" * 62 + "]" * 62, '{"hours":{}}']
VALUES = [*NUMBERS, *LONG_NUMBERS, *TEXTS, *NESTED, "null", "true"]
TWICE = [',"customer_id":"e"', ',"data":{}']

wire = st.builds(
    lambda customer, moment, value, rest: (
        f'{{"customer_id":{customer},"timestamp":"{moment}","data":{{"hours":{value}}}{rest}}}'
    ),
    st.sampled_from(['"c"', '"d"', '""', f'"{"x" * 255}"', f'"{"x" * 256}"', "7", "null"]),
    st.sampled_from(["2025-06-17T14:03:12Z", "2025-06-17T14:03:12+00:00", "2025-06-17 14:03:12", "now"]),
    st.sampled_from(VALUES),
    st.sampled_from(
        ["", ',"id":"i"', ',"id":null', ',"id":""', ',"id":7', ',"customer_id":"e"', ',"x":1', ',"data":{}']
    ),
)


def hours(subschema: dict[str, Any]) -> DataSchema:
    return DataSchema({"type": "object", "properties": {"hours": subschema}})


WHICH_NUMBER: list[dict[str, Any]] = [
    {"type": "integer"}, {"maximum": 1.5}, {"exclusiveMinimum": 1.5}, {"multipleOf": 0.5}, {"enum": [1.5]},
    {"not": {"const": 1.5}}, {"minimum": 9007199254740992.5}, {"exclusiveMaximum": 9007199254740992.5},
]  # fmt: skip
SCHEMAS = [ANYTHING, HOURS, *map(hours, WHICH_NUMBER)]


@pytest.mark.parametrize(
    ("subschema", "number"),
    [
        ({"type": "integer"}, "9007199254740992.5"),
        ({"maximum": 1.5}, "1.50000000000000000001"),
        ({"minimum": 1.5}, "1.49999999999999999999"),
        ({"not": {"exclusiveMinimum": 1.5}}, "1.50000000000000000001"),
        ({"not": {"exclusiveMaximum": 1.5}}, "1.49999999999999999999"),
        ({"multipleOf": 0.5}, "1.50000000000000000001"),
        ({"enum": [1.5]}, "1.50000000000000000001"),
        ({"const": 1.5}, "1.50000000000000000001"),
        ({"not": {"uniqueItems": True}}, "[1.5,1.50000000000000000001]"),
        ({"$ref": DIALECT}, '{"minLength":1.00000000000000000000000001}'),
    ],
)
def test_where_a_schema_asks_which_number_it_is_no_digit_is_lost(subschema: dict[str, Any], number: str) -> None:
    text = with_data('{"hours":' + number + "}")
    sent = split_body(f"[{text}]".encode(), max_records=10)

    assert _read_together(sent, hours(subschema), NO_LIMITS) is None


@given(st.lists(wire | st.just(with_data('{"hours":2}')), min_size=1, max_size=4), st.sampled_from(SCHEMAS))
def test_together_nothing_is_read_otherwise_than_each_for_itself(texts: list[str], schema: DataSchema) -> None:
    sent = split_body(f"[{','.join(texts)}]".encode(), max_records=10, key="k")
    together, (records, problems) = _read_together(sent, schema, NO_LIMITS), _read_each(sent, schema, NO_LIMITS)

    assert together is None or (list(together) == records and problems == [])


def test_of_no_records_nothing_is_read() -> None:
    records, problems = read_records(submission_of([]), HOURS)

    assert (list(records), problems) == ([], [])


def test_good_records_are_read_together() -> None:
    texts = [
        with_data(value) for value in ('{"hours":1.5}', '{"hours":-1e5,"note":"a\\nb"}', '{"hours":7,"uuid":"3e0e1"}')
    ]
    sent = split_body(f"[{','.join(texts)}]".encode(), max_records=10)

    assert list(_read_together(sent, HOURS, NO_LIMITS) or []) == read("[" + ",".join(texts) + "]", HOURS)[0]
    assert sent.texts is None  # and never taken apart into texts


def test_a_schema_that_names_places_in_itself_is_asked_for_each_record() -> None:
    schema = DataSchema(
        {"type": "object", "properties": {"hours": {"$ref": "#/$defs/hours"}}, "$defs": {"hours": {"type": "number"}}}
    )
    good, bad = with_data('{"hours":1}'), with_data('{"hours":"1"}')

    assert len(read(f"[{good},{good}]", schema)[0]) == 2
    assert [problem.index for problem in read(f"[{good},{bad}]", schema)[1]] == [1]
