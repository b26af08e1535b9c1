"""Calendar windows of a period: where they begin in a time zone, as UTC instants."""

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from usage.windows import HOUR, hour_of

MAX_WINDOWS = 10_000


class PeriodError(ValueError):
    """The period cannot be cut into windows, or not into so many; the text says why."""


class Window(StrEnum):
    """How a period is cut; days, weeks (from Monday) and months are those of the zone's calendar."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def window_edges(start: datetime, end: datetime, window: Window, zone: ZoneInfo) -> list[datetime]:
    """Return the instants (UTC, ascending) that cut [start, end) into windows: window i is [edges[i], edges[i+1]).

    The first and the last window are cut off by the period's own ends. A day of the zone may have 23 or 25 hours.
    Raises PeriodError for an empty period and for more than MAX_WINDOWS windows.
    """
    if not start < end:
        raise PeriodError(f"the end must be after the start, got {start.isoformat()} to {end.isoformat()}")
    edges = [start.astimezone(UTC)]
    while (following := _next_edge(edges[-1], window, zone)) is not None and following < end:
        edges.append(following)
        if len(edges) > MAX_WINDOWS:
            raise PeriodError(
                f"at most {MAX_WINDOWS} windows were expected; ask for a shorter period or longer windows"
            )
    return [*edges, end.astimezone(UTC)]


def split_hours(edges: list[datetime]) -> list[datetime]:
    """Return the stored hours that an edge cuts in two: they have to be read record by record."""
    return sorted({hour_of(edge) for edge in edges if edge.minute or edge.second or edge.microsecond})


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return when the calendar day begins in the zone (the first instant, where midnight does not exist), in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _next_edge(edge: datetime, window: Window, zone: ZoneInfo) -> datetime | None:
    if window is Window.TOTAL:
        return None
    if window is Window.HOUR and zone.key == "UTC":
        return hour_of(edge) + HOUR
    local = edge.astimezone(zone)
    if window is Window.HOUR:
        # Through the offset of this very moment: an hour that the clock shows twice is two windows.
        offset = local.utcoffset() or timedelta()
        return hour_of((edge + offset).replace(tzinfo=UTC)) + HOUR - offset
    if window is Window.DAY:
        following = local + timedelta(days=1)
    elif window is Window.WEEK:
        following = local + timedelta(days=7 - local.weekday())
    else:
        following = local.replace(day=1) + timedelta(days=32)
        following = following.replace(day=1)
    begin = midnight(following.date(), zone)
    # Where a clock falls back at midnight, the day may begin before an instant that it shows twice.
    return begin if begin > edge else midnight(following.date() + timedelta(days=1), zone)
