"""Rejected records as the API shows and takes them: the filters of the list, a replay, a discard, the entry itself."""

from typing import Any

from rest_framework import serializers

from customers.api import InstantField, KnownFieldsOnly, TextField
from usage.corrections import MAX_REASON
from usage.envelopes import MAX_TEXT
from usage.models import IngestBatch, RejectedRecord
from usage.quarantine import MAX_AT_ONCE, Replayed
from usage.references import batch_reference, parse_batch_reference

MAX_CODE = 30
MAX_SLUG = 100


class RejectedQuerySerializer(serializers.Serializer[Any]):
    """The filters, the page, and `summary=code`, which counts what is open by usage event and code instead."""

    usage_event = serializers.CharField(required=False, max_length=MAX_SLUG)
    code = serializers.CharField(required=False, max_length=MAX_CODE)
    status = serializers.ChoiceField(choices=[*RejectedRecord.Status.values, "any"], default="open")
    record_id = serializers.CharField(required=False, max_length=MAX_TEXT, trim_whitespace=False)
    batch = serializers.CharField(required=False, help_text="The public name of an ingest batch.")
    summary = serializers.ChoiceField(choices=["code"], required=False)
    page_size = serializers.IntegerField(min_value=1, max_value=500, required=False)
    cursor = serializers.CharField(required=False)

    def validate_batch(self, reference: str) -> int:
        parsed = parse_batch_reference(reference)
        if parsed is None:
            raise serializers.ValidationError(f"the name of an ingest batch was expected, got '{reference[:60]}'")
        return parsed[0]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        others = ("status", "record_id", "batch", "page_size", "cursor")
        if "summary" in attrs and (name := next((name for name in others if name in self.initial_data), None)):
            raise serializers.ValidationError({name: "beside summary only usage_event and code were expected"})
        return attrs


class RejectedRecordSerializer(serializers.Serializer[Any]):
    """An entry of the quarantine; `payload` is the text that came, `times` how often it came."""

    id = serializers.CharField()
    record_id = serializers.CharField(source="idempotency_key", allow_null=True)
    usage_event = serializers.CharField(source="usage_event.slug")
    batch = serializers.SerializerMethodField(help_text="The batch that it came with first.")
    code = serializers.CharField()
    pointer = serializers.CharField(help_text="JSON Pointer (RFC 6901) into the record.")
    message = serializers.CharField()
    payload = serializers.CharField()
    times = serializers.IntegerField()
    status = serializers.ChoiceField(choices=RejectedRecord.Status.values)
    first_seen_at = InstantField()
    last_seen_at = InstantField()
    closed_at = InstantField(allow_null=True)
    closed_by = serializers.CharField(source="closed_by_name")
    closing_reason = serializers.CharField()
    closing_batch = serializers.SerializerMethodField(help_text="The batch that stored it.")

    def get_batch(self, entry: RejectedRecord) -> str:
        return batch_reference(entry.batch_id, entry.batch.received_at)

    def get_closing_batch(self, entry: RejectedRecord) -> str | None:
        batch: IngestBatch | None = entry.closing_batch
        return batch_reference(batch.pk, batch.received_at) if batch else None


class ReplaySerializer(KnownFieldsOnly):
    """Send an entry through ingestion again: as it came, or mended. A dry run tells what would happen."""

    record = serializers.DictField(required=False, help_text="The record as it should have come.")
    dry_run = serializers.BooleanField(default=False)

    def validate_record(self, record: dict[str, Any]) -> dict[str, Any]:
        return dict(self.initial_data["record"])  # DictField makes copies of values: keep what came


class DiscardSerializer(KnownFieldsOnly):
    """Close an entry for good."""

    reason = TextField(max_length=MAX_REASON)


class _SelectionSerializer(KnownFieldsOnly):
    usage_event = TextField(max_length=MAX_SLUG)
    ids = serializers.ListField(
        child=serializers.RegexField("^[0-9]{1,18}$"), required=False, min_length=1, max_length=MAX_AT_ONCE
    )
    code = serializers.CharField(
        required=False, max_length=MAX_CODE, help_text=f"The oldest open entries with this code, up to {MAX_AT_ONCE}."
    )
    after = serializers.RegexField(
        "^[0-9]{1,18}$", required=False, help_text="With `code`: only entries after this id, the `last` of an answer."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("ids" in attrs) == ("code" in attrs):
            raise serializers.ValidationError({"ids": "either ids or a code was expected"})
        return attrs


class BulkReplaySerializer(_SelectionSerializer):
    """Replay entries of one usage event as one batch."""

    dry_run = serializers.BooleanField(default=False)


class BulkDiscardSerializer(_SelectionSerializer):
    """Discard entries of one usage event, with a reason."""

    reason = serializers.CharField(max_length=MAX_REASON)


class RefusedAgainSerializer(serializers.Serializer[Any]):
    """An entry that stays open, with the cause that it has now."""

    rejected_record = serializers.CharField()
    id = serializers.CharField(allow_null=True, help_text="The sender's id of the record.")
    code = serializers.CharField()
    pointer = serializers.CharField()
    message = serializers.CharField()


class ReplayedSerializer(serializers.Serializer[Any]):
    """What a replay did, or with `dry_run` would do."""

    entries = serializers.IntegerField(help_text="How many entries were taken.")
    last = serializers.CharField(allow_null=True, help_text="The highest id of them.")
    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    refused = RefusedAgainSerializer(many=True)
    batch = serializers.CharField(allow_null=True)
    dry_run = serializers.BooleanField()


class DiscardedSerializer(serializers.Serializer[Any]):
    """How many entries were closed, and the highest id of them."""

    entries = serializers.IntegerField()
    last = serializers.CharField(allow_null=True)


def wire_replayed(result: Replayed, ids: list[int], dry_run: bool) -> dict[str, Any]:
    """Return the answer to a replay; what was rehearsed has no batch."""
    names = ("rejected_record", "id", "code", "pointer", "message")
    return {
        **wire_selection(ids),
        "accepted": result.accepted,
        "duplicates": result.duplicates,
        "refused": [{name: getattr(problem, name) for name in names} for problem in result.refused],
        "batch": None if dry_run else result.batch,
        "dry_run": dry_run,
    }


def wire_selection(ids: list[int]) -> dict[str, Any]:
    """Return which entries were taken."""
    return {"entries": len(ids), "last": str(max(ids)) if ids else None}
