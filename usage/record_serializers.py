"""Usage records as the API shows and takes them: the filters of the list, a correction, the record itself."""

from typing import Any

from rest_framework import serializers

from customers.api import InstantField, KnownFieldsOnly, TextField
from customers.exactjson import ExactEncoder, dumps, loads
from customers.resolution import resolve_customers
from usage.corrections import MAX_REASON
from usage.envelopes import MAX_TEXT, check_data
from usage.models import UsageEvent
from usage.receipts import find_batch
from usage.record_filters import Place, RecordFilter, parse_place
from usage.references import parse_batch_reference
from usage.schemas import DataSchema, properties_of, types_of
from usage.timestamps import parse_timestamp

MAX_PAGE_SIZE = 500
MAX_SLUG = 100
PROPERTY = "data."
NOBODY = 0  # no customer and no batch has this id
ANYTHING = DataSchema({"type": "object"})
JSON_TYPES: dict[type, str] = {type(None): "null", bool: "boolean", list: "array", dict: "object"}


class RecordQuerySerializer(serializers.Serializer[Any]):
    """The filters. Ranges are half-open; `data.<property>` needs a usage event and both ends of a timestamp range."""

    prefixes = (PROPERTY,)

    usage_event = serializers.CharField(required=False, max_length=MAX_SLUG, help_text="The usage event's slug.")
    customer_id = serializers.CharField(
        required=False,
        max_length=MAX_TEXT,
        trim_whitespace=False,
        help_text="The sender's id of the customer, or an alias.",
    )
    timestamp_after = InstantField(parse_timestamp, required=False, help_text="From this instant on.")
    timestamp_before = InstantField(parse_timestamp, required=False, help_text="Before this instant.")
    received_after = InstantField(
        parse_timestamp, required=False, help_text="Stored from this instant on; the list is then ordered by arrival."
    )
    received_before = InstantField(parse_timestamp, required=False, help_text="Stored before this instant.")
    record_id = serializers.CharField(
        required=False, max_length=MAX_TEXT, trim_whitespace=False, help_text="The sender's id of the record."
    )
    batch = serializers.CharField(required=False, help_text="The public name of an ingest batch.")
    voided = serializers.ChoiceField(
        choices=["true", "false"], required=False, help_text="Only voided records, or only the others."
    )

    def validate_usage_event(self, slug: str) -> UsageEvent:
        usage_event = UsageEvent.objects.filter(organisation_id=self.context["organisation_id"], slug=slug).first()
        if usage_event is None:
            raise serializers.ValidationError(f"the slug of a usage event was expected, got '{slug}'")
        return usage_event

    def validate_batch(self, reference: str) -> tuple[int, int]:
        if parse_batch_reference(reference) is None:
            raise serializers.ValidationError(f"the name of an ingest batch was expected, got '{reference[:60]}'")
        batch = find_batch(self.context["organisation_id"], reference)
        return (batch.pk, batch.usage_event_id) if batch else (NOBODY, NOBODY)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Put the filter together."""
        asked = {name: text for name, text in self.initial_data.items() if name.startswith(PROPERTY)}
        usage_event, (batch_id, batch_event_id) = attrs.get("usage_event"), attrs.get("batch") or (None, None)
        bounds = {name: attrs.get(name) for name in ("timestamp_after", "timestamp_before")}
        if asked and (usage_event is None or None in bounds.values()):
            expected = "usage_event, timestamp_after and timestamp_before were expected beside it"
            raise serializers.ValidationError({next(iter(asked)): expected})
        elsewhere = usage_event is not None and batch_event_id not in (None, usage_event.pk)
        attrs["filter"] = RecordFilter(
            organisation_id=self.context["organisation_id"],
            usage_event_id=usage_event.pk if usage_event else batch_event_id,
            customer_id=self._customer(attrs.get("customer_id")),
            **bounds,
            received_after=attrs.get("received_after"),
            received_before=attrs.get("received_before"),
            record_id=attrs.get("record_id"),
            batch_id=NOBODY if elsewhere else batch_id,
            voided={"true": True, "false": False}.get(attrs.get("voided", "")),
            data={name[len(PROPERTY) :]: _readings(usage_event, name, text) for name, text in asked.items()},
        )
        return attrs

    def _customer(self, sent_id: str | None) -> int | None:
        if sent_id is None:
            return None
        return resolve_customers(self.context["organisation_id"], [sent_id], create=False).get(sent_id, NOBODY)


class RecordListQuerySerializer(RecordQuerySerializer):
    """The filters of the list, and which page."""

    page_size = serializers.IntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=100)
    cursor = serializers.CharField(required=False, help_text="As in the links `next` and `previous`.")

    def validate_cursor(self, text: str) -> Place:
        try:
            return parse_place(text)
        except ValueError as error:
            raise serializers.ValidationError(f"{error}, got '{text[:60]}'") from error


class ExportQuerySerializer(RecordQuerySerializer):
    """The filters of an export, and its form."""

    format = serializers.ChoiceField(choices=["csv", "ndjson"], help_text="`csv` needs a usage event.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["format"] == "csv" and "usage_event" not in attrs:
            raise serializers.ValidationError({"usage_event": "expected for csv: its schema gives the columns"})
        return super().validate(attrs)


class ReasonSerializer(KnownFieldsOnly):
    """Why, and which revision of the record was seen."""

    reason = TextField(max_length=MAX_REASON)
    revision = serializers.IntegerField(min_value=1, max_value=2**31 - 1)


class CorrectionSerializer(ReasonSerializer):
    """What a record shall say; what is left out stays."""

    customer_id = TextField(required=False, max_length=MAX_TEXT, trim_whitespace=False)
    timestamp = InstantField(parse_timestamp, required=False)
    data = serializers.DictField(  # type: ignore[assignment]
        required=False, help_text="The whole data, valid against the schema in force."
    )

    def validate_data(self, data: dict[str, Any]) -> dict[str, Any]:
        return dict(self.initial_data["data"])  # DictField makes text of keys and copies of values: keep what came


class RecordSerializer(serializers.Serializer[Any]):
    """A usage record."""

    id = serializers.CharField(help_text="Our id of the record.")
    record_id = serializers.CharField(allow_null=True, help_text="The sender's id of the record.")
    usage_event = serializers.CharField()
    customer_id = serializers.CharField()
    customer_archived = serializers.BooleanField(help_text="The customer is archived; its usage is taken all the same.")
    timestamp = InstantField()
    data = serializers.JSONField(encoder=ExactEncoder)  # type: ignore[assignment]
    received_at = InstantField()
    batch = serializers.CharField()
    schema_version = serializers.IntegerField()
    revision = serializers.IntegerField()
    voided_at = InstantField(allow_null=True)


def _readings(usage_event: UsageEvent | None, name: str, text: str) -> list[str]:
    """The JSON values that a parameter's text may mean: by the property's type, or any where the schema names none."""
    assert usage_event is not None
    wanted = name[len(PROPERTY) :]
    types = types_of(properties_of(usage_event.schema).get(wanted, {}))
    readings = [text] if not types or "string" in types else []
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        value = text
    if not isinstance(value, str) and (not types or JSON_TYPES.get(type(value), "number") in _wider(types)):
        readings.append(value)
    if not readings:
        raise serializers.ValidationError({name: f"{' or '.join(types)} was expected, got '{text[:60]}'"})
    try:
        check_data({wanted: readings}, ANYTHING)
    except ValueError as error:
        raise serializers.ValidationError({name: str(error)}) from error
    return [dumps(reading) for reading in readings]


def _wider(types: list[str]) -> list[str]:
    return [*types, "number"] if "integer" in types else types
