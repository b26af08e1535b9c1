"""Receipts: which batch a record came in, and what is known of a batch."""

from usage.models import IngestBatch, PendingBatch, UsageRecord
from usage.references import batch_reference, parse_batch_reference


def find_stored(usage_event_id: int, keys: list[str]) -> dict[str, str]:
    """Return the public name of the batch for each of the record ids that are stored."""
    rows = UsageRecord.objects.filter(
        usage_event_id=usage_event_id, idempotency_key__in=[key for key in keys if "\0" not in key]
    )
    found = rows.values_list("idempotency_key", "batch_id", "received_at")
    return {key: batch_reference(batch_id, received_at) for key, batch_id, received_at in found if key is not None}


def find_batch(organisation_id: int, reference: str) -> IngestBatch | None:
    """Return the organisation's batch of that public name, or None."""
    parsed = parse_batch_reference(reference)
    if parsed is None:
        return None
    batch_id, moment = parsed
    batch = IngestBatch.objects.select_related("usage_event").filter(pk=batch_id).first()
    if batch is None or batch.usage_event.organisation_id != organisation_id:
        return None
    return batch if batch_reference(batch.pk, batch.received_at) == batch_reference(batch_id, moment) else None


def is_materialized(batch: IngestBatch) -> bool:
    """Tell whether a fold has added the batch to the aggregates."""
    return not PendingBatch.objects.filter(pk=batch.pk, usage_event_id=batch.usage_event_id).exists()
