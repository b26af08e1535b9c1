"""/api/ingest-batches/<batch>/: the receipt."""

from typing import Any

import pytest
from django.test import Client

from customers.keys import issue_api_key
from metrics.materialization import fold
from metrics.models import Metric
from tests.conftest import record
from usage.models import IngestBatch


def test_a_receipt_tells_what_a_batch_did(
    client: Client, headers: dict[str, str], post: Any, cpu_hours: Metric
) -> None:
    post("/usage/compute_hours", record(id="a"))
    answer = post("/usage/compute_hours", [record(id="a"), record(id="a2"), record(hours="5"), record(id="a", hours=7)])
    reference = answer.json()["batch"]
    path = f"/api/ingest-batches/{reference}/"

    receipt = client.get(path, headers=headers)
    batch = IngestBatch.objects.latest("pk")
    expected = {
        "batch": reference,
        "usage_event": "compute_hours",
        "source": "api",
        "accepted": 1,
        "duplicates": 1,
        "conflicts": 0,
        "rejected": 2,
        "received_at": batch.received_at.isoformat().replace("+00:00", "Z"),
    }
    assert receipt.status_code == 200
    assert receipt.json() == {**expected, "materialized": False}

    fold(batch.usage_event_id)
    assert client.get(path, headers=headers).json() == {**expected, "materialized": True}


@pytest.mark.parametrize("reference", ["x", "0" * 26, "Z" * 26, "0" * 25 + "1", "A" * 400])
def test_what_names_no_batch_is_not_found(client: Client, headers: dict[str, str], reference: str) -> None:
    assert client.get(f"/api/ingest-batches/{reference}/", headers=headers).status_code == 404


@pytest.mark.parametrize(("scope", "status"), [("ingest", 200), ("read", 200), ("manage", 403)])
def test_who_posts_may_read_receipts(client: Client, post: Any, cpu_hours: Metric, scope: str, status: int) -> None:
    reference = post("/usage/compute_hours", record()).json()["batch"]
    _, secret = issue_api_key(cpu_hours.organisation, scope, [scope])
    headers = {"organisation": str(cpu_hours.organisation.key), "x-api-key": secret}

    assert client.get(f"/api/ingest-batches/{reference}/", headers=headers).status_code == status
