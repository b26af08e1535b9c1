"""The records behind a quantity, page by page, as a metric sees them: which count, with what value, and why not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from django.conf import settings
from django.db.backends.utils import CursorWrapper

from customers.exactjson import loads
from metrics import explanation_sql, session_sql
from metrics.asked_customers import named_customers
from metrics.explanation_sql import RecordRow
from metrics.models import Metric
from metrics.periods import Window, window_edges
from metrics.quantities import active_metric, time_limit
from metrics.questions import Question, UnknownDimension
from metrics.snapshots import snapshot
from usage.record_filters import Place

Found = TypeVar("Found")


class NoRecords(LookupError):
    """Which records the SQL of a metric counts is not known."""


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """A record as a metric sees it. `value` is text, None if there is none; `reason` says why it is not counted."""

    id: int
    record_id: str | None
    timestamp: datetime
    data: dict[str, Any]
    value: str | None
    dimensions: dict[str, Any]
    reason: str | None

    @property
    def counted(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """Records behind a quantity, oldest first, and the places of the pages beside; None where there is none."""

    metric: Metric
    as_of: datetime
    rows: list[SeenRecord]
    next: Place | None
    previous: Place | None


def counted_records(
    organisation_id: int,
    code: str,
    question: Question,
    *,
    skipped: bool = False,
    place: Place | None = None,
    page_size: int = 100,
) -> RecordsPage:
    """Return a page of the records that the quantity counts, oldest first; with `skipped`, those that it does not too.

    Raises what `quantities` raises, and NoRecords for a metric of SQL.
    """
    return in_snapshot(
        lambda cursor: counted_records_in(
            cursor, active_metric(organisation_id, code), question, skipped=skipped, place=place, page_size=page_size
        )
    )


def counted_records_in(
    cursor: CursorWrapper, metric: Metric, question: Question, *, skipped: bool, place: Place | None, page_size: int
) -> RecordsPage:
    """Return what `counted_records` returns, inside a snapshot that the caller holds."""
    if metric.sql:
        raise NoRecords(metric.code)
    as_of = session_sql.moment(cursor)
    question, customer_id = about_the_whole(metric, question)
    window_edges(question.start, question.end, Window.TOTAL, question.zone)  # refuses a period that is none
    found = explanation_sql.records_page(
        cursor, metric, question, customer_id, skipped=skipped, place=place, limit=page_size + 1
    )
    backwards = place is not None and place.backwards
    more, found = len(found) > page_size, found[:page_size]
    if backwards:
        found.reverse()
    first = Place(found[0].timestamp, found[0].id, backwards=True) if found else None
    last = Place(found[-1].timestamp, found[-1].id) if found else None
    return RecordsPage(
        metric=metric,
        as_of=as_of,
        rows=[seen(metric, row) for row in found],
        next=last if more or backwards else None,
        previous=first if (more if backwards else place is not None) else None,
    )


def in_snapshot(ask: Callable[[CursorWrapper], Found]) -> Found:
    """Return what is found in a snapshot that is only read, in the time that quantities have; raises TookTooLong."""
    seconds = settings.QUANTITIES_SECONDS
    with time_limit(seconds), snapshot(seconds=seconds) as cursor:
        return ask(cursor)


def seen(metric: Metric, row: RecordRow) -> SeenRecord:
    """Return a record as the metric sees it, with the reason why it is not counted, if there is one."""
    return SeenRecord(
        id=row.id,
        record_id=row.record_id,
        timestamp=row.timestamp,
        data=loads(row.data),
        value=row.value,
        dimensions=named_dimensions(metric, row.dimensions),
        reason=reason_of(voided=row.voided, passes=row.passes, has_value=row.value is not None),
    )


def named_dimensions(metric: Metric, text: str) -> dict[str, Any]:
    """Return the values of all dimensions by property, out of the text of a JSON array."""
    return dict(zip(metric.group_by, loads(text), strict=True)) if metric.group_by else {}


def reason_of(*, voided: bool, passes: bool, has_value: bool) -> str | None:
    """Return why a record is not counted, one reason; None if it is."""
    if voided:
        return "voided"
    if not passes:
        return "filtered_out"
    return None if has_value else "no_value"


def about_the_whole(metric: Metric, question: Question) -> tuple[Question, int]:
    """Return the question as one total of one customer, named by the external id, and the customer's id.

    Raises UnknownCustomer and UnknownDimension.
    """
    if len(question.customer_ids) != 1:
        raise ValueError(f"one customer was expected, got {len(question.customer_ids)}")
    for name in question.filter_by:
        if name not in metric.group_by and not metric.sql:
            raise UnknownDimension(f"filter.{name}", name, metric.group_by)
    ((customer_id, external_id),) = named_customers(metric.organisation_id, question.customer_ids).items()
    return replace(question, customer_ids=[external_id], window=Window.TOTAL, group_by=(), after=0), customer_id
