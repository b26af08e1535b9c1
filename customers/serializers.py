"""Customers as the API shows and takes them."""

from typing import Any

from rest_framework import serializers

from customers.api import InstantField, StrictSerializer, TextField
from customers.authentication import caller
from customers.jsonfields import check_storable
from customers.models import Customer
from customers.registry import MAX_ALIASES, change_customer, enter_customer

MAX_ID = 255


class CustomerSerializer(StrictSerializer):
    """A customer. `external_id` is the `customer_id` of its records and stays as it is."""

    external_id = TextField(max_length=MAX_ID, trim_whitespace=False)
    aliases = serializers.ListField(
        child=TextField(max_length=MAX_ID, trim_whitespace=False),
        required=False,
        max_length=MAX_ALIASES,
        help_text="Other ids that records may name it by; a change replaces all of them.",
    )
    custom_data = serializers.DictField(required=False)
    confirmed = serializers.BooleanField(
        read_only=True, help_text="False for a customer that only usage has named so far."
    )
    archived = serializers.BooleanField(
        read_only=True, help_text="Usage of an archived customer is taken all the same."
    )
    created_at = InstantField(read_only=True)

    class Meta:
        model = Customer
        fields = [
            "external_id",
            "name",
            "email",
            "timezone",
            "aliases",
            "custom_data",
            "confirmed",
            "archived",
            "created_at",
        ]

    def validate_custom_data(self, data: dict[str, Any]) -> dict[str, Any]:
        kept = dict(self.initial_data["custom_data"])  # DictField makes copies of values: keep what came
        check_storable(kept)
        return kept

    def to_representation(self, instance: Customer) -> dict[str, Any]:
        return {
            **{name: getattr(instance, name) for name in ("external_id", "name", "email", "timezone")},
            "aliases": sorted(alias.alias for alias in instance.aliases.all()),
            "custom_data": instance.custom_data,
            "confirmed": instance.confirmed,
            "archived": instance.archived_at is not None,
            "created_at": self.fields["created_at"].to_representation(instance.created_at),
        }

    def create(self, validated_data: dict[str, Any]) -> Customer:
        """Enter the customer; `is_new` then says whether it was not there before."""
        customer, self.is_new = enter_customer(caller(self.context["request"]).organisation_id, **validated_data)
        return customer


class CustomerChangeSerializer(CustomerSerializer):
    """What may change about a customer."""

    external_id = TextField(read_only=True)
    confirmed = serializers.BooleanField(required=False)
    archived = serializers.BooleanField(required=False)

    def update(self, instance: Customer, validated_data: dict[str, Any]) -> Customer:
        return change_customer(instance.pk, **validated_data)


class CustomerQuerySerializer(serializers.Serializer[Any]):
    """The filters of the list, and which page."""

    external_id = serializers.CharField(
        required=False, max_length=MAX_ID, trim_whitespace=False, help_text="The external id, or an alias."
    )
    confirmed = serializers.ChoiceField(choices=["true", "false"], required=False)
    archived = serializers.ChoiceField(choices=["true", "false"], required=False)
    page_size = serializers.IntegerField(min_value=1, max_value=500, required=False)
    cursor = serializers.CharField(required=False)
