"""The stored window: one hour, UTC, half-open [start, start + 1 h)."""

from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)


def hour_of(moment: datetime) -> datetime:
    """Return the start of the UTC hour that holds the moment; raises ValueError for a moment without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"a moment with a zone was expected, got {moment.isoformat()}")
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
