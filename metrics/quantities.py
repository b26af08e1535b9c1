"""Quantities: what a metric gives for customers over a period, exact at the moment of asking."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg.errors
from django.conf import settings
from django.db import OperationalError, connection
from django.db.backends.utils import CursorWrapper

from customers.exactjson import loads
from customers.models import Customer
from metrics import session_sql
from metrics.asked_customers import named_customers
from metrics.asking_sql import metric_in_force
from metrics.formulas import quantity_of
from metrics.models import Aggregation, Metric
from metrics.periods import PeriodError, Window, split_hours, window_edges
from metrics.questions import (
    MAX_ROWS,
    Answer,
    NotActive,
    Quantity,
    Question,
    TookTooLong,
    UnknownMetric,
)
from metrics.reading import Reading, not_folded
from metrics.reading_sql import customers_with_usage, read_states
from metrics.sandbox import sql_quantities
from metrics.snapshots import snapshot
from usage.timestamps import FIRST_MOMENT


def quantities(organisation_id: int, code: str, question: Question) -> Answer:
    """Return the quantities of the active version of a metric; every acknowledged record is in them.

    Everything is read in one snapshot. Windows without records are left out, except that a total for named customers
    without dimensions has a row for each; a weighted sum has a row wherever a value was held. Pages hold fewer
    customers where each has many rows. Raises UnknownMetric, NotActive, UnknownCustomer, UnknownDimension, PeriodError
    for a period that cannot be cut or has more than MAX_ROWS rows, and TookTooLong.
    """
    return _in_time(lambda cursor: quantities_in(cursor, organisation_id, code, question))


def preview(metric: Metric, question: Question) -> Answer:
    """Return what a definition would give, stored or not, from the records themselves; raises as `quantities`."""
    return _in_time(lambda cursor: preview_in(cursor, metric, question))


def quantities_in(cursor: CursorWrapper, organisation_id: int, code: str, question: Question) -> Answer:
    """Return what `quantities` returns, inside a snapshot that the caller holds."""
    return _answer(cursor, active_metric(organisation_id, code), question, from_records=False)


def preview_in(cursor: CursorWrapper, metric: Metric, question: Question) -> Answer:
    """Return what `preview` returns, inside a snapshot that the caller holds."""
    return _answer(cursor, metric, question, from_records=True)


def active_metric(organisation_id: int, code: str) -> Metric:
    """Return the version of a metric that is in force; raises UnknownMetric and NotActive."""
    metric = metric_in_force(organisation_id, code)
    if metric is not None:
        return metric
    latest = Metric.objects.filter(organisation_id=organisation_id, code=code).order_by("-version").first()
    if latest is None:
        raise UnknownMetric(code)
    raise NotActive(latest.status)


def reading_of(cursor: CursorWrapper, metric: Metric, edges: list[datetime], *, from_records: bool) -> Reading:
    """Return where the quantities of a period have to be read in this snapshot."""
    if from_records:
        return Reading(edges, session_sql.moment(cursor), from_records=True)
    # What is held over into the period may have been marked before it.
    start = FIRST_MOMENT if metric.aggregation == Aggregation.WEIGHTED_SUM else edges[0]
    as_of, batch_ids, changed = not_folded(cursor, metric.usage_event_id, start, edges[-1])
    return Reading(edges, as_of, split=split_hours(edges), batch_ids=batch_ids, changed=changed)


def _in_time(ask: Callable[[CursorWrapper], Answer]) -> Answer:
    seconds = settings.QUANTITIES_SECONDS
    with time_limit(seconds), snapshot(seconds=seconds) as cursor:
        return ask(cursor)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Turn what the database cut off into TookTooLong; when the time is up, no other statement begins."""
    deadline = time.monotonic() + seconds

    def in_time(execute: Callable[..., Any], *statement: Any) -> Any:
        if time.monotonic() > deadline:
            raise TookTooLong(seconds)
        return execute(*statement)

    try:
        with connection.execute_wrapper(in_time):
            yield
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            raise TookTooLong(seconds) from error
        raise


