"""Explanations as the API asks for them and writes them."""

from typing import Any
from urllib.parse import urlencode

from rest_framework import serializers

from customers.api import TextField, wire_instant
from metrics.explained_records import RecordsPage, SeenRecord
from metrics.explanation import Explanation, Part
from metrics.metric_serializers import wire_metric
from metrics.quantity_serializers import FILTER, QuestionSerializer
from metrics.questions import MAX_PAGE_SIZE, PAGE_SIZE, Question
from metrics.record_explanation import MetricOfRecord, RecordExplanation
from usage.record_filters import Place, parse_place


class ExplainSerializer(QuestionSerializer):
    """The query of GET …/explain/: one customer, a period, and perhaps values of dimensions."""

    window = None  # type: ignore[assignment]
    group_by = None  # type: ignore[assignment]
    page_size = None  # type: ignore[assignment]
    cursor = None  # type: ignore[assignment]
    customer_id = TextField(trim_whitespace=False, help_text="The customer whose quantity is explained.")  # type: ignore[assignment]

    def question(self) -> Question:
        """Return what was asked, after is_valid()."""
        asked = self.validated_data
        return Question(
            start=asked["start"],
            end=asked["end"],
            zone=asked["zone"],
            customer_ids=[asked["customer_id"]],
            filter_by={name: tuple(texts) for name, texts in asked["filter"].items()},
        )


class ExplainedRecordsSerializer(ExplainSerializer):
    """The query of GET …/explain/records/: whose and when, which records, and which page."""

    include = serializers.ChoiceField(
        choices=["skipped"], required=False, help_text="`skipped`: the records that are not counted too, each with why."
    )
    page_size = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=PAGE_SIZE)  # type: ignore[assignment]
    cursor = serializers.CharField(required=False, help_text="As in the links `next` and `previous`.")  # type: ignore[assignment]

    def validate_cursor(self, text: str) -> Place:
        try:
            return parse_place(text)
        except ValueError as error:
            raise serializers.ValidationError(f"{error}, got '{text[:60]}'") from error


def wire_explanation(found: Explanation, address: str) -> dict[str, Any]:
    """Return the body of GET …/explain/, whose own address is given without its query."""
    of_sql = bool(found.metric.sql)
    return {
        "metric": found.metric.code,
        "version": found.metric.version,
        "definition": wire_metric(found.metric),
        "customer_id": found.customer_id,
        "start": wire_instant(found.question.start),
        "end": wire_instant(found.question.end),
        "timezone": found.question.zone.key,
        "as_of": wire_instant(found.as_of),
        "quantity": None if found.quantity is None else format(found.quantity, "f"),
        "recount": None if found.recount is None else format(found.recount, "f"),
        "records": _wire_tally(found),
        "windows": [_wire_part(part) for part in found.parts],
        "carried_in": [_wire_value(row) for row in found.carried_in],
        "truncated": found.truncated,
        "sql": _wire_sql(found) if of_sql else None,
        "records_url": None if of_sql else f"{address.rstrip('/')}/records/?{_query(found.question)}",
    }


def wire_records(page: RecordsPage) -> dict[str, Any]:
    """Return the body of GET …/explain/records/ but for its links."""
    return {
        "metric": page.metric.code,
        "version": page.metric.version,
        "as_of": wire_instant(page.as_of),
        "results": [
            {**_wire_value(row), "data": row.data, "counted": row.counted, "reason": row.reason} for row in page.rows
        ],
    }


def wire_record_explanation(found: RecordExplanation) -> dict[str, Any]:
    """Return the body of GET /api/usage-records/<id>/metrics/."""
    return {
        "id": str(found.record.id),
        "as_of": wire_instant(found.as_of),
        "metrics": [_wire_metric_of_record(one) for one in found.metrics],
    }


def _wire_tally(found: Explanation) -> dict[str, Any] | None:
    if found.tally is None:
        return None
    counted, *skipped = found.tally
    return {"counted": counted, "skipped": dict(zip(found.tally._fields[1:], skipped, strict=True))}


def _wire_part(part: Part) -> dict[str, Any]:
    shown = {
        "start": wire_instant(part.start),
        "end": wire_instant(part.end),
        "from": str(part.source),
        "record_count": part.record_count,
    }
    return {**shown, "batch": part.batch} if part.batch else shown


def _wire_value(row: SeenRecord) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "record_id": row.record_id,
        "timestamp": wire_instant(row.timestamp),
        "value": row.value,
        "dimensions": row.dimensions,
    }


def _wire_sql(found: Explanation) -> dict[str, Any]:
    bound = [
        {name: value if isinstance(value, str) else wire_instant(value) for name, value in found.bound(part).items()}
        for part in found.parts
    ]
    return {"text": found.metric.sql, "tables": found.tables, "bound": bound}


def _wire_metric_of_record(one: MetricOfRecord) -> dict[str, Any]:
    return {
        "metric": one.metric.code,
        "version": one.metric.version,
        "status": one.metric.status,
        "counted": one.counted,
        "reason": one.reason,
        "condition": one.condition or None,
        "value": one.value,
        "dimensions": one.dimensions,
        "window": {"start": wire_instant(one.window_start), "end": wire_instant(one.window_end)},
        "from": one.source and str(one.source),
    }


def _query(question: Question) -> str:
    asked = [
        ("customer_id", question.customer_ids[0]),
        ("start", wire_instant(question.start)),
        ("end", wire_instant(question.end)),
    ]
    values = [(f"{FILTER}{name}", text) for name, texts in question.filter_by.items() for text in texts]
    return urlencode([*asked, *values])
