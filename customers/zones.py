"""Time zones by their IANA names, checked where they enter."""

import functools
import zoneinfo

from django.core.exceptions import ValidationError


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Return the IANA time zone of that name; raises ValueError for a name that is none."""
    try:
        if name == "localtime":  # there on many machines, and another zone on each
            raise ValueError(name)
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone such as 'Europe/Berlin'") from error


def validate_zone(name: str) -> None:
    """Model validator: raises ValidationError for a name that is no time zone."""
    try:
        zone(name)
    except ValueError as error:
        raise ValidationError(str(error), code="timezone") from error


@functools.cache
def zone_names() -> tuple[str, ...]:
    """Return the names of all IANA time zones, UTC first."""
    regions = sorted(name for name in zoneinfo.available_timezones() if "/" in name and not name.startswith("Etc/"))
    return ("UTC", *regions)
