"""What can be asked of records, apart from how they are found: a filter, and a place in the list."""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from usage.timestamps import EPOCH

PLACE = re.compile(r"([np])([0-9]{1,17})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which of an organisation's records are asked for; None asks nothing. Ranges are half-open: [after, before).

    `data` holds for a property the JSON texts of which it must equal one.
    """

    organisation_id: int
    usage_event_id: int | None = None
    customer_id: int | None = None
    timestamp_after: datetime | None = None
    timestamp_before: datetime | None = None
    received_after: datetime | None = None
    received_before: datetime | None = None
    record_id: str | None = None
    batch_id: int | None = None
    voided: bool | None = None
    data: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """A record's place in a list: the instant that the list is ordered by, and the record's id."""

    moment: datetime
    record_id: int
    backwards: bool = False

    def text(self) -> str:
        """Return the place as the cursor of a link."""
        microseconds = (self.moment - EPOCH) // timedelta(microseconds=1)
        return f"{'p' if self.backwards else 'n'}{microseconds}-{self.record_id}"


def parse_place(text: str) -> Place:
    """Return the place that a cursor names; raises ValueError for a text that no link of ours held."""
    match = PLACE.fullmatch(text)
    if match is None:
        raise ValueError("the cursor of a link to a page was expected")
    return Place(EPOCH + timedelta(microseconds=int(match[2])), int(match[3]), match[1] == "p")
