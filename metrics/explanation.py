"""Explanations of a quantity: what was counted, what was not and why, where it was read, and the records themselves."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

from django.db.backends.utils import CursorWrapper

from metrics import explanation_sql
from metrics.explained_records import (
    RecordsPage,
    SeenRecord,
    about_the_whole,
    counted_records_in,
    in_snapshot,
    seen,
)
from metrics.explanation_sql import Tally
from metrics.formulas import READ_FROM_RECORDS, quantity_of
from metrics.merged_sql import State
from metrics.models import Aggregation, Metric
from metrics.periods import Window, window_edges
from metrics.quantities import active_metric, reading_of
from metrics.questions import Question
from metrics.reading import Reading
from metrics.reading_sql import read_states
from metrics.sandbox import sql_quantities
from metrics.sandbox_runs import PER_CUSTOMER, checked_sql
from usage.record_filters import Place
from usage.references import batch_reference
from usage.windows import HOUR

MAX_PARTS = 1_000

Found = TypeVar("Found")


class Source(StrEnum):
    """Where a part of a quantity was read."""

    AGGREGATES = "aggregates"  # stored hours
    RECORDS = "records"  # hours that the period cuts, and aggregations whose windows do not merge
    PENDING = "pending"  # a batch that no fold has added yet
    CHANGED = "changed"  # an hour that a correction touched since the last fold
    SQL = "sql"  # a calendar window for which the SQL was run


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the period [start, end), where it was read, and how many records that passed the filters are in it.

    `record_count` is None for SQL. Of a pending batch, `batch` is the public name, and start and end are the hours
    that its records lie in.
    """

    start: datetime
    end: datetime
    source: Source
    record_count: int | None
    batch: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a customer's quantity of a period came about; all of it was read in one snapshot, at `as_of`.

    `recount` is the quantity calculated from the records alone. `carried_in` are the records whose values a weighted
    sum holds when the period begins. `truncated`: there are more parts, or values carried in, than MAX_PARTS. Of SQL,
    `tables` are the tables that it reads and `placeholders` those in its text, whose values each part gives; `recount`,
    and which records it counts, are not known.
    """

    metric: Metric
    question: Question
    as_of: datetime
    quantity: Decimal | None
    recount: Decimal | None = None
    tally: Tally | None = None
    parts: list[Part] = field(default_factory=list)
    carried_in: list[SeenRecord] = field(default_factory=list)
    truncated: bool = False
    tables: list[str] = field(default_factory=list)
    placeholders: tuple[str, ...] = ()

    @property
    def customer_id(self) -> str:
        return self.question.customer_ids[0]

    def bound(self, part: Part) -> dict[str, datetime | str]:
        """Return the values that the placeholders of SQL have in a part."""
        values: dict[str, datetime | str] = {
            "start_date": part.start,
            "end_date": part.end,
            PER_CUSTOMER: self.customer_id,
        }
        return {name: values[name] for name in self.placeholders}


def explain(organisation_id: int, code: str, question: Question) -> Explanation:
    """Return how the quantity of the question's one customer over its whole period came about.

    Raises what `quantities` raises. The quantity is the one that `quantities` gives at that moment. SQL is run in a
    snapshot of its own.
    """
    return _explained(organisation_id, code, question, explain_in)


def explain_with_records(
    organisation_id: int, code: str, question: Question, *, skipped: bool, place: Place | None, page_size: int
) -> tuple[Explanation, RecordsPage | None]:
    """Return an explanation and a page of its records (None for SQL), both as of one moment; raises as `explain`."""

    def both(cursor: CursorWrapper, metric: Metric, asked: Question) -> tuple[Explanation, RecordsPage | None]:
        page = counted_records_in(cursor, metric, asked, skipped=skipped, place=place, page_size=page_size)
        return explain_in(cursor, metric, asked), page

    found = _explained(organisation_id, code, question, both)
    return (found, None) if isinstance(found, Explanation) else found


def _explained(
    organisation_id: int, code: str, question: Question, ask: Callable[[CursorWrapper, Metric, Question], Found]
) -> Found | Explanation:
    """Ask about the version in force inside a snapshot; of SQL, outside of it."""

    def inside(cursor: CursorWrapper) -> Found | Metric:
        metric = active_metric(organisation_id, code)
        return metric if metric.sql else ask(cursor, metric, question)

    found = in_snapshot(inside)
    return _explain_sql(found, question) if isinstance(found, Metric) else found


def explain_in(cursor: CursorWrapper, metric: Metric, question: Question) -> Explanation:
    """Return what `explain` returns of a metric of records, inside a snapshot that the caller holds."""
    question, customer_id = about_the_whole(metric, question)
    edges = window_edges(question.start, question.end, Window.TOTAL, question.zone)
    reading = reading_of(cursor, metric, edges, from_records=False)
    reading = replace(reading, changed=[mark for mark in reading.changed if mark[0] == customer_id])
    states = read_states(cursor, metric, reading, question, [customer_id], 1)
    recounted = read_states(cursor, metric, reading.of_records(), question, [customer_id], 1)
    counted = explanation_sql.tally(cursor, metric, reading, question, customer_id)
    if metric.aggregation in READ_FROM_RECORDS:
        parts = [Part(edges[0], edges[-1], Source.RECORDS, counted.counted + counted.no_value)]
    else:
        parts = sorted(_parts(cursor, metric, reading, question, customer_id), key=_place_of_part)
    held = _carried_in(cursor, metric, reading, question, customer_id)
    return Explanation(
        metric=metric,
        question=question,
        as_of=reading.as_of,
        quantity=quantity_of(metric, _only(states)),
        recount=quantity_of(metric, _only(recounted)),
        tally=counted,
        parts=parts[:MAX_PARTS],
        carried_in=held[:MAX_PARTS],
        truncated=max(len(parts), len(held)) > MAX_PARTS,
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _parts(cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customer_id: int) -> list[Part]:
    """Return where each record was read; every record of the quantity is in exactly one part."""
    start, end = reading.edges[0], reading.edges[-1]
    about = (cursor, metric, reading, question, customer_id)
    limit = MAX_PARTS + 1
    stored = explanation_sql.stored_runs(*about, limit)
    parts = [Part(first, last, Source.AGGREGATES, count) for first, last, count in stored]
    changed = [hour for _, hour in reading.changed if hour not in reading.split]
    for hours, source, name in ((reading.split, Source.RECORDS, "split"), (changed, Source.CHANGED, "changed")):
        counts = explanation_sql.hours_of_records(*about, name)
        parts += [Part(max(hour, start), min(hour + HOUR, end), source, counts.get(hour, 0)) for hour in hours]
    for batch_id, received_at, first, last, count in explanation_sql.batches_of_records(*about, limit):
        name = batch_reference(batch_id, received_at)
        parts.append(Part(max(first, start), min(last, end), Source.PENDING, count, name))
    return parts


def _place_of_part(part: Part) -> tuple[datetime, str, str]:
    return part.start, part.source, part.batch or ""


def _carried_in(
    cursor: CursorWrapper, metric: Metric, reading: Reading, question: Question, customer_id: int
) -> list[SeenRecord]:
    if metric.aggregation != Aggregation.WEIGHTED_SUM or reading.as_of <= reading.edges[0]:
        return []
    rows = explanation_sql.carried_in(cursor, metric, reading, question, customer_id, MAX_PARTS + 1)
    return [seen(metric, row) for row in rows]


# --- SQL -------------------------------------------------------------------------------------------------------------


def _explain_sql(metric: Metric, question: Question) -> Explanation:
    question, _ = about_the_whole(metric, question)
    checked = checked_sql(metric)
    answer = sql_quantities(metric, question)
    edges = window_edges(question.start, question.end, Window(metric.sql_window), question.zone)
    runs = [Part(start, end, Source.SQL, None) for start, end in pairwise(edges)]
    return Explanation(
        metric=metric,
        question=question,
        as_of=answer.as_of,
        quantity=answer.rows[0].quantity if answer.rows else None,
        parts=runs[:MAX_PARTS],
        truncated=len(runs) > MAX_PARTS,
        tables=sorted(checked.tables),
        placeholders=checked.parameters,
    )


def _only(states: dict[Any, State]) -> State:
    return next(iter(states.values()), {})
