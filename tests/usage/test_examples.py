"""What a sender needs to begin: an example that the schema takes, and a curl that a shell understands."""

import json
import shlex
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import record, take_in
from usage.examples import example_curl, example_data
from usage.models import UsageEvent
from usage.schemas import DataSchema, check_schema
from usage.slugs import slug_of


def one(subschema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": subschema}, **more}


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        ({"type": "object"}, {}),
        (one({"type": "number"}), {"a": 5}),
        (one({"type": "number", "minimum": 10}), {"a": 10}),
        (one({"type": "number", "exclusiveMinimum": Decimal("7.5")}), {"a": Decimal("8.5")}),
        (one({"type": "integer", "maximum": 3}), {"a": 3}),
        (one({"type": "integer", "exclusiveMaximum": 3}), {"a": 2}),
        (one({"type": "integer", "multipleOf": 60}), {"a": 60}),
        (one({"type": "string"}), {"a": "example"}),
        (one({"type": "string", "minLength": Decimal("9.0")}), {"a": "exampleee"}),
        (one({"type": "string", "maxLength": 2}), {"a": "ex"}),
        (one({"type": "boolean"}), {"a": True}),
        (one({"type": ["null", "string"]}), {"a": None}),
        (one({"type": "array"}), {"a": []}),
        (one({"enum": ["eu", "us"]}), {"a": "eu"}),
        (one({"const": {"b": 1}}), {"a": {"b": 1}}),
        (one({"type": "string", "examples": ["2025"]}), {"a": "2025"}),
        (one({"type": "number", "default": Decimal("0.5")}), {"a": Decimal("0.5")}),
        (one(one({"type": "integer"})), {"a": {"a": 5}}),
        (one(True), {"a": "example"}),
        (one({"type": "string", "pattern": "^[0-9]{4}$"}), {}),
        (one({"type": "string", "minLength": 10**12}), {}),
    ],
)
def test_the_example_fits_the_schema(schema: dict[str, Any], example: dict[str, Any]) -> None:
    check_schema(schema)
    assert example_data(schema) == example
    assert DataSchema(schema).is_valid(example)


def test_an_example_that_cannot_be_guessed_is_a_start() -> None:
    schema = one({"type": "string", "pattern": "^[0-9]{4}$"}, required=["a"])
    assert example_data(schema) == {"a": "example"}


def test_the_curl_survives_a_shell(compute: UsageEvent) -> None:
    compute.schema = one({"enum": ["it's $HOME `x` \\ \" ü"]})
    words = shlex.split(example_curl(compute, "the-key", datetime(2025, 6, 17, 14, 3, 12, tzinfo=UTC)))
    assert words[:4] == ["curl", "-X", "POST", "http://localhost:8000/usage/compute_hours"]
    assert json.loads(words[-1]) == {
        "customer_id": "cus_123",
        "timestamp": "2025-06-17T14:03:12Z",
        "data": {"a": "it's $HOME `x` \\ \" ü"},
    }
    assert "organisation: the-key" in words


def test_the_example_is_accepted(compute: UsageEvent) -> None:
    assert take_in(compute, record() | {"data": example_data(compute.schema)}).accepted == 1


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Compute hours", "compute_hours"),
        ("  GPU-hours (Zürich) ", "gpu_hours_zurich"),
        ("用量", ""),
        ("__a__", "a"),
        ("x" * 200, "x" * 100),
        ("x" * 99 + " y", "x" * 99),
        ("ﬁne", "fine"),
    ],
)
def test_a_slug_is_derived_from_a_name(name: str, slug: str) -> None:
    assert slug_of(name) == slug
