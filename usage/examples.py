"""What a sender needs to begin: the endpoint, example data built from the schema, and a curl to paste."""

import shlex
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils.timezone import now

from customers.exactjson import dumps
from usage.models import UsageEvent
from usage.schemas import DataSchema, properties_of, types_of

MAX_DEPTH = 4
BY_TYPE: dict[str, Any] = {"number": 5, "integer": 5, "string": "example", "boolean": True, "null": None, "array": []}


def endpoint_of(slug: str) -> str:
    """Return the full URL that records of the slug are posted to."""
    return f"{settings.SITE_URL}/usage/{slug}"


def example_data(schema: dict[str, Any]) -> dict[str, Any]:
    """Return data for the schema: every property where that is valid, else the required ones.

    A schema may ask for what cannot be guessed (a pattern, a condition): then the example is a start, not valid.
    """
    full = _example_object(schema, only_required=False, depth=0)
    if DataSchema(schema).is_valid(full):
        return full
    return _example_object(schema, only_required=True, depth=0)


def example_curl(usage_event: UsageEvent, organisation_key: str, moment: datetime | None = None) -> str:
    """Return a command that posts one record; the API key stands in `$API_KEY`."""
    timestamp = (moment or now()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = {"customer_id": "cus_123", "timestamp": timestamp, "data": example_data(usage_event.schema)}
    return "\n".join(
        (
            f"curl -X POST {shlex.quote(endpoint_of(usage_event.slug))} \\",
            f'  -H "organisation: {organisation_key}" \\',
            '  -H "x-api-key: $API_KEY" \\',
            '  -H "Content-Type: application/json" \\',
            f"  --data-raw {shlex.quote(dumps(record))}",
        )
    )


def _example_object(schema: dict[str, Any], *, only_required: bool, depth: int) -> dict[str, Any]:
    required = set(schema.get("required") or [])
    return {
        name: _example(subschema, only_required, depth + 1)
        for name, subschema in properties_of(schema).items()
        if name in required or not only_required
    }


def _example(schema: dict[str, Any], only_required: bool, depth: int) -> Any:
    if "const" in schema:
        return schema["const"]
    for key in ("examples", "enum"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    if "default" in schema:
        return schema["default"]
    kind = next(iter(types_of(schema)), "string")
    if kind == "object":
        return _example_object(schema, only_required=only_required, depth=depth) if depth < MAX_DEPTH else {}
    if kind in ("number", "integer"):
        return _within(schema)
    if kind == "string":
        shortest, longest = (min(int(schema.get(name, 100)), 100) for name in ("minLength", "maxLength"))
        return BY_TYPE["string"].ljust(shortest if "minLength" in schema else 0, "e")[:longest]
    return BY_TYPE.get(kind)


def _within(schema: dict[str, Any]) -> Any:
    """Return 5, or a number that the schema's limits allow."""
    number = schema.get("multipleOf", BY_TYPE["number"])
    if "minimum" in schema:
        number = max(number, schema["minimum"])
    if "exclusiveMinimum" in schema:
        number = max(number, schema["exclusiveMinimum"] + 1)
    if "maximum" in schema:
        number = min(number, schema["maximum"])
    if "exclusiveMaximum" in schema:
        number = min(number, schema["exclusiveMaximum"] - 1)
    return number
