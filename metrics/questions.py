"""What can be asked of a metric, what is answered, and why it may not be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from metrics.models import Metric
from metrics.periods import Window

PAGE_SIZE = 100
MAX_PAGE_SIZE = 500
MAX_ROWS = 50_000
UTC_ZONE = ZoneInfo("UTC")


class UnknownMetric(LookupError):
    """The organisation has no metric of that code."""


class NotActive(Exception):
    """The metric has never been active; `status` says how far it is."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the metric is not active yet, its status is {status!r}")
        self.status = status


class UnknownCustomer(LookupError):
    """The organisation has no customer of that external id."""


class UnknownDimension(ValueError):
    """The metric does not group by that property; `parameter` names what asked for it."""

    def __init__(self, parameter: str, name: str, known: Sequence[str]) -> None:
        listed = ", ".join(f"'{one}'" for one in known) or "none"
        super().__init__(f"a property that the metric groups by was expected ({listed}), got '{name}'")
        self.parameter = parameter


class TookTooLong(Exception):
    """The answer was not there in time; `seconds` says how long it was waited for."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"this takes longer than {seconds:g} s to calculate; ask for a shorter period or for fewer customers"
        )
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Exactly:
    """A dimension's value and nothing else that is written alike: as answers give it, None for records without one."""

    value: object


@dataclass(frozen=True, slots=True)
class Question:
    """A period [start, end) of instants, cut into windows of a time zone, for the named customers or for all.

    `group_by` names some of the metric's dimensions: a row for each combination of their values. `filter_by` leaves
    only the records whose dimension has one of the values: what a text may stand for (also the number or boolean that
    is written so), or a value exactly. SQL is asked by text alone.
    """

    start: datetime
    end: datetime
    window: Window = Window.TOTAL
    zone: ZoneInfo = UTC_ZONE
    customer_ids: Sequence[str] = ()
    after: int = 0
    page_size: int = PAGE_SIZE
    group_by: Sequence[str] = ()
    filter_by: Mapping[str, Sequence[str | Exactly]] = field(default_factory=dict)

    def check_dimensions(self, known: Sequence[str]) -> None:
        """Raise UnknownDimension for a dimension that is none of the known ones."""
        for name in self.group_by:
            if name not in known:
                raise UnknownDimension("group_by", name, known)
        for name in self.filter_by:
            if name not in known:
                raise UnknownDimension(f"filter.{name}", name, known)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity of one customer in one window [start, end), UTC.

    `record_count` records passed the filters, `value_count` of them had a value. A dimension's value is None for
    records without the property.
    """

    customer_id: str
    start: datetime
    end: datetime
    quantity: Decimal | None
    record_count: int
    value_count: int = 0
    dimensions: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Quantities by customer and window, the moment at which all of them held, and where the next page begins."""

    metric: Metric
    rows: list[Quantity]
    as_of: datetime
    next: int | None
