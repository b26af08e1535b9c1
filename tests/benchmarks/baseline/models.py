"""The plain tables: one for the bare insert, one as a straightforward design would have it, indexed as ours is."""

from django.contrib.postgres.indexes import BTreeIndex
from django.db import models


class BareRow(models.Model):
    """A row with a key and a JSON value: what a durable INSERT costs at the least."""

    key = models.TextField()
    data = models.JSONField()

    class Meta:
        app_label = "baseline"


class PlainRecord(models.Model):
    """A usage record in a table with the same columns and indexes, written through the ORM."""

    usage_event_id = models.BigIntegerField()
    customer_id = models.BigIntegerField()
    timestamp = models.DateTimeField()
    idempotency_key = models.TextField(unique=True, null=True)
    data = models.JSONField()
    batch_id = models.BigIntegerField(default=1)
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "baseline"
        indexes = [
            BTreeIndex(fields=["usage_event_id", "customer_id", "timestamp"], name="plain_by_customer"),
            BTreeIndex(fields=["usage_event_id", "timestamp", "id"], name="plain_by_time"),
            BTreeIndex(fields=["batch_id"], name="plain_by_batch"),
        ]
