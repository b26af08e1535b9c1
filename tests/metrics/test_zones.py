"""Windows of real clocks, as tables: what is counted in each hour, day, week and month, folded or not."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from metrics.materialization import fold
from metrics.models import Metric
from metrics.periods import Window
from metrics.quantities import quantities
from metrics.questions import Question
from tests.conftest import active_metric, take_in
from usage.models import UsageEvent

QUARTER = timedelta(minutes=15)
HOUR = timedelta(hours=1)
LAST = timedelta(microseconds=1)

Lengths = list[tuple[str, str]]  # where a window begins (UTC), and how many hours it has


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def usage_all_along(usage_event: UsageEvent, start: str, end: str, step: timedelta = QUARTER) -> None:
    """A record at the start of every step from a day before `start` to a day behind `end`, worth the step in hours.

    So what is summed up is the length of a window. Beside it one at the last moment of every step, worth nothing: a
    window that takes in its end and leaves out its start has the right number of records, but of the wrong kind. The
    first two thirds of both are folded, the others are not.
    """
    moments = []
    moment = utc(start) - timedelta(days=1)
    while moment < utc(end) + timedelta(days=1):
        moments += [(moment, Decimal(str(step / HOUR))), (moment + step - LAST, Decimal(0))]
        moment += step
    post(usage_event, moments[0::3])
    post(usage_event, moments[2::3])
    fold(usage_event.pk)
    post(usage_event, moments[1::3])


def post(usage_event: UsageEvent, moments: list[tuple[datetime, Decimal]]) -> None:
    records = [
        {"customer_id": "cus_1", "timestamp": moment.isoformat(), "data": {"cpu_usage_hours": value}}
        for moment, value in moments
    ]
    assert take_in(usage_event, *records).accepted == len(records)


def table(metric: Metric, start: str, end: str, window: str, zone: str) -> list[tuple[str, Decimal | None, int]]:
    """Ask, and return each window's start in UTC with its quantity and number of records; one follows the other."""
    question = Question(start=utc(start), end=utc(end), window=Window(window), zone=ZoneInfo(zone))
    rows = quantities(metric.organisation_id, metric.code, question).rows
    assert [row.start for row in rows[1:]] == [row.end for row in rows[:-1]]
    assert (rows[0].start, rows[-1].end) == (question.start, question.end)
    return [(f"{row.start:%Y-%m-%dT%H:%M}", row.quantity, row.record_count) for row in rows]


def assert_lengths(
    usage_event: UsageEvent,
    start: str,
    end: str,
    window: str,
    zone: str,
    lengths: list[tuple[str, str]],
    step: timedelta,
) -> None:
    """Compare the windows that a sum and a count answer with a table of where they begin and how many hours they have.

    Half folded, and folded.
    """
    hours = active_metric(usage_event, code="hours", aggregation="sum", property="cpu_usage_hours")
    records = active_metric(usage_event, code="records", aggregation="count")
    usage_all_along(usage_event, start, end, step)
    counts = [(begin, length, int(2 * Decimal(length) / Decimal(str(step / HOUR)))) for begin, length in lengths]
    for _ in range(2):
        found = table(hours, start, end, window, zone)
        assert found == [(begin, Decimal(length), count) for begin, length, count in counts]
        assert table(records, start, end, window, zone) == [
            (begin, Decimal(count), count) for begin, _, count in counts
        ]
        fold(usage_event.pk)


Case = tuple[str, str, str, Lengths]  # zone, start and end of a period (UTC), its windows

DAYS: list[Case] = [
    ("UTC", "2025-06-01T00:00", "2025-06-03T00:00", [("2025-06-01T00:00", "24"), ("2025-06-02T00:00", "24")]),
    # From 02:00 to 03:00 on March 30th, from 03:00 to 02:00 on October 26th.
    (
        *("Europe/Berlin", "2025-03-28T23:00", "2025-03-31T22:00"),
        [("2025-03-28T23:00", "24"), ("2025-03-29T23:00", "23"), ("2025-03-30T22:00", "24")],
    ),
    (
        *("Europe/Berlin", "2025-10-24T22:00", "2025-10-27T23:00"),
        [("2025-10-24T22:00", "24"), ("2025-10-25T22:00", "25"), ("2025-10-26T23:00", "24")],
    ),
    # At half past and at a quarter past.
    ("Asia/Kolkata", "2025-05-31T18:30", "2025-06-02T18:30", [("2025-05-31T18:30", "24"), ("2025-06-01T18:30", "24")]),
    (
        "Asia/Kathmandu",
        "2025-05-31T18:15",
        "2025-06-02T18:15",
        [("2025-05-31T18:15", "24"), ("2025-06-01T18:15", "24")],
    ),
    # By half an hour: back on April 6th, forward on October 5th.
    (
        *("Australia/Lord_Howe", "2025-04-04T13:00", "2025-04-07T13:30"),
        [("2025-04-04T13:00", "24"), ("2025-04-05T13:00", "24.5"), ("2025-04-06T13:30", "24")],
    ),
    (
        *("Australia/Lord_Howe", "2025-10-03T13:30", "2025-10-06T13:00"),
        [("2025-10-03T13:30", "24"), ("2025-10-04T13:30", "23.5"), ("2025-10-05T13:00", "24")],
    ),
    # At half past, with an hour more.
    (
        *("America/St_Johns", "2025-11-01T02:30", "2025-11-04T03:30"),
        [("2025-11-01T02:30", "24"), ("2025-11-02T02:30", "25"), ("2025-11-03T03:30", "24")],
    ),
    # Samoa had no December 30th in 2011.
    ("Pacific/Apia", "2011-12-29T10:00", "2011-12-31T10:00", [("2011-12-29T10:00", "24"), ("2011-12-30T10:00", "24")]),
]


