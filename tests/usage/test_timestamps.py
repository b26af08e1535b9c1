"""Timestamps: two shapes, one meaning, and everything else refused with a reason."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.timestamps import END_MOMENT, FIRST_MOMENT, check_moment, parse_plain_timestamps, parse_timestamp
from usage.windows import hour_of


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-06-17T14:03:12Z", utc(2025, 6, 17, 14, 3, 12)),
        ("2025-06-17t14:03:12z", utc(2025, 6, 17, 14, 3, 12)),
        ("2025-06-17T14:03:12", utc(2025, 6, 17, 14, 3, 12)),
        ("2025-06-17 14:03:12", utc(2025, 6, 17, 14, 3, 12)),
        ("2025-06-17 14:03:12.5", utc(2025, 6, 17, 14, 3, 12, 500_000)),
        ("2025-06-17 14:03:12.000001", utc(2025, 6, 17, 14, 3, 12, 1)),
        ("2025-06-17T14:03:12.123456789Z", utc(2025, 6, 17, 14, 3, 12, 123_456)),
        ("2025-06-17T14:03:12.9999999Z", utc(2025, 6, 17, 14, 3, 12, 999_999)),
        ("2025-06-17T14:03:12." + "1" * 300 + "Z", utc(2025, 6, 17, 14, 3, 12, 111_111)),
        ("2025-06-17T14:03:12+05:30", utc(2025, 6, 17, 8, 33, 12)),
        ("2025-06-17T14:03:12-00:00", utc(2025, 6, 17, 14, 3, 12)),
        ("2025-06-17T14:03:12+23:59", utc(2025, 6, 16, 14, 4, 12)),
        ("2025-06-17T14:03:12-23:59", utc(2025, 6, 18, 14, 2, 12)),
        ("2024-02-29T00:00:00Z", utc(2024, 2, 29)),
        ("2000-01-01T00:00:00Z", FIRST_MOMENT),
        ("1999-12-31T23:00:00-01:00", FIRST_MOMENT),
        ("2101-01-01T00:59:59.999999+01:00", END_MOMENT - timedelta(microseconds=1)),
    ],
)
def test_every_shape_is_the_instant_in_utc(text: str, moment: datetime) -> None:
    parsed = parse_timestamp(text)

    assert parsed == moment
    assert parsed.tzinfo is UTC


REFUSED = [
    *["", " ", "now", "today", "0", "1750168992", "1750168992.5", "2025", "2025-06", "2025-06-17", "20250617T140312Z"],
    *["2025-W25-2T14:03:12Z", "2025-168T14:03:12Z", "2025-6-17T14:03:12Z", "2025-06-17T14:03Z", "2025-06-17T14Z"],
    *["2025-06-17T14:03:12,5Z", "2025-06-17T14:03:12.Z", "2025-06-17 14:03:12Z", "2025-06-17 14:03:12+00:00"],
    *["2025-06-17 14:03:12.1234567", "2025-06-17  14:03:12", " 2025-06-17T14:03:12Z", "2025-06-17T14:03:12Z "],
    *["2025-06-17T14:03:12Z\n", "2025-06-17T14:03:12\0Z", "2025/06/17 14:03:12", "17.06.2025 14:03:12"],
    *["2025-06-17T14:03:12+0530", "2025-06-17T14:03:12+05", "2025-06-17T14:03:12+05:60", "2025-06-17T14:03:12+05:99"],
    *["2025-06-17T14:03:12+24:00", "2025-06-17T14:03:12-24:00", "2025-06-17T14:03:12+99:00", "2025-06-17T14:03:12 Z"],
    *["2025-06-17T24:00:00Z", "2025-06-17T14:60:00Z", "2025-06-17T14:03:61Z", "2025-06-31T00:00:00Z"],
    *["2025-02-29T00:00:00Z", "2025-13-01T00:00:00Z", "2025-00-10T00:00:00Z", "2025-01-00T00:00:00Z"],
    *["2016-12-31T23:59:60Z", "2025-06-17T14:03:60+02:00", "0000-01-01T00:00:00Z", "-2025-06-17T14:03:12Z"],
    *["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z"],
    *["9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z", "12025-06-17T14:03:12Z"],
    *["1999-12-31T23:59:59.999999Z", "2000-01-01T00:00:00+00:01", "2101-01-01T00:00:00Z", "2100-12-31T23:59:59-00:01"],
    *["٢٠٢٥-06-17T14:03:12Z", "２０２５-06-17T14:03:12Z", "2025-06-17T14:03:1²Z", "2025‐06‐17T14:03:12Z", "\U0001f600"],
    *["2025-06-17T14:03:12+٠٥:30", "9" * 10_000, "2025-06-17T14:03:12Z" * 1000, "+2025-06-17T14:03:12Z"],
]


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused_in_a_short_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|does not exist") as caught:
        parse_timestamp(text)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("now", "expected RFC 3339 such as '2025-06-17T14:03:12Z', or 'YYYY-MM-DD HH:MM:SS', got 'now'"),
        (
            "2016-12-31T23:59:60Z",
            "'2016-12-31T23:59:60Z' does not exist: leap seconds are not counted, send second 59 or 00",
        ),
        ("1999-01-01T00:00:00Z", "expected a year from 2000 to 2100, got 1999-01-01T00:00:00+00:00"),
    ],
)
def test_the_message_says_what_was_expected_and_what_came(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_timestamp(text)

    assert str(caught.value) == message


@given(st.datetimes(FIRST_MOMENT.replace(tzinfo=None), datetime(2100, 12, 31)), st.integers(-1439, 1439))
def test_an_instant_written_in_any_offset_is_the_same_instant(moment: datetime, minutes: int) -> None:
    written = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes))).isoformat()

    assert parse_timestamp(written) == moment.replace(tzinfo=UTC)


@given(st.text(max_size=40) | st.from_regex(r"\A\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?\Z"))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    try:
        parsed = parse_timestamp(text)
    except ValueError:
        return
    assert FIRST_MOMENT <= parsed < END_MOMENT


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="a moment with a zone"):
        check_moment(datetime(2025, 6, 17))
    with pytest.raises(ValueError, match="a moment with a zone"):
        hour_of(datetime(2025, 6, 17))


@pytest.mark.parametrize("minutes", [0, 330, -570, 765])
def test_the_hour_of_a_moment_is_that_of_utc(minutes: int) -> None:
    moment = utc(2025, 6, 17, 14, 59, 59, 999_999).astimezone(timezone(timedelta(minutes=minutes)))

    assert hour_of(moment) == utc(2025, 6, 17, 14)


# --- many at once ----------------------------------------------------------------------------------------------------

WRITTEN = ["2025-06-17T14:03:12Z", "2025-06-17T14:03:12.999999999+00:00", "2000-01-01T00:00:00Z", *REFUSED[-8:]]


@st.composite
def nearly_written(draw: st.DrawFn) -> str:
    """A timestamp with a few characters changed, left out or put in."""
    text = list(draw(st.sampled_from(WRITTEN)))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text[place : place + draw(st.integers(0, 1))] = draw(st.sampled_from([*"0123456789-:TtZz+. ,W\n", ""]))
    return "".join(text)


def test_plain_ones_are_read_together() -> None:
    texts = ["2025-06-17T14:03:12Z", "2025-06-17T14:03:12.123456789+00:00", "2100-12-31T23:59:59.9Z"]

    assert parse_plain_timestamps(texts) == [parse_timestamp(text) for text in texts]


@given(st.lists(nearly_written() | st.datetimes().map(str), min_size=1, max_size=3))
def test_together_nothing_is_read_otherwise_than_alone(texts: list[str]) -> None:
    moments = parse_plain_timestamps(texts)

    assert moments is None or moments == [parse_timestamp(text) for text in texts]


@pytest.mark.parametrize("text", ["2025-06-17T14:03:12+05:30", "2025-06-17T14:03:12+00:75", "2025-06-17 14:03:12", "é"])
def test_what_needs_a_closer_look_gets_it(text: str) -> None:
    assert parse_plain_timestamps(["2025-06-17T14:03:12Z", text]) is None
