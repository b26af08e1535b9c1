"""Metrics' definitions as the API shows and takes them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError as ModelValidationError
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from customers.api import KnownFieldsOnly, TextField
from customers.authentication import caller
from customers.exactjson import dumps
from customers.models import Organisation
from metrics.definitions import revise_metric, save_metric
from metrics.formula_rules import check_formula
from metrics.models import Aggregation, Metric, Rounding, SqlWindow, validate_code
from metrics.versions import build_progress
from usage.models import UsageEvent

NUMBER = re.compile(r"-?[0-9]{1,64}(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
SLUG = "[A-Za-z0-9_-]+"
MAX_SHOWN = 60
# What the API calls otherwise than the model does.
WIRE_NAMES = {
    "sql_window": "window",
    "rounding_mode": "rounding.mode",
    "rounding_digits": "rounding.digits",
    "usage_event_id": "usage_event",
}
# What a field without a value holds in the model; it may be sent as null.
NOTHING: dict[str, Any] = {"usage_event": None, "percentile": None, "filters": {}, "group_by": []}


@extend_schema_field(OpenApiTypes.STR)
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


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]})
class DecimalTextField(serializers.Field[Any, Any, Any, Any]):
    """An exact number: a string or a number in requests, a string in answers."""

    def to_internal_value(self, data: Any) -> Decimal:
        """Return the number; raises ValidationError for what is none, and for NaN and infinities."""
        is_number = type(data) in (int, Decimal) or (isinstance(data, str) and NUMBER.fullmatch(data))
        if not is_number:
            raise serializers.ValidationError(f"a number was expected, got {dumps(data)[:MAX_SHOWN]}")
        value = Decimal(data)
        return value if value else Decimal(0)


@extend_schema_field({"type": ["object", "null"]})
class FiltersField(serializers.Field[Any, Any, Any, Any]):
    """Conditions on records, as they came: the act checks them against the schema."""

    def to_internal_value(self, data: Any) -> Any:
        return data


class DigitsField(serializers.Field[Any, Any, Any, Any]):
    """A whole number; which one, the act checks."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            raise serializers.ValidationError(f"a whole number was expected, got {dumps(data)[:MAX_SHOWN]}")
        return data


class RoundingSerializer(KnownFieldsOnly):
    """How a quantity is rounded, at the very end."""

    mode = serializers.ChoiceField(choices=Rounding.choices)
    digits = extend_schema_field({"type": "integer", "minimum": 0, "maximum": 30})(DigitsField)()


