"""Calendar windows told by looking at the clock every quarter of an hour, apart from the code under test."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from metrics.periods import Window

QUARTER = timedelta(minutes=15)  # every zone of our days is off by a multiple of it, and changes by one


@cache
def windows_of(start: datetime, end: datetime, window: Window, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
    """Cut a period where the zone's clock and calendar show another hour, day, week or month than just before."""
    first = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    quarters = [first + number * QUARTER for number in range(int((end - first) / QUARTER) + 1)]
    edges = [
        moment
        for moment in quarters
        if start < moment < end and _label(moment, window, zone) != _label(moment - QUARTER, window, zone)
    ]
    return list(zip([start.astimezone(UTC), *edges], [*edges, end.astimezone(UTC)], strict=True))


def _label(moment: datetime, window: Window, zone: ZoneInfo) -> Any:
    local = moment.astimezone(zone)
    match window:
        case Window.HOUR:
            return local.date(), local.hour, local.utcoffset()
        case Window.DAY:
            return local.date()
        case Window.WEEK:
            return local.isocalendar()[:2]
        case Window.MONTH:
            return local.year, local.month
    return None
