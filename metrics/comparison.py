"""Two versions of a metric side by side: what each gives for the same customers and windows, before one replaces it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db.backends.utils import CursorWrapper

from metrics.exactly import EXACT, exact_total
from metrics.formulas import ADDITIVE, ZERO_FROM_NOTHING
from metrics.models import Metric
from metrics.periods import window_edges
from metrics.quantities import preview_in, quantities_in, time_limit
from metrics.questions import MAX_ROWS, Answer, Quantity, Question
from metrics.snapshots import snapshot

# More customers than this are not compared at once: the first ones with usage are.
MAX_CUSTOMERS = 500


@dataclass(frozen=True, slots=True)
class Compared:
    """What both versions give one customer in one window [start, end); None is no value."""

    customer_id: str
    start: datetime
    end: datetime
    old: Decimal | None
    new: Decimal | None

    @property
    def changed(self) -> bool:
        return self.old != self.new

    @property
    def difference(self) -> Decimal | None:
        """New less old, exact; None where one of them has no value."""
        return None if self.old is None or self.new is None else EXACT.subtract(self.new, self.old)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows by customer and window, the moment at which all of them held, and whether every customer is among them."""

    old: Metric
    new: Metric
    rows: list[Compared]
    as_of: datetime
    complete: bool

    @property
    def changed_first(self) -> list[Compared]:
        """The rows, those that differ before the others, the largest difference first."""
        return sorted(self.rows, key=lambda row: (not row.changed, row.difference is not None, -_size(row)))

    @property
    def changed_count(self) -> int:
        return sum(row.changed for row in self.rows)

    @property
    def total(self) -> tuple[Decimal, Decimal, Decimal] | None:
        """Old, new and difference of all rows; None where quantities of windows do not add up to anything."""
        if not all(metric.aggregation in ADDITIVE for metric in (self.old, self.new)):
            return None
        old = exact_total([row.old for row in self.rows])
        new = exact_total([row.new for row in self.rows])
        return old, new, EXACT.subtract(new, old)


def compare(old: Metric, new: Metric, question: Question) -> Comparison:
    """Return what two versions of a metric give, both read in one snapshot, without their dimensions.

    The version in force answers from its aggregates, others are calculated from the records; nothing is stored. SQL is
    run on a connection, and so in a snapshot, of its own. Asks for the named customers, or for the first
    MAX_CUSTOMERS with usage of either version. Raises what `quantities` raises.
    """
    question = replace(question, group_by=(), after=0, page_size=MAX_CUSTOMERS)
    seconds = settings.QUANTITIES_SECONDS
    with time_limit(seconds), snapshot(seconds=seconds) as cursor:
        before, after = _ask(cursor, old, question), _ask(cursor, new, question)
        complete = before.next is None and after.next is None
        if not complete:
            # A customer that is on one page only may have usage of the other version too.
            both = dict.fromkeys(row.customer_id for row in [*before.rows, *after.rows])
            windows = len(window_edges(question.start, question.end, question.window, question.zone)) - 1
            most = min(MAX_CUSTOMERS, max(1, MAX_ROWS // windows))
            named = replace(question, customer_ids=list(both)[:most])
            before, after = _ask(cursor, old, named), _ask(cursor, new, named)
    return Comparison(old, new, _paired(before, after), before.as_of, complete)


def _ask(cursor: CursorWrapper, metric: Metric, question: Question) -> Answer:
    if metric.status == Metric.Status.ACTIVE:
        answer = quantities_in(cursor, metric.organisation_id, metric.code, question)
        if answer.metric.pk == metric.pk:  # else another version came into force since the caller looked
            return answer
    return preview_in(cursor, metric, question)


def _paired(before: Answer, after: Answer) -> list[Compared]:
    old, new = _by_place(before.rows), _by_place(after.rows)
    places = sorted(dict.fromkeys([*old, *new]))
    nothing_old, nothing_new = _nothing(before.metric), _nothing(after.metric)
    return [Compared(*place, old.get(place, nothing_old), new.get(place, nothing_new)) for place in places]


def _by_place(rows: Sequence[Quantity]) -> dict[tuple[str, datetime, datetime], Decimal | None]:
    return {(row.customer_id, row.start, row.end): row.quantity for row in rows}


def _nothing(metric: Metric) -> Decimal | None:
    """What a window without records gives."""
    return Decimal(0) if metric.aggregation in ZERO_FROM_NOTHING else None


def _size(row: Compared) -> Decimal:
    return Decimal(0) if row.difference is None else abs(row.difference)
