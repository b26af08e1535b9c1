"""Quantities: what a metric gives for customers over a period, exact at the moment of asking."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db.backends.utils import CursorWrapper

from customers.models import Customer
from metrics import sql
from metrics.formulas import quantity_of
from metrics.models import Metric
from metrics.periods import PeriodError, Window, split_hours, window_edges
from metrics.reading import Reading, changed_windows, customers_with_usage, pending_batches, read_states
from metrics.snapshots import snapshot

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


@dataclass(frozen=True, slots=True)
class Question:
    """A period [start, end) of instants, cut into windows of a time zone, for the named customers or for all."""

    start: datetime
    end: datetime
    window: Window = Window.TOTAL
    zone: ZoneInfo = UTC_ZONE
    customer_ids: Sequence[str] = ()
    after: int = 0
    page_size: int = PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity of one customer in one window [start, end), UTC; `record_count` records were counted."""

    customer_id: str
    start: datetime
    end: datetime
    quantity: Decimal | None
    record_count: int
    dimensions: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Quantities by customer and window, the moment at which all of them held, and where the next page begins."""

    metric: Metric
    rows: list[Quantity]
    as_of: datetime
    next: int | None


def quantities(organisation_id: int, code: str, question: Question) -> Answer:
    """Return the quantities of the active version of a metric; every acknowledged record is in them.

    Everything is read in one snapshot. Windows without records are left out, except that a total for named customers
    has a row for each. Pages hold fewer customers where each has many windows. Raises UnknownMetric, NotActive,
    UnknownCustomer, and PeriodError for a period that cannot be cut, or for named customers with more than MAX_ROWS
    windows in all.
    """
    with snapshot() as cursor:
        return quantities_in(cursor, organisation_id, code, question)


def quantities_in(cursor: CursorWrapper, organisation_id: int, code: str, question: Question) -> Answer:
    """Return what `quantities` returns, inside a snapshot that the caller holds."""
    edges = window_edges(question.start, question.end, question.window, question.zone)
    as_of = sql.moment(cursor)
    metric = _active(organisation_id, code)
    reading = Reading(
        edges=edges,
        split=split_hours(edges),
        batch_ids=pending_batches(cursor, metric.usage_event_id),
        changed=changed_windows(cursor, metric.usage_event_id, edges[0], edges[-1]),
    )
    room = max(1, MAX_ROWS // (len(edges) - 1))
    customers, following = _customers(cursor, metric, reading, question, min(question.page_size, room), room)
    states = read_states(cursor, metric, reading, list(customers)) if customers else []
    rows = [
        Quantity(customers[customer_id], edges[i], edges[i + 1], quantity_of(metric, state), int(state["record_count"]))
        for customer_id, i, _, state in states
    ]
    if question.window is Window.TOTAL and question.customer_ids:
        rows = _one_for_each(metric, question.customer_ids, rows, edges)
    return Answer(metric, rows, as_of, following)


def _active(organisation_id: int, code: str) -> Metric:
    versions = Metric.objects.filter(organisation_id=organisation_id, code=code).order_by("-version")
    metric = versions.filter(status=Metric.Status.ACTIVE).first()
    if metric is not None:
        return metric
    latest = versions.first()
    if latest is None:
        raise UnknownMetric(code)
    raise NotActive(latest.status)


def _customers(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, page_size: int, most: int
) -> tuple[dict[int, str], int | None]:
    """Return the customers of this page, id to external id, and the id after which the next page begins."""
    of_organisation = Customer.objects.filter(organisation_id=metric.organisation_id)
    if question.customer_ids:
        if len(question.customer_ids) > most:
            raise PeriodError(f"at most {most} customers can be asked for so many windows at once")
        named = dict(of_organisation.filter(external_id__in=question.customer_ids).values_list("pk", "external_id"))
        known = set(named.values())
        for external_id in question.customer_ids:
            if external_id not in known:
                raise UnknownCustomer(external_id)
        return named, None
    ids = customers_with_usage(cursor, metric, reading, after=question.after, limit=page_size + 1)
    page = ids[:page_size]
    names = dict(of_organisation.filter(pk__in=page).values_list("pk", "external_id"))
    return names, page[-1] if len(ids) > len(page) else None


def _one_for_each(
    metric: Metric, customer_ids: Sequence[str], rows: list[Quantity], edges: list[datetime]
) -> list[Quantity]:
    found = {row.customer_id: row for row in rows}
    nothing = quantity_of(metric, {"record_count": 0, "value_count": 0, "sum": None})
    return [
        found.get(customer_id) or Quantity(customer_id, edges[0], edges[-1], nothing, 0)
        for customer_id in dict.fromkeys(customer_ids)
    ]
