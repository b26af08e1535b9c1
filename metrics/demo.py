"""The demo organisation: usage events, customers, metrics and sixty days of records to look at."""

import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.utils.timezone import now

from customers.exactjson import dumps
from customers.keys import issue_api_key
from customers.models import Customer, Membership, Organisation, Scope
from metrics.definitions import activate_metric, save_metric
from metrics.materialization import build
from metrics.models import Aggregation, Metric
from usage.bodies import split_body
from usage.definitions import create_usage_event, define
from usage.ingestion import Source, ingest
from usage.models import IngestBatch, UsageEvent

NAME = "Demo organisation"
DAYS = 60
CUSTOMERS = {
    "cus_123": "Acme Robotics",
    "cus_aurora": "Aurora Weather",
    "cus_birch": "Birch & Partners",
    "cus_cobalt": "Cobalt Games",
    "cus_delta": "Delta Freight",
    "cus_ember": "Ember Health",
}
COMPUTE_HOURS = {
    "type": "object",
    "properties": {
        "cpu_usage_hours": {"type": "number", "minimum": 0},
        "cpu_usage_hours_per_month": {"type": "number", "minimum": 0},
        "region": {"type": "string", "enum": ["eu-central", "us-east", "ap-south"]},
    },
    "additionalProperties": False,
}
API_CALLS = {
    "type": "object",
    "properties": {
        "endpoint": {"type": "string"},
        "status": {"type": "integer", "minimum": 100, "maximum": 599},
        "duration_ms": {"type": "number", "minimum": 0},
    },
    "required": ["endpoint"],
    "additionalProperties": False,
}
RECORDS = {"compute_hours": 2_000, "api_calls": 3_000}


@dataclass(frozen=True, slots=True)
class DemoAccess:
    """What opens the demo; secrets are known only to the caller who made or renewed them."""

    organisation: Organisation
    api_key: str
    admin_user: str
    admin_password: str


def create_demo(*, api_key: str | None, admin_user: str, admin_password: str | None) -> DemoAccess:
    """Create the demo organisation, its people, definitions and records, as far as they are not there; idempotent.

    `api_key` and `admin_password` are remembered from an earlier start; where they are None, new ones are made.
    """
    organisation, created = Organisation.objects.get_or_create(name=NAME, defaults={"timezone": "UTC"})
    user, _ = User.objects.get_or_create(username=admin_user, defaults={"is_staff": True, "is_superuser": True})
    if admin_password is None:
        admin_password = secrets.token_urlsafe(12)
        user.set_password(admin_password)
        user.save()
    Membership.objects.get_or_create(organisation=organisation, user=user)
    if created or not organisation.usage_events.exists():
        _fill(organisation)
    if api_key is None:
        _, api_key = issue_api_key(organisation, "Demo key", list(Scope))
    return DemoAccess(organisation, api_key, admin_user, admin_password)


def _fill(organisation: Organisation) -> None:
    for external_id, name in CUSTOMERS.items():
        Customer.objects.create(organisation=organisation, external_id=external_id, name=name)
    compute = create_usage_event(organisation, name="Compute hours", slug="compute_hours", schema=COMPUTE_HOURS)
    calls = create_usage_event(organisation, name="API calls", slug="api_calls", schema=API_CALLS)
    chance = random.Random(20)
    for usage_event, make in ((compute, _compute_data), (calls, _call_data)):
        _post(usage_event, [_record(chance, make) for _ in range(RECORDS[usage_event.slug])])
    _activate(organisation, compute, "cpu_hours", "CPU hours", "hours", Aggregation.SUM, "cpu_usage_hours")
    _activate(organisation, calls, "api_calls", "API calls", "calls", Aggregation.COUNT, "")


def _post(usage_event: UsageEvent, records: list[dict[str, Any]]) -> None:
    submission = split_body(dumps(records).encode(), max_records=len(records))
    ingest(define(usage_event), submission, source=Source(IngestBatch.Source.DEMO))


def _record(chance: random.Random, make: Any) -> dict[str, Any]:
    # Never in the current hour, so that the numbers stand still while they are looked at.
    end: datetime = now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    moment = end - timedelta(seconds=chance.randrange(1, DAYS * 86_400))
    customer = chance.choices(list(CUSTOMERS), weights=[8, 5, 4, 3, 2, 1])[0]
    return {"customer_id": customer, "timestamp": moment.isoformat(), "data": make(chance)}


def _compute_data(chance: random.Random) -> dict[str, Any]:
    hours = Decimal(chance.randrange(1, 96)) / 4
    return {"cpu_usage_hours": hours, "region": chance.choice(["eu-central", "us-east", "ap-south"])}


def _call_data(chance: random.Random) -> dict[str, Any]:
    return {
        "endpoint": chance.choice(["/v1/route", "/v1/geocode", "/v1/tiles"]),
        "status": chance.choices([200, 404, 500], weights=[96, 3, 1])[0],
        "duration_ms": Decimal(chance.randrange(40, 9_000)) / 10,
    }


def _activate(
    organisation: Organisation,
    usage_event: UsageEvent,
    code: str,
    name: str,
    unit: str,
    aggregation: Aggregation,
    property_name: str,
) -> None:
    metric = save_metric(
        Metric(
            organisation=organisation,
            usage_event=usage_event,
            code=code,
            name=name,
            unit=unit,
            aggregation=aggregation,
            property=property_name,
        )
    )
    activate_metric(metric.pk)
    build(metric.pk)
