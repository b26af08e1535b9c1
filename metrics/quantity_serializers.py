"""Questions about quantities as the API takes them, and the answers as it writes them."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from rest_framework import serializers

from customers.api import KnownFieldsOnly, TextField, wire_instant
from customers.zones import zone
from metrics.comparison import Compared, Comparison
from metrics.metric_serializers import DefinitionSerializer
from metrics.models import Metric
from metrics.periods import Window, midnight
from metrics.questions import MAX_PAGE_SIZE, PAGE_SIZE, Answer, Quantity, Question
from usage.timestamps import END_MOMENT, FIRST_MOMENT, parse_timestamp

DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
FILTER = "filter."
MAX_VALUES = 100


def one_of(**options: Any) -> serializers.ListField:
    """A list of the texts that a dimension may have."""
    return serializers.ListField(
        child=TextField(trim_whitespace=False, allow_blank=True), allow_empty=False, max_length=MAX_VALUES, **options
    )


class PeriodSerializer(serializers.Serializer[Any]):
    """A period and whose. Dates mean midnight in `timezone`; instants without a zone are UTC."""

    start = TextField(help_text="A date or an instant; the period begins with it.")
    end = TextField(help_text="A date or an instant; the period ends before it.")
    window = serializers.ChoiceField(choices=[str(window) for window in Window], default=str(Window.TOTAL))
    timezone = TextField(required=False, help_text="IANA name; by default the organisation's.")
    customer_id = serializers.ListField(
        child=TextField(trim_whitespace=False),
        required=False,
        default=list,
        help_text="May be repeated; none is all customers.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            attrs["zone"] = zone(attrs.get("timezone") or self.context["timezone"])
        except ValueError as error:
            raise serializers.ValidationError({"timezone": str(error)}) from error
        for name in ("start", "end"):
            attrs[name] = self._instant(name, attrs[name], attrs["zone"])
        return attrs

    def _instant(self, name: str, text: str, time_zone: ZoneInfo) -> datetime:
        try:
            return _midnight(text, time_zone) if DAY.fullmatch(text) else parse_timestamp(text)
        except ValueError as error:
            raise serializers.ValidationError({name: f"a date or an instant was expected: {error}"}) from error

    def question(self) -> Question:
        """Return what was asked, after is_valid()."""
        asked = self.validated_data
        return Question(
            start=asked["start"],
            end=asked["end"],
            window=Window(asked["window"]),
            zone=asked["zone"],
            customer_ids=asked["customer_id"],
            after=asked.get("cursor", 0),
            page_size=asked.get("page_size", PAGE_SIZE),
            group_by=tuple(dict.fromkeys(asked.get("group_by", ()))),
            filter_by={name: tuple(texts) for name, texts in asked.get("filter", {}).items()},
        )


class PageSerializer(PeriodSerializer):
    """A period, whose, by which dimensions, and which page of the answer."""

    group_by = serializers.ListField(
        child=TextField(trim_whitespace=False),
        required=False,
        default=list,
        help_text="A property that the metric groups by; may be repeated.",
    )
    page_size = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=PAGE_SIZE)
    cursor = serializers.IntegerField(min_value=0, default=0)


class QuestionSerializer(PageSerializer):
    """The query of GET …/quantities/. `filter.<property>` leaves one value of a dimension; repeated, any of several."""

    prefixes = (FILTER,)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs["filter"] = {}
        for name, texts in self.initial_data.items():
            if name.startswith(FILTER):
                try:
                    attrs["filter"][name.removeprefix(FILTER)] = one_of().run_validation(texts)
                except serializers.ValidationError as error:
                    raise serializers.ValidationError({name: error.detail}) from error
        return super().validate(attrs)


class PreviewSerializer(KnownFieldsOnly, PageSerializer):
    """The body of POST /api/metrics/preview/: a definition, and what is asked of it."""

    metric = DefinitionSerializer()
    filter = serializers.DictField(
        child=one_of(), required=False, help_text="The values that a dimension may have, by property."
    )


def wire_answer(answer: Answer, question: Question, following: Any) -> dict[str, Any]:
    """Return the body of GET …/quantities/; quantities are strings, so that no client rounds them."""
    stored = answer.metric.pk is not None
    return {
        "metric": answer.metric.code or None,
        "version": answer.metric.version if stored else None,
        **_wire_period(question),
        "quantities": [_wire_quantity(answer.metric, row) for row in answer.rows],
        "as_of": wire_instant(answer.as_of),
        "next": following,
    }


def wire_comparison(comparison: Comparison, question: Question) -> dict[str, Any]:
    """Return the body of GET …/diff/."""
    return {
        "metric": comparison.new.code,
        "old_version": comparison.old.version,
        "new_version": comparison.new.version,
        **_wire_period(question),
        "quantities": [_wire_compared(row) for row in comparison.rows],
        "changed": comparison.changed_count,
        "as_of": wire_instant(comparison.as_of),
        "complete": comparison.complete,
    }


def _midnight(text: str, time_zone: ZoneInfo) -> datetime:
    """Midnight of a day from 2000-01-01 to 2101-01-01: the end of the last year that records can lie in is one."""
    day = date.fromisoformat(text)
    if not FIRST_MOMENT.date() <= day <= END_MOMENT.date():
        raise ValueError(f"expected a day from {FIRST_MOMENT.date()} to {END_MOMENT.date()}, got {text}")
    return midnight(day, time_zone)


def _wire_period(question: Question) -> dict[str, Any]:
    return {
        "start": wire_instant(question.start),
        "end": wire_instant(question.end),
        "timezone": question.zone.key,
    }


def _wire_quantity(metric: Metric, row: Quantity) -> dict[str, Any]:
    return {
        "customer_id": row.customer_id,
        "start": wire_instant(row.start),
        "end": wire_instant(row.end),
        "dimensions": row.dimensions,
        "quantity": _wire_decimal(row.quantity),
        "record_count": None if metric.sql else row.record_count,  # nobody knows what a SQL text counted
    }


def _wire_compared(row: Compared) -> dict[str, Any]:
    return {
        "customer_id": row.customer_id,
        "start": wire_instant(row.start),
        "end": wire_instant(row.end),
        "old": _wire_decimal(row.old),
        "new": _wire_decimal(row.new),
        "difference": _wire_decimal(row.difference),
    }


def _wire_decimal(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def lists_of(query: Mapping[str, list[str]], known: type[PeriodSerializer]) -> dict[str, Any]:
    """Return the parameters of an address: those that may be repeated as lists, the others as text.

    Raises ValidationError for one that is not known, and for one that is there twice and must not be.
    """
    fields, prefixes = known().fields, tuple(getattr(known, "prefixes", ()))
    read: dict[str, Any] = {}
    for name, texts in query.items():
        if name not in fields and not name.startswith(prefixes):
            names = [*fields, *(f"{prefix}<property>" for prefix in prefixes)]
            raise serializers.ValidationError(
                {name: f"this parameter is not known; known are {', '.join(sorted(names))}"}
            )
        repeatable = isinstance(fields.get(name), serializers.ListField) or name not in fields
        if len(texts) > 1 and not repeatable:
            raise serializers.ValidationError({name: f"this parameter was expected once, got {len(texts)} times"})
        read[name] = texts if repeatable else texts[0]
    return read
