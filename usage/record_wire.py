"""A usage record as the API and the exports write it."""

from typing import Any

from customers.exactjson import loads
from usage.history import moment_text
from usage.record_sql import RecordRow
from usage.references import batch_reference


def wire_record(row: RecordRow) -> dict[str, Any]:
    """Return a record as the API writes it; `data` with every digit."""
    return {
        "id": str(row.id),
        "record_id": row.record_id,
        "usage_event": row.usage_event,
        "customer_id": row.customer_id,
        "customer_archived": row.customer_archived,
        "timestamp": moment_text(row.timestamp),
        "data": loads(row.data),
        "received_at": moment_text(row.received_at),
        "batch": batch_reference(row.batch_id, row.received_at),
        "schema_version": row.schema_version,
        "revision": row.revision,
        "voided_at": row.voided_at and moment_text(row.voided_at),
    }