class FormulaSerializer(KnownFieldsOnly):
    """What makes the quantities: of a usage event's records, or of SQL. What is null or left out is none."""

    usage_event = OwnUsageEvent(slug_field="slug", required=False, allow_null=True, help_text="The usage event's slug.")
    aggregation = serializers.ChoiceField(choices=Aggregation.choices, required=False, allow_null=True)
    property = TextField(required=False, allow_null=True, allow_blank=True, max_length=255, trim_whitespace=False)
    expression = TextField(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=500,
        help_text="In place of a property: numbers, properties, + - * /, parentheses, min, max, coalesce.",
    )
    percentile = DecimalTextField(required=False, allow_null=True, help_text="From 0 to 100.")
    filters = FiltersField(
        required=False,
        allow_null=True,
        help_text='Which records count: {"all": […]} or {"any": […]} of {"property", "operator", "value"}, nested.',
    )
    group_by = serializers.ListField(
        child=TextField(max_length=255, trim_whitespace=False), required=False, allow_null=True
    )
    rounding = RoundingSerializer(required=False, allow_null=True)
    sql = TextField(
        required=False,
        allow_null=True,
        allow_blank=True,
        trim_whitespace=False,
        help_text="One SELECT, in place of all the others but `window`.",
    )
    window = serializers.ChoiceField(
        choices=SqlWindow.choices, required=False, allow_null=True, help_text="Goes with `sql`: what it is run for."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return fields of the model and their values."""
        fields = {name: self._nothing(name) if value is None else value for name, value in attrs.items()}
        if "rounding" in fields:
            rounding = fields.pop("rounding") or {"mode": "", "digits": None}
            fields |= {"rounding_mode": rounding["mode"], "rounding_digits": rounding["digits"]}
        if "window" in fields:
            fields["sql_window"] = fields.pop("window")
        return fields

    def _nothing(self, name: str) -> Any:
        return NOTHING.get(name, "")


class DefinitionSerializer(FormulaSerializer):
    """A formula that is complete, but need not have a name: what a preview takes."""

    code = TextField(required=False, max_length=100, validators=[validate_code])
    name = TextField(required=False, max_length=200)
    unit = TextField(required=False, allow_blank=True, max_length=50)

    def validate(self, attrs: dict[str, Any]) -> Any:
        """Return the metric, checked and not stored."""
        fields = super().validate(attrs)
        metric = Metric(organisation_id=caller(self.context["request"]).organisation_id, **fields)
        with wire_names():
            check_formula(metric)
        return metric


class MetricSerializer(FormulaSerializer):
    """A metric's definition; `version`, `status` and `progress` are read-only."""

    code = TextField(max_length=100, validators=[validate_code], help_text="Its name in the API and on invoices.")
    version = serializers.IntegerField(read_only=True)
    name = TextField(max_length=200)
    unit = TextField(required=False, allow_blank=True, max_length=50)
    status = serializers.ChoiceField(choices=Metric.Status.choices, read_only=True)
    progress = serializers.FloatField(read_only=True)

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        if self.instance is None and not _has_sql(getattr(self, "initial_data", None)):
            for name in ("usage_event", "aggregation"):
                fields[name].required = True
        return fields

    def create(self, validated_data: dict[str, Any]) -> Metric:
        organisation = Organisation.objects.get(pk=caller(self.context["request"]).organisation_id)
        with wire_names():
            return save_metric(Metric(organisation=organisation, **validated_data))

    def update(self, instance: Metric, validated_data: dict[str, Any]) -> Metric:
        with wire_names():
            return revise_metric(instance, validated_data)

    def to_representation(self, instance: Metric) -> dict[str, Any]:
        return wire_metric(instance)


class VersionQuerySerializer(serializers.Serializer[Any]):
    """Which version of a metric."""

    version = serializers.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, help_text="Another one than the newest."
    )


class MetricListQuerySerializer(serializers.Serializer[Any]):
    """Which page of a list."""

    page_size = serializers.IntegerField(min_value=1, max_value=500, required=False)
    cursor = serializers.CharField(required=False)


def wire_metric(metric: Metric) -> dict[str, Any]:
    """Return a metric as the API writes it: parts that it does not have are left out."""
    shown: dict[str, Any] = {name: getattr(metric, name) for name in ("code", "version", "name", "unit")}
    shown |= _wire_formula(metric) | {"status": metric.status}
    progress = build_progress(metric)
    return shown if progress is None else {**shown, "progress": progress}


@contextmanager
def wire_names() -> Iterator[None]:
    """What an act refuses, with the names that the API has for the fields."""
    try:
        yield
    except ModelValidationError as error:
        if not hasattr(error, "error_dict"):
            raise
        told = {WIRE_NAMES.get(field, field): messages for field, messages in error.message_dict.items()}
        raise serializers.ValidationError(told) from error


def _wire_formula(metric: Metric) -> dict[str, Any]:
    if metric.sql:
        return {"sql": metric.sql, "window": metric.sql_window}
    rounding = {"mode": metric.rounding_mode, "digits": metric.rounding_digits} if metric.rounding_mode else None
    parts = {
        "usage_event": metric.usage_event.slug if metric.usage_event else None,
        "aggregation": metric.aggregation,
        "property": metric.property,
        "expression": metric.expression,
        "percentile": None if metric.percentile is None else format(Decimal(metric.percentile), "f"),
        "filters": metric.filters,
        "group_by": metric.group_by,
        "rounding": rounding,
    }
    return {name: value for name, value in parts.items() if value not in ("", None, {}, [])}


def _has_sql(body: Any) -> bool:
    return isinstance(body, Mapping) and bool(body.get("sql"))
