"""The demo organisation: usage events, customers, metrics and sixty days of records to look at."""

import logging
import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.timezone import now

from customers.exactjson import dumps
from customers.keys import issue_api_key
from customers.models import Customer, Membership, Organisation, Scope
from metrics.definitions import activate_metric, revise_metric, save_metric
from metrics.materialization import build
from metrics.models import Metric
from usage.bodies import split_body
from usage.definitions import create_usage_event, define
from usage.ingestion import Source, ingest
from usage.models import IngestBatch, UsageEvent

logger = logging.getLogger(__name__)

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
SLOW_CALLS = """\
SELECT customer_id, endpoint, count(*) AS quantity
FROM api_calls
WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}}
  AND duration_ms > 500
GROUP BY customer_id, endpoint"""
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
    _define_metrics(organisation, compute, calls)


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


def _define_metrics(organisation: Organisation, compute: UsageEvent, calls: UsageEvent) -> None:
    """Metrics of several kinds: plain, with dimensions, with a draft to compare with what is in force, and in SQL."""
    of_hours = {"usage_event": compute, "aggregation": "sum", "property": "cpu_usage_hours", "unit": "hours"}
    of_calls = {"usage_event": calls, "aggregation": "count", "unit": "calls"}
    p95 = {"usage_event": calls, "aggregation": "percentile", "percentile": Decimal(95), "property": "duration_ms"}
    definitions: list[dict[str, Any]] = [
        {"code": "cpu_hours", "name": "CPU hours", **of_hours},
        {"code": "api_calls", "name": "API calls", **of_calls},
        {"code": "hours_by_region", "name": "CPU hours by region", **of_hours, "group_by": ["region"]},
        {"code": "p95_duration", "name": "95th percentile of call duration", **p95, "unit": "ms"},
    ]
    active = {one["code"]: _activate(Metric(organisation=organisation, **one)) for one in definitions}
    # To be looked at with Compare: what calls would come to if those that failed here were free.
    revise_metric(active["api_calls"], {"filters": {"all": [{"property": "status", "operator": "lt", "value": 500}]}})
    in_sql = {"code": "slow_calls", "name": "Slow calls (SQL)", "unit": "calls", "sql": SLOW_CALLS, "sql_window": "day"}
    try:
        _activate(Metric(organisation=organisation, **in_sql))
    except ValidationError as error:
        # A server whose accounts may make no roles has no SQL metrics; the rest of the demo works.
        logger.warning("the demo has no SQL metric: %s", "; ".join(error.messages))


def _activate(metric: Metric) -> Metric:
    save_metric(metric)
    activated = activate_metric(metric.pk)
    if activated.status == Metric.Status.BUILDING:
        build(metric.pk)
    metric.refresh_from_db()
    return metric
