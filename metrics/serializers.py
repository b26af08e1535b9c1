"""Metrics and quantities as the API shows and takes them."""

import re
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from rest_framework import serializers

from customers.api import StrictSerializer
from customers.authentication import caller
from customers.models import Organisation
from customers.zones import zone
from metrics.definitions import save_metric
from metrics.models import Metric
from metrics.periods import Window, midnight
from metrics.quantities import MAX_PAGE_SIZE, PAGE_SIZE, Answer, Question
from usage.models import UsageEvent
from usage.timestamps import END_MOMENT, FIRST_MOMENT, parse_timestamp

SLUG = "[A-Za-z0-9_-]+"
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class OwnUsageEvent(serializers.SlugRelatedField[UsageEvent]):
    """A usage event of the caller's organisation, by its slug."""

    def get_queryset(self) -> Any:
        return UsageEvent.objects.filter(organisation_id=caller(self.context["request"]).organisation_id)

    def to_internal_value(self, data: Any) -> UsageEvent:
        """Return the usage event; raises ValidationError, also for what cannot be a slug."""
        if not isinstance(data, str):
            self.fail("invalid")
        if not re.fullmatch(SLUG, data):
            self.fail("does_not_exist", slug_name=self.slug_field, value=data)
        return super().to_internal_value(data)


class MetricSerializer(StrictSerializer):
    """A metric's definition; `version` and `status` are read-only."""

    usage_event = OwnUsageEvent(slug_field="slug")

    class Meta:
        model = Metric
        fields = ["code", "version", "name", "unit", "usage_event", "aggregation", "property", "status"]
        read_only_fields = ["version", "status"]

    def create(self, validated_data: dict[str, Any]) -> Metric:
        organisation = Organisation.objects.get(pk=caller(self.context["request"]).organisation_id)
        return save_metric(Metric(organisation=organisation, **validated_data))


class QuestionSerializer(serializers.Serializer[Question]):
    """The query of GET …/quantities/. Dates mean midnight in `timezone`; instants without a zone are UTC."""

    start = serializers.CharField()
    end = serializers.CharField()
    window = serializers.ChoiceField(choices=[str(window) for window in Window], default=str(Window.TOTAL))
    timezone = serializers.CharField(required=False)
    customer_id = serializers.ListField(
        child=serializers.CharField(trim_whitespace=False), required=False, default=list
    )
    page_size = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=PAGE_SIZE)
    cursor = serializers.IntegerField(min_value=0, default=0)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            attrs["zone"] = zone(attrs.get("timezone") or self.context["timezone"])
        except ValueError as error:
            raise serializers.ValidationError({"timezone": str(error)}) from error
        for name in ("start", "end"):
            attrs[name] = self._instant(name, attrs[name], attrs["zone"])
        return attrs

    def _instant(self, name: str, text: str, time_zone: Any) -> Any:
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
            after=asked["cursor"],
            page_size=asked["page_size"],
        )


def _midnight(text: str, time_zone: ZoneInfo) -> datetime:
    """Midnight of a day from 2000-01-01 to 2101-01-01: the end of the last year that records can lie in is one."""
    day = date.fromisoformat(text)
    if not FIRST_MOMENT.date() <= day <= END_MOMENT.date():
        raise ValueError(f"expected a day from {FIRST_MOMENT.date()} to {END_MOMENT.date()}, got {text}")
    return midnight(day, time_zone)


def wire_instant(moment: Any) -> str:
    """Return an instant as the API writes it: UTC, with Z."""
    return moment.isoformat().replace("+00:00", "Z")


def wire_answer(answer: Answer, question: Question, following: str | None) -> dict[str, Any]:
    """Return the body of GET …/quantities/; quantities are strings, so that no client rounds them."""
    return {
        "metric": answer.metric.code,
        "version": answer.metric.version,
        "start": wire_instant(question.start),
        "end": wire_instant(question.end),
        "timezone": question.zone.key,
        "quantities": [
            {
                "customer_id": row.customer_id,
                "start": wire_instant(row.start),
                "end": wire_instant(row.end),
                "dimensions": row.dimensions,
                "quantity": None if row.quantity is None else format(row.quantity, "f"),
                "record_count": row.record_count,
            }
            for row in answer.rows
        ],
        "as_of": wire_instant(answer.as_of),
        "next": following,
    }
