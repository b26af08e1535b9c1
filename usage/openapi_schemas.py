"""Shapes and examples that the OpenAPI document shows and no serializer holds: the bodies of ingestion and uploads."""

from typing import Any

RECORD: dict[str, Any] = {
    "customer_id": "cus_123",
    "timestamp": "2025-06-17T14:03:12Z",
    "data": {"cpu_usage_hours": 5},
    "id": "0197a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b",
}
STORED_RECORD: dict[str, Any] = {
    "id": "17",
    "record_id": "evt-9",
    "usage_event": "compute_hours",
    "customer_id": "cus_123",
    "customer_archived": False,
    "timestamp": "2025-06-17T14:03:12Z",
    "data": {"cpu_usage_hours": 5},
    "received_at": "2025-06-17T14:03:13.120000Z",
    "batch": "01JXZ6Q8K0000000000000000H",
    "schema_version": 1,
    "revision": 1,
    "voided_at": None,
}
USAGE_EVENT: dict[str, Any] = {
    "name": "Compute hours",
    "slug": "compute_hours",
    "schema": {"type": "object", "properties": {"cpu_usage_hours": {"type": "number"}}},
}
RECORD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A usage record, as the sender's system knows it.",
    "required": ["customer_id", "timestamp", "data"],
    "additionalProperties": False,
    "properties": {
        "customer_id": {"type": "string", "minLength": 1, "maxLength": 255},
        "timestamp": {"type": "string", "description": "RFC 3339, or `YYYY-MM-DD HH:MM:SS[.ffffff]` in UTC."},
        "data": {"type": "object", "description": "Valid against the usage event's schema."},
        "id": {"type": ["string", "null"], "minLength": 1, "maxLength": 255, "description": "UUIDv7 is best."},
    },
}
MANY: dict[str, Any] = {"type": "array", "items": RECORD_SCHEMA, "minItems": 1}
RECORD_BODIES: dict[str, Any] = {
    "application/json": {
        "oneOf": [
            RECORD_SCHEMA,
            MANY,
            {
                "type": "object",
                "required": ["records"],
                "additionalProperties": False,
                "properties": {"records": MANY},
            },
        ]
    },
    "application/x-ndjson": {"type": "string", "description": "One record a line."},
}
INGESTED: dict[str, Any] = {
    "type": "object",
    "description": "What became of the records; `errors` lists at most 100 of them.",
    "required": ["batch", "accepted", "duplicates", "conflicts", "rejected", "errors"],
    "properties": {
        "batch": {"type": ["string", "null"], "description": "The receipt; null where a strict request was refused."},
        "accepted": {"type": "integer"},
        "duplicates": {"type": "integer"},
        "conflicts": {"type": "integer"},
        "rejected": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "id", "code", "pointer", "message", "rejected_record"],
                "properties": {
                    "index": {"type": "integer"},
                    "id": {"type": ["string", "null"]},
                    "code": {"type": "string"},
                    "pointer": {"type": "string", "description": "JSON Pointer (RFC 6901)."},
                    "message": {"type": "string"},
                    "rejected_record": {"type": ["string", "null"], "description": "Its entry in the quarantine."},
                },
            },
        },
        "errors_truncated": {"type": "boolean"},
        "not_quarantined": {"type": "integer", "description": "Refused records that the full quarantine only counted."},
    },
    "example": {
        "batch": "01JXZ6Q8K0000000000000000H",
        "accepted": 1,
        "duplicates": 0,
        "conflicts": 0,
        "rejected": 0,
        "errors": [],
    },
}
INGEST_HEADERS: dict[str, str] = {
    "Idempotency-Key": "Gives records without `id` one: itself, or in a batch `<key>:<index>`.",
    "Prefer": "`handling=strict`: one refused record, and nothing is stored.",
    "Content-Encoding": "`gzip` is understood.",
}
STORED: dict[str, Any] = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "stored", "batch"],
                "properties": {
                    "id": {"type": "string"},
                    "stored": {"type": "boolean"},
                    "batch": {"type": ["string", "null"]},
                },
            },
        }
    },
}
# How a file is read: parameters, parts of a form and, to change it, members of a JSON object.
UPLOAD_READING: dict[str, dict[str, Any]] = {
    "delimiter": {"type": ["string", "null"], "description": "Between cells: a comma, a semicolon or a tab."},
    "decimal": {"type": ["string", "null"], "description": "The decimal sign of numbers: `.` or `,`."},
    "thousands": {"type": ["string", "null"], "description": "What groups digits, if anything does."},
    "timezone": {"type": ["string", "null"], "description": "IANA zone of timestamps that name none; UTC."},
    "mapping": {
        "type": ["object", "null"],
        "additionalProperties": {"type": ["string", "null"]},
        "description": "Columns to `customer_id`, `timestamp`, `id`, `data.<property>`, or null to leave one out.",
    },
}
UPLOAD_PARAMETERS: dict[str, dict[str, Any]] = {
    "usage_event": {"type": "string", "description": "The usage event's slug."},
    "format": {"type": "string", "enum": ["csv", "ndjson"]},
    "file_name": {"type": "string", "description": "How the file shall be called."},
    "start": {"type": "string", "enum": ["true", "false"], "description": "`true`: ingest it at once."},
    **{name: {"type": "string", "description": member["description"]} for name, member in UPLOAD_READING.items()},
}
UPLOAD_BODIES: dict[str, Any] = {
    "multipart/form-data": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}, **UPLOAD_PARAMETERS},
    },
    "text/csv": {"type": "string"},
    "application/x-ndjson": {"type": "string"},
}


def _page_of(*items: dict[str, Any]) -> dict[str, Any]:
    """A page of a list; what is no page has no links."""
    link = {"type": ["string", "null"]}
    return {
        "type": "object",
        "required": ["results"],
        "properties": {"next": link, "previous": link, "results": {"type": "array", "items": {"anyOf": list(items)}}},
    }


CAUSE: dict[str, Any] = {
    "type": "object",
    "description": "What is open for one reason: entries, and records sent.",
    "required": ["usage_event", "code", "entries", "records"],
    "additionalProperties": False,
    "properties": {
        "usage_event": {"type": "string"},
        "code": {"type": "string"},
        "entries": {"type": "integer"},
        "records": {"type": "integer"},
    },
}
PAGE_OF_RECORDS = _page_of({"$ref": "#/components/schemas/Record"})
REJECTED = _page_of({"$ref": "#/components/schemas/RejectedRecord"}, CAUSE)