@pytest.mark.parametrize(("zone", "start", "end", "days"), DAYS)
def test_days(compute: UsageEvent, zone: str, start: str, end: str, days: Lengths) -> None:
    assert_lengths(compute, start, end, "day", zone, days, QUARTER)


HOURS: list[Case] = [
    # 02:00 comes twice, 02:00 never comes.
    (
        *("Europe/Berlin", "2025-10-25T23:00", "2025-10-26T03:00"),
        [(f"2025-10-{hour}:00", "1") for hour in ("25T23", "26T00", "26T01", "26T02")],
    ),
    (
        *("Europe/Berlin", "2025-03-30T00:00", "2025-03-30T03:00"),
        [("2025-03-30T00:00", "1"), ("2025-03-30T01:00", "1"), ("2025-03-30T02:00", "1")],
    ),
    (
        *("Asia/Kolkata", "2025-06-01T10:00", "2025-06-01T12:30"),
        [("2025-06-01T10:00", "0.5"), ("2025-06-01T10:30", "1"), ("2025-06-01T11:30", "1")],
    ),
    (
        *("Asia/Kathmandu", "2025-06-01T10:00", "2025-06-01T12:15"),
        [("2025-06-01T10:00", "0.25"), ("2025-06-01T10:15", "1"), ("2025-06-01T11:15", "1")],
    ),
    # 01:30 comes twice; from 02:00 to 02:30 there is nothing.
    (
        *("Australia/Lord_Howe", "2025-04-05T14:00", "2025-04-05T16:30"),
        [("2025-04-05T14:00", "1"), ("2025-04-05T15:00", "0.5"), ("2025-04-05T15:30", "1")],
    ),
    (
        *("Australia/Lord_Howe", "2025-10-04T14:30", "2025-10-04T17:00"),
        [("2025-10-04T14:30", "1"), ("2025-10-04T15:30", "0.5"), ("2025-10-04T16:00", "1")],
    ),
]


@pytest.mark.parametrize(("zone", "start", "end", "hours"), HOURS)
def test_hours(compute: UsageEvent, zone: str, start: str, end: str, hours: Lengths) -> None:
    assert_lengths(compute, start, end, "hour", zone, hours, QUARTER)


WEEKS: list[Case] = [
    # From Monday; the one of the 24th has an hour less. The first and the last are cut off by the period.
    (
        *("Europe/Berlin", "2025-03-19T23:00", "2025-04-01T22:00"),
        [("2025-03-19T23:00", "96"), ("2025-03-23T23:00", "167"), ("2025-03-30T22:00", "48")],
    ),
    (
        *("Asia/Kolkata", "2025-06-04T18:30", "2025-06-16T18:30"),
        [("2025-06-04T18:30", "96"), ("2025-06-08T18:30", "168"), ("2025-06-15T18:30", "24")],
    ),
]


@pytest.mark.parametrize(("zone", "start", "end", "weeks"), WEEKS)
def test_weeks(compute: UsageEvent, zone: str, start: str, end: str, weeks: Lengths) -> None:
    assert_lengths(compute, start, end, "week", zone, weeks, HOUR)


MONTHS: list[Case] = [
    (
        *("Europe/Berlin", "2025-02-27T23:00", "2025-04-01T22:00"),
        [("2025-02-27T23:00", "24"), ("2025-02-28T23:00", "743"), ("2025-03-31T22:00", "24")],
    ),
    (
        *("Asia/Kolkata", "2024-01-30T18:30", "2024-03-01T18:30"),
        [("2024-01-30T18:30", "24"), ("2024-01-31T18:30", "696"), ("2024-02-29T18:30", "24")],
    ),
]


@pytest.mark.parametrize(("zone", "start", "end", "months"), MONTHS)
def test_months(compute: UsageEvent, zone: str, start: str, end: str, months: Lengths) -> None:
    assert_lengths(compute, start, end, "month", zone, months, HOUR)


def test_a_period_may_begin_and_end_at_any_instant(compute: UsageEvent) -> None:
    hours = active_metric(compute, code="hours", aggregation="sum", property="cpu_usage_hours")
    records = active_metric(compute, code="records", aggregation="count")
    usage_all_along(compute, "2025-06-01T00:00", "2025-06-04T00:00")
    period = "2025-06-01T10:07:13.000001", "2025-06-03T09:59:59.999999"
    for _ in range(2):
        assert table(hours, *period, "day", "Asia/Kolkata") == [
            ("2025-06-01T10:07", Decimal("8.25"), 67),  # 33 quarters from 10:15 on, and the last moment of one more
            ("2025-06-01T18:30", Decimal(24), 192),
            ("2025-06-02T18:30", Decimal("15.5"), 123),  # 62 quarters; the last moment of the last one is left out
        ]
        assert table(records, *period, "total", "UTC") == [("2025-06-01T10:07", Decimal(382), 382)]
        assert table(records, *period, "hour", "UTC")[:2] == [
            ("2025-06-01T10:07", Decimal(7), 7),
            ("2025-06-01T11:00", Decimal(8), 8),
        ]
        fold(compute.pk)


def test_a_period_of_a_microsecond_has_what_is_in_it(compute: UsageEvent) -> None:
    records = active_metric(compute, code="records", aggregation="count")
    usage_all_along(compute, "2025-06-01T00:00", "2025-06-01T01:00")

    assert table(records, "2025-06-01T00:14:59.999999", "2025-06-01T00:15", "hour", "UTC") == [
        ("2025-06-01T00:14", Decimal(1), 1)
    ]
