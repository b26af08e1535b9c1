"""Usage events as the API shows and takes them."""

from datetime import timedelta
from typing import Any

from rest_framework import serializers

from customers.api import Conflict, StrictSerializer
from customers.authentication import caller
from customers.exactjson import ExactEncoder, dumps
from customers.models import Organisation
from usage.definitions import change_usage_event, create_usage_event
from usage.models import UsageEvent
from usage.schema_changes import SchemaChange, SchemaChangeRefused
from usage.schemas import check_schema

MAX_SECONDS = 100 * 366 * 24 * 60 * 60


class SchemaConflict(Conflict):
    """The new schema does not fit what is stored or calculated; `members` tell how."""

    def __init__(self, refused: SchemaChangeRefused) -> None:
        super().__init__(f"{refused}; with accept_violations it is published all the same.")
        self.members = {"change": shown(refused.change)}


def shown(change: SchemaChange) -> dict[str, Any]:
    """Return what a change of schema means, as the API tells it."""
    return {
        "compatible": change.compatible,
        "reasons": change.reasons,
        "violating_records": change.violating_records,
        "sampled_records": [str(record_id) for record_id in change.sampled_ids],
        "metrics": change.metrics,
    }


class SecondsField(serializers.IntegerField):
    """A span of time in whole seconds, up to a century; null is no limit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"required": False, "allow_null": True, **options})

    def to_internal_value(self, data: Any) -> Any:
        if type(data) is not int or not 0 <= data <= MAX_SECONDS:
            expected = f"null or a whole number from 0 to {MAX_SECONDS} was expected"
            raise serializers.ValidationError(f"{expected}, got {dumps(data)[:60]}")
        return timedelta(seconds=data)

    def to_representation(self, value: Any) -> int:
        return int(value.total_seconds())


class UsageEventSerializer(StrictSerializer):
    """`schema` is JSON Schema 2020-12 of the records' `data`; `slug` is fixed once it is there."""

    schema = serializers.JSONField(encoder=ExactEncoder)
    archived = serializers.BooleanField(required=False, source="is_archived")
    max_age_seconds = SecondsField(source="max_age")
    max_ahead_seconds = SecondsField(source="max_ahead")
    accept_violations = serializers.BooleanField(required=False, write_only=True)

    class Meta:
        model = UsageEvent
        fields = ["name", "slug", "schema", "schema_version", "unknown_customer", "invalid_record"]
        fields += ["max_age_seconds", "max_ahead_seconds", "archived", "accept_violations"]
        read_only_fields = ["schema_version"]

    def validate_schema(self, schema: Any) -> Any:
        try:
            check_schema(schema)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
        return schema

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if self.instance is None and attrs.get("is_archived"):
            raise serializers.ValidationError({"archived": "a new usage event is not archived"})
        if self.instance is not None and "slug" in attrs:
            raise serializers.ValidationError({"slug": "the slug is fixed, because senders post to it"})
        if "accept_violations" in attrs and (self.instance is None or "schema" not in attrs):
            raise serializers.ValidationError({"accept_violations": "this goes with the schema of a PATCH only"})
        return attrs

    def create(self, validated_data: dict[str, Any]) -> UsageEvent:
        organisation = Organisation.objects.get(pk=caller(self.context["request"]).organisation_id)
        validated_data.pop("is_archived", None)
        return create_usage_event(organisation, **validated_data)

    def update(self, instance: UsageEvent, validated_data: dict[str, Any]) -> UsageEvent:
        changes = dict(validated_data)
        if "is_archived" in changes:
            changes["archived"] = changes.pop("is_archived")
        schema, accepted = changes.pop("schema", None), changes.pop("accept_violations", False)
        try:
            return change_usage_event(instance, changes, schema=schema, accept_violations=accepted)
        except SchemaChangeRefused as refused:
            raise SchemaConflict(refused) from refused
