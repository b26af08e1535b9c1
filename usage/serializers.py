"""Usage events as the API shows and takes them."""

from typing import Any

from rest_framework import serializers

from customers.api import StrictSerializer
from customers.authentication import caller
from customers.exactjson import ExactEncoder
from customers.models import Organisation
from usage.definitions import create_usage_event
from usage.models import UsageEvent
from usage.schemas import check_schema


class UsageEventSerializer(StrictSerializer):
    """`schema` is JSON Schema 2020-12; `archived` and `schema_version` are read-only."""

    schema = serializers.JSONField(encoder=ExactEncoder)
    archived = serializers.SerializerMethodField()

    class Meta:
        model = UsageEvent
        fields = ["name", "slug", "schema", "schema_version", "archived"]
        read_only_fields = ["schema_version"]

    def get_archived(self, usage_event: UsageEvent) -> bool:
        return usage_event.archived_at is not None

    def validate_schema(self, schema: Any) -> Any:
        try:
            check_schema(schema)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
        return schema

    def create(self, validated_data: dict[str, Any]) -> UsageEvent:
        organisation = Organisation.objects.get(pk=caller(self.context["request"]).organisation_id)
        return create_usage_event(organisation, **validated_data)
