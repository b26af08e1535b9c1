"""What each metric makes of one record: whether it is counted, with what value, in which window, and why not."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper

from metrics import explanation_sql, session_sql
from metrics.explained_records import in_snapshot, named_dimensions, reason_of
from metrics.explanation import Source
from metrics.filters import filters_in_words
from metrics.formulas import READ_FROM_RECORDS
from metrics.models import Metric
from usage.models import ChangedWindow, PendingBatch, UsageRecord
from usage.record_queries import find_record
from usage.record_sql import RecordRow
from usage.windows import HOUR, hour_of


class UnknownRecord(LookupError):
    """The organisation has no record of that id."""


@dataclass(frozen=True, slots=True)
class MetricOfRecord:
    """What a metric makes of a record.

    `reason` says why it is not counted: voided, filtered_out (`condition` says by which condition, in words), no_value,
    or not_built_yet; None if it is counted. `value` is text. [window_start, window_end) is the stored hour that the
    record belongs to, `source` where quantities read it at this moment; None while the metric is being built.
    """

    metric: Metric
    reason: str | None
    condition: str
    value: str | None
    dimensions: dict[str, Any]
    window_start: datetime
    window_end: datetime
    source: Source | None

    @property
    def counted(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class RecordExplanation:
    """A record, and what the metrics of its usage event make of it at the moment of a snapshot."""

    record: RecordRow
    as_of: datetime
    metrics: list[MetricOfRecord]


def explain_record(organisation_id: int, record_id: int) -> RecordExplanation:
    """Return what every active and every building metric of the record's usage event makes of it, in one snapshot.

    Metrics of SQL are not among them: which records they count is not known. Raises UnknownRecord and TookTooLong.
    """
    return in_snapshot(lambda cursor: explain_record_in(cursor, organisation_id, record_id))


def explain_record_in(cursor: CursorWrapper, organisation_id: int, record_id: int) -> RecordExplanation:
    """Return what `explain_record` returns, inside a snapshot that the caller holds."""
    as_of = session_sql.moment(cursor)
    record = find_record(organisation_id, record_id)
    if record is None:
        raise UnknownRecord(record_id)
    stored = UsageRecord.objects.filter(usage_event_id=record.usage_event_id, pk=record.id)
    customer_id = stored.values_list("customer_id", flat=True)[0]
    source = _source(record, customer_id)
    metrics = Metric.objects.filter(
        usage_event_id=record.usage_event_id, status__in=(Metric.Status.ACTIVE, Metric.Status.BUILDING)
    )
    ordered = metrics.select_related("usage_event").order_by("code", "version")
    return RecordExplanation(
        record, as_of, [_seen_by(cursor, metric, record, customer_id, source) for metric in ordered]
    )


def _source(record: RecordRow, customer_id: int) -> Source:
    """Where the record is read at this moment by metrics whose stored hours merge. Two looks at primary keys."""
    of_event = {"usage_event_id": record.usage_event_id}
    hour = hour_of(record.timestamp)
    if ChangedWindow.objects.filter(**of_event, customer_id=customer_id, window_start=hour).exists():
        return Source.CHANGED
    pending = PendingBatch.objects.filter(**of_event, batch_id=record.batch_id).exists()
    return Source.PENDING if pending else Source.AGGREGATES


def _seen_by(
    cursor: CursorWrapper, metric: Metric, record: RecordRow, customer_id: int, source: Source
) -> MetricOfRecord:
    conditions = list(_needed(metric.filters))
    facts = explanation_sql.facts_of_record(cursor, metric, record.id, conditions)
    failing = next((part for part, holds in zip(conditions, facts.holds, strict=True) if not holds), {})
    hour = hour_of(record.timestamp)
    building = metric.status == Metric.Status.BUILDING
    reason = reason_of(voided=record.voided_at is not None, passes=facts.passes, has_value=facts.value is not None)
    if reason is None and building and not _is_built(metric, customer_id, hour):
        reason = "not_built_yet"
    read = Source.RECORDS if metric.aggregation in READ_FROM_RECORDS else source
    return MetricOfRecord(
        metric=metric,
        reason=reason,
        condition=filters_in_words({"all": [failing]}) if failing and reason == "filtered_out" else "",
        value=facts.value,
        dimensions=named_dimensions(metric, facts.dimensions),
        window_start=hour,
        window_end=hour + HOUR,
        source=None if building else read,
    )


def _is_built(metric: Metric, customer_id: int, hour: datetime) -> bool:
    if metric.built_customer_id is None or metric.built_window_start is None:
        return False
    return (customer_id, hour) < (metric.built_customer_id, metric.built_window_start)


def _needed(filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the conditions, and groups of which one is enough, that a record has to meet one and all."""
    if "all" not in filters:
        if filters:
            yield filters
        return
    for member in filters["all"]:
        yield from _needed(member)
