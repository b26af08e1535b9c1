"""Ingest batches as the API shows them."""

from typing import Any

from rest_framework import serializers

from customers.api import InstantField
from usage.models import IngestBatch
from usage.receipts import is_materialized
from usage.references import batch_reference


class BatchSerializer(serializers.Serializer[Any]):
    """The receipt of an ingest batch; `materialized` tells whether the aggregates hold it. Quantities always do."""

    batch = serializers.SerializerMethodField()
    usage_event = serializers.CharField(source="usage_event.slug")
    source = serializers.ChoiceField(choices=IngestBatch.Source.choices)  # type: ignore[assignment]
    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    conflicts = serializers.IntegerField()
    rejected = serializers.IntegerField()
    received_at = InstantField()
    materialized = serializers.SerializerMethodField()

    def get_batch(self, batch: IngestBatch) -> str:
        return batch_reference(batch.pk, batch.received_at)

    def get_materialized(self, batch: IngestBatch) -> bool:
        return is_materialized(batch)
