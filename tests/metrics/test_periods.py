"""Windows of a period: calendar days of any zone, cut off by the period's ends."""

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from metrics.periods import Window, midnight, split_hours, window_edges

BERLIN = ZoneInfo("Europe/Berlin")
KOLKATA = ZoneInfo("Asia/Kolkata")
ZERO = ZoneInfo("UTC")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def test_total_is_one_window() -> None:
    edges = window_edges(utc(2025, 6, 1, 0, 7), utc(2025, 7, 1), Window.TOTAL, BERLIN)

    assert edges == [utc(2025, 6, 1, 0, 7), utc(2025, 7, 1)]


def test_days_are_cut_off_by_the_period() -> None:
    edges = window_edges(utc(2025, 6, 1, 12), utc(2025, 6, 3, 6), Window.DAY, ZERO)

    assert edges == [utc(2025, 6, 1, 12), utc(2025, 6, 2), utc(2025, 6, 3), utc(2025, 6, 3, 6)]


def test_days_of_a_half_hour_zone_begin_at_half_past() -> None:
    edges = window_edges(midnight(date(2025, 6, 1), KOLKATA), midnight(date(2025, 6, 3), KOLKATA), Window.DAY, KOLKATA)

    assert edges == [utc(2025, 5, 31, 18, 30), utc(2025, 6, 1, 18, 30), utc(2025, 6, 2, 18, 30)]
    assert split_hours(edges) == [utc(2025, 5, 31, 18), utc(2025, 6, 1, 18), utc(2025, 6, 2, 18)]


@pytest.mark.parametrize(("day", "hours"), [(date(2025, 3, 30), 23), (date(2025, 10, 26), 25), (date(2025, 6, 1), 24)])
def test_days_have_the_hours_that_the_clock_had(day: date, hours: int) -> None:
    start, end = midnight(day, BERLIN), midnight(day + timedelta(days=1), BERLIN)

    assert end - start == timedelta(hours=hours)
    assert window_edges(start, end, Window.DAY, BERLIN) == [start, end]
    assert len(window_edges(start, end, Window.HOUR, BERLIN)) == hours + 1


def test_an_hour_that_the_clock_shows_twice_is_two_windows() -> None:
    edges = window_edges(utc(2025, 10, 26, 0), utc(2025, 10, 26, 3), Window.HOUR, BERLIN)

    assert edges == [utc(2025, 10, 26, hour) for hour in range(4)]


def test_lord_howe_changes_by_half_an_hour() -> None:
    zone = ZoneInfo("Australia/Lord_Howe")
    start, end = midnight(date(2025, 4, 6), zone), midnight(date(2025, 4, 7), zone)

    assert end - start == timedelta(hours=24, minutes=30)
    edges = window_edges(start, end, Window.HOUR, zone)
    assert edges[0] == start
    assert edges[-1] == end
    assert all(timedelta(0) < later - earlier <= timedelta(hours=1) for earlier, later in itertools.pairwise(edges))


def test_a_day_without_midnight_begins_with_its_first_instant() -> None:
    # Beirut went from 2023-03-25 24:00 straight to 01:00.
    assert midnight(date(2024, 3, 31), ZoneInfo("Asia/Beirut")) == utc(2024, 3, 30, 22)


def test_a_day_that_never_was_is_no_window() -> None:
    # Samoa skipped 2011-12-30 altogether.
    zone = ZoneInfo("Pacific/Apia")
    edges = window_edges(midnight(date(2011, 12, 29), zone), midnight(date(2012, 1, 1), zone), Window.DAY, zone)

    assert edges == sorted(set(edges))
    assert [later - earlier for earlier, later in itertools.pairwise(edges)] == [timedelta(days=1)] * 2


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    weeks = window_edges(utc(2025, 6, 4), utc(2025, 6, 20), Window.WEEK, ZERO)
    months = window_edges(utc(2024, 12, 31), utc(2025, 3, 2), Window.MONTH, ZERO)

    assert weeks == [utc(2025, 6, 4), utc(2025, 6, 9), utc(2025, 6, 16), utc(2025, 6, 20)]
    assert months == [utc(2024, 12, 31), utc(2025, 1, 1), utc(2025, 2, 1), utc(2025, 3, 1), utc(2025, 3, 2)]


@pytest.mark.parametrize("end", [utc(2025, 6, 1), utc(2025, 5, 1)])
def test_an_empty_period_is_refused(end: datetime) -> None:
    with pytest.raises(ValueError, match="the end must be after the start"):
        window_edges(utc(2025, 6, 1), end, Window.DAY, ZERO)


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 10000 windows"):
        window_edges(utc(2020, 1, 1), utc(2025, 1, 1), Window.HOUR, ZERO)


def test_edges_rise_where_a_clock_fell_back_at_midnight() -> None:
    # St John's went from 00:01 on 2010-11-07 back to 23:01 the day before.
    edges = window_edges(utc(2010, 11, 7, 2, 45), utc(2010, 11, 9), Window.DAY, ZoneInfo("America/St_Johns"))

    assert edges == sorted(set(edges))