def _answer(cursor: CursorWrapper, metric: Metric, question: Question, *, from_records: bool) -> Answer:
    if metric.sql:
        return sql_quantities(metric, question)
    question.check_dimensions(metric.group_by)
    edges = window_edges(question.start, question.end, question.window, question.zone)
    reading = reading_of(cursor, metric, edges, from_records=from_records)
    names, rows, following = _page(cursor, metric, reading, question)
    if question.window is Window.TOTAL and question.customer_ids and not question.group_by:
        rows = _one_for_each(metric, list(names.values()), rows, edges)
    return Answer(metric, rows, reading.as_of, following)


def _page(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question
) -> tuple[dict[int, str], list[Quantity], int | None]:
    """Return the customers of a page (id to external id), their rows, and the id after which the next page begins.

    A page that would have too many rows is read anew with fewer customers.
    """
    room = max(1, MAX_ROWS // (len(reading.edges) - 1))
    if question.customer_ids:
        names = _named(metric, question.customer_ids, room)
        return names, _rows(cursor, metric, reading, question, names), None
    page_size = min(question.page_size, room)
    while True:
        names, following = _customers(cursor, metric, reading, question.after, page_size)
        try:
            return names, _rows(cursor, metric, reading, question, names), following
        except _TooManyRows:
            if page_size == 1:
                raise _TooManyRows(next(iter(names.values())), following) from None
            page_size //= 2


class _TooManyRows(PeriodError):
    """More rows than an answer holds; of one customer alone, who is named, and where the others go on."""

    def __init__(self, customer_id: str | None = None, following: int | None = None) -> None:
        of_whom = "" if customer_id is None else f" and customer '{customer_id}' alone has more"
        others = "" if following is None else f" (the customers behind are at cursor={following})"
        super().__init__(
            f"at most {MAX_ROWS} rows were expected{of_whom}{others};"
            " ask for a shorter period, longer windows, or fewer dimensions"
        )


def _rows(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, names: dict[int, str]
) -> list[Quantity]:
    if not names:
        return []
    reading = replace(reading, changed=[mark for mark in reading.changed if mark[0] in names])
    states = read_states(cursor, metric, reading, question, list(names), MAX_ROWS + 1)
    if len(states) > MAX_ROWS:
        raise _TooManyRows
    edges = reading.edges
    return [
        Quantity(
            customer_id=names[place.customer_id],
            start=edges[place.window],
            end=edges[place.window + 1],
            quantity=quantity_of(metric, state),
            record_count=int(state.get("record_count", 0)),
            value_count=int(state.get("value_count", 0)),
            dimensions=_dimensions(question.group_by, place.dimensions),
        )
        for place, state in states.items()
    ]


def _dimensions(names: Sequence[str], text: str) -> dict[str, object]:
    return dict(zip(names, loads(text), strict=True)) if names else {}


def _named(metric: Metric, customer_ids: Sequence[str], most: int) -> dict[int, str]:
    if len(customer_ids) > most:
        raise PeriodError(f"at most {most} customers can be asked for so many windows at once")
    return named_customers(metric.organisation_id, customer_ids)


def _customers(
    cursor: CursorWrapper, metric: Metric, reading: Reading, after: int, page_size: int
) -> tuple[dict[int, str], int | None]:
    if metric.aggregation == Aggregation.WEIGHTED_SUM:
        reading = reading.since_ever()
    else:
        # What an edge inside the period cuts in two is in the period as a whole: aggregates tell as well.
        reading = replace(reading, split=split_hours([reading.edges[0], reading.edges[-1]]))
    ids = customers_with_usage(cursor, metric, reading, after=after, limit=page_size + 1)
    page = ids[:page_size]
    found = Customer.objects.filter(organisation_id=metric.organisation_id, pk__in=page).order_by("pk")
    return dict(found.values_list("pk", "external_id")), page[-1] if len(ids) > len(page) else None


def _one_for_each(
    metric: Metric, customer_ids: Sequence[str], rows: list[Quantity], edges: list[datetime]
) -> list[Quantity]:
    found = {row.customer_id: row for row in rows}
    nothing = quantity_of(metric, {})
    return [
        found.get(customer_id) or Quantity(customer_id, edges[0], edges[-1], nothing, 0) for customer_id in customer_ids
    ]
