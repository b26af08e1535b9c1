"""Instants as senders write them: RFC 3339, or `YYYY-MM-DD HH:MM:SS[.ffffff]`, which is UTC."""

import re
from datetime import UTC, datetime

EXPECTED = "RFC 3339 such as '2025-06-17T14:03:12Z', or 'YYYY-MM-DD HH:MM:SS'"
_WRITTEN = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:[0-5]\d)?| \d\d:\d\d:\d\d(?:\.\d{1,6})?)",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
END_MOMENT = datetime(2101, 1, 1, tzinfo=UTC)

# How nearly everybody writes an instant, with 0 for each digit.
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_PLAIN = frozenset(
    f"0000-00-00T00:00:00{fraction}{zone}".encode()
    for fraction in ("", *("." + "0" * digits for digits in range(1, 10)))
    for zone in ("Z", "+00:00")
)


def parse_timestamp(text: str) -> datetime:
    """Return the instant in UTC, to the microsecond (further digits are cut).

    Raises ValueError, with a message that says what was expected and what came, for any other shape, for a day or
    time that does not exist (leap seconds among them) and for years outside 2000-2100.
    """
    if not _WRITTEN.fullmatch(text):
        raise ValueError(f"expected {EXPECTED}, got {_shown(text)}")
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{_shown(text)} does not exist: {_reason(text, error)}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elif moment.tzinfo is not UTC:
        check_moment(moment)  # before it is converted: a year that Python does not have would raise in its own words
        return moment.astimezone(UTC)
    if not FIRST_MOMENT.year <= moment.year < END_MOMENT.year:
        check_moment(moment)
    return moment


def parse_plain_timestamps(texts: list[str]) -> list[datetime] | None:
    """Return many instants at once, as parse_timestamp would return each of them; None if one needs a closer look.

    Plain is what is written in UTC, in capitals, with up to nine digits of a second, and exists.
    """
    written = "\n".join(texts).encode("ascii", "replace")
    if not _PLAIN.issuperset(written.translate(_DIGITS_TO_ZERO).split(b"\n")):
        return None
    if written.count(b"+") != written.count(b"+00:00"):
        return None
    try:
        moments = list(map(datetime.fromisoformat, texts))
    except ValueError:
        return None
    if not FIRST_MOMENT <= min(moments) <= max(moments) < END_MOMENT:
        return None
    return moments


def check_moment(moment: datetime) -> None:
    """Raise ValueError for an instant outside the years 2000-2100 (UTC), which is a mistake of units or of typing."""
    if moment.tzinfo is None:
        raise ValueError(f"expected a moment with a zone, got {moment.isoformat()}")
    if not FIRST_MOMENT <= moment < END_MOMENT:
        raise ValueError(f"expected a year from 2000 to 2100, got {moment.isoformat()}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _reason(text: str, error: ValueError) -> str:
    return "leap seconds are not counted, send second 59 or 00" if text[17:19] == "60" else str(error)
