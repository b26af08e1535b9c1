"""What every test can ask for: an organisation, its key, usage events, and the shortest way to post and to count."""

import os
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

import psycopg.errors
import pytest
from django.db import IntegrityError, connection
from django.test import Client

from customers import authentication, resolution
from customers.exactjson import dumps
from customers.keys import issue_api_key
from customers.models import Organisation, Scope
from metrics.definitions import activate_metric, save_metric
from metrics.materialization import build
from metrics.models import Metric
from usage import definitions, storage
from usage.bodies import Submission, split_body
from usage.definitions import create_usage_event, define
from usage.ingestion import IngestResult, Source, ingest
from usage.models import IngestBatch, UsageEvent

COMPUTE_SCHEMA = {
    "type": "object",
    "properties": {
        "cpu_usage_hours": {"type": "number"},
        "cpu_usage_hours_per_month": {"type": "number"},
        "region": {"type": "string"},
    },
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def forgetful_process() -> None:
    """Each test starts as a new process would: nothing remembered of keys, customers, definitions, replays."""
    for memory in (
        authentication._known,
        authentication._use_noted,
        resolution._known,
        definitions._known,
        storage._replaying,
    ):
        memory.clear()


@pytest.fixture
def organisation(transactional_db: None) -> Organisation:
    """An organisation in UTC. The database is one whose commits are real: the acts rely on them."""
    return Organisation.objects.create(name="Acme", timezone="UTC")


@pytest.fixture
def compute(organisation: Organisation) -> UsageEvent:
    """The usage event `compute_hours` of the README."""
    return create_usage_event(organisation, name="Compute hours", slug="compute_hours", schema=COMPUTE_SCHEMA)


@pytest.fixture
def cpu_hours(compute: UsageEvent) -> Metric:
    """An active metric: the sum of `cpu_usage_hours`."""
    return active_metric(compute, code="cpu_hours", aggregation="sum", property="cpu_usage_hours")


def active_metric(usage_event: UsageEvent, **definition: Any) -> Metric:
    """Define a metric, build it and return it active."""
    metric = Metric(organisation=usage_event.organisation, usage_event=usage_event, **{"name": "M", **definition})
    save_metric(metric)
    activate_metric(metric.pk)
    assert build(metric.pk)
    metric.refresh_from_db()
    return metric


def record(
    customer: str = "cus_1", timestamp: str = "2025-06-17T14:03:12Z", hours: Any = 1, **more: Any
) -> dict[str, Any]:
    """A record for `compute_hours`, as a sender writes it."""
    return {"customer_id": customer, "timestamp": timestamp, "data": {"cpu_usage_hours": hours}, **more}


def submission(*records: Any) -> Submission:
    """Records as a request would bring them."""
    return split_body(dumps(list(records)).encode(), max_records=10_000)


def take_in(usage_event: UsageEvent, *records: dict[str, Any]) -> IngestResult:
    """Ingest records as a form would hand them in."""
    usage_event.refresh_from_db()
    return ingest(define(usage_event), submission(*records), source=Source(IngestBatch.Source.FORM))


Post = Callable[..., Any]


def beaten_to_it(*_: Any) -> NoReturn:
    """Somebody else stores an identity between the look at it and the insert."""
    raise IntegrityError("known") from psycopg.errors.UniqueViolation("known")


@pytest.fixture
def headers(organisation: Organisation) -> dict[str, str]:
    """The two headers of a key with every scope."""
    _, secret = issue_api_key(organisation, "test", list(Scope))
    return {"organisation": str(organisation.key), "x-api-key": secret}


@pytest.fixture
def post(client: Client, headers: dict[str, str]) -> Post:
    """post(path, body, **headers): POST a JSON text or a value with the key's headers."""

    def post_json(path: str, body: Any, **more: str) -> Any:
        text = body if isinstance(body, str | bytes) else dumps(body)
        return client.post(path, text, content_type="application/json", headers={**headers, **more})

    return post_json


def environment_of_the_tests() -> dict[str, str]:
    """Return the environment for a process that works on the database of the test that starts it."""
    here = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(here._replace(path=f"/{connection.settings_dict['NAME']}"))
    return {**os.environ, "DATABASE_URL": database, "DJANGO_SETTINGS_MODULE": "config.settings"}
