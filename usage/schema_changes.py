"""What a new schema would mean for the records that are stored, and for what is calculated from them."""

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils.module_loading import import_string

from usage.models import RecordRevision, UsageEvent, UsageRecord
from usage.schema_sql import own_schema
from usage.schema_widening import changed_properties, narrowings
from usage.schemas import DataSchema, check_schema

CHUNK = 2_000
SAMPLES = 10

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


@dataclass(frozen=True, slots=True)
class Position:
    """How far the records had been looked at: the newest record and the newest correction."""

    schema_version: int
    record_id: int
    revision_id: int


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """What a change of schema means. `compatible`: it takes all that the old one took, as `reasons` do not deny.

    `violating_records` of the stored records that are not void would be refused by it, `sampled_ids` are some of them,
    and `metrics` are named that use a property which it removes or gives another type.
    """

    compatible: bool
    reasons: list[str]
    violating_records: int
    sampled_ids: list[int]
    metrics: list[str]
    seen: Position = field(repr=False)

    @property
    def harmless(self) -> bool:
        """Tell whether it can be published without anybody accepting anything."""
        return not self.violating_records and not self.metrics


class SchemaChangeRefused(ValueError):
    """The new schema does not fit what is stored or calculated, and nobody has accepted that; `change` says why."""

    def __init__(self, change: SchemaChange) -> None:
        found = []
        if change.violating_records:
            found.append(f"{change.violating_records} stored records do not fit this schema")
        if change.metrics:
            found.append(f"properties that it removes or retypes are used by {', '.join(change.metrics)}")
        super().__init__("; ".join(found) + ". It was not published")
        self.change = change


def is_evidently_harmless(usage_event: UsageEvent, schema: dict[str, Any]) -> bool:
    """Tell whether the schemas alone show that every record fits, and nothing uses a property that changes."""
    changed = changed_properties(usage_event.schema, schema)
    return not narrowings(usage_event.schema, schema) and not _users(usage_event.pk, changed)


def check_schema_change(usage_event: UsageEvent, schema: dict[str, Any]) -> SchemaChange:
    """Return what publishing the schema would mean; a change that is not compatible is tried on every stored record.

    Records are read as one stream in one snapshot, while others go on storing. Raises ValueError for a schema that
    cannot serve.
    """
    check_schema(schema)
    reasons = narrowings(usage_event.schema, schema)
    with transaction.atomic(), connection.cursor() as cursor:
        # For a moment nobody stores: whatever has an id up to the newest is committed, and the check will see it.
        own_schema(cursor, usage_event.pk)
        seen = _position(usage_event)
    violating, samples = _violations(_stored(usage_event.pk), schema) if reasons else (0, [])
    metrics = _users(usage_event.pk, changed_properties(usage_event.schema, schema))
    return SchemaChange(not reasons, reasons, violating, samples, metrics, seen)


def check_since(usage_event: UsageEvent, schema: dict[str, Any], change: SchemaChange) -> None:
    """Try the schema on what was stored or corrected since the check; raises SchemaChangeRefused.

    From here to the end of the caller's transaction nobody stores, so nothing slips between check and publication.
    """
    with connection.cursor() as cursor:
        own_schema(cursor, usage_event.pk)
    revised = RecordRevision.objects.filter(usage_event_id=usage_event.pk, pk__gt=change.seen.revision_id)
    fresh = _stored(usage_event.pk).filter(Q(pk__gt=change.seen.record_id) | Q(pk__in=revised.values("record_id")))
    violating, samples = _violations(fresh, schema)
    if violating:
        raise SchemaChangeRefused(replace(change, violating_records=violating, sampled_ids=samples))


def _position(usage_event: UsageEvent) -> Position:
    return Position(
        usage_event.schema_version,
        UsageRecord.objects.aggregate(newest=Max("pk"))["newest"] or 0,
        RecordRevision.objects.aggregate(newest=Max("pk"))["newest"] or 0,
    )


def _stored(usage_event_id: int) -> QuerySet[UsageRecord]:
    return UsageRecord.objects.filter(usage_event_id=usage_event_id, voided_at=None)


def _violations(records: QuerySet[UsageRecord], schema: dict[str, Any]) -> tuple[int, list[int]]:
    """Count the records that the schema refuses, and name some; one statement, read in chunks."""
    is_valid = DataSchema(schema).is_valid
    count = 0
    samples: list[int] = []
    rows = records.annotate(text=Cast("data", TextField())).values_list("pk", "text")
    with transaction.atomic():  # outside of one, PostgreSQL would put the whole answer on disk first
        for record_id, text in rows.iterator(chunk_size=CHUNK):
            if not is_valid(_decode(text)):
                count += 1
                if len(samples) < SAMPLES:
                    samples.append(record_id)
    return count, samples


def _users(usage_event_id: int, properties: set[str]) -> list[str]:
    """Ask the apps above, which the settings name, who uses these properties."""
    if not properties:
        return []
    return sorted(user for path in settings.PROPERTY_USERS for user in import_string(path)(usage_event_id, properties))
