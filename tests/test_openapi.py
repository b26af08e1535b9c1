"""The OpenAPI document: complete, valid, open, and true of the real server."""

import json
from typing import Any

import pytest
import schemathesis
from django.core.management import call_command
from django.test import Client
from hypothesis import HealthCheck, Phase, given, seed, settings
from playwright.sync_api import Page
from pytest_django.live_server_helper import LiveServer
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from customers.models import Customer, Organisation
from metrics.definitions import revise_metric
from metrics.models import Metric
from tests.conftest import record, take_in
from tests.e2e.conftest import browser, page
from tests.test_tenants_api import OPEN, routes
from usage.models import RejectedRecord, UsageEvent, UsageRecord

__all__ = ["browser", "page"]

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 3


def document(client: Client) -> Any:
    answer = client.get("/api/schema/")
    assert answer.status_code == 200
    return json.loads(answer.content)


def test_the_document_is_complete_and_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", validate=True, fail_on_warn=True)

    assert capsys.readouterr().out.startswith("openapi: 3.1.0")


def test_every_route_is_described(client: Client) -> None:
    described = {path.strip("/").replace("{", "<").replace("}", ">") for path in document(client)["paths"]}
    there = {route.replace("<pk>", "<id>").strip("/") for route in set(routes()) - OPEN}
    assert described == there


def test_every_operation_names_both_headers_and_its_refusals(client: Client) -> None:
    told = document(client)
    schemes = told["components"]["securitySchemes"]
    assert {scheme["name"] for scheme in schemes.values()} == {"organisation", "x-api-key"}
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            assert operation["security"] == [{key: [] for key in schemes}], (method, path)
            assert operation["summary"], (method, path)
            for status in ("400", "401", "403", "404", "503"):
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"], (method, path)


def test_the_document_holds_nothing_of_a_tenant(client: Client, compute: UsageEvent) -> None:
    before = document(client)
    take_in(compute, record("a-customer-nobody-else-knows"))

    assert document(client) == before


@pytest.mark.browser
def test_the_page_shows_the_document_without_the_internet(live_server: LiveServer, page: Page) -> None:
    problems: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{live_server.url}/api/docs/")
    page.get_by_text("Post records").or_(page.get_by_text("Ingest the body")).first.wait_for()

    assert page.locator(".opblock").count() >= 20
    assert [url for url in asked if not url.startswith((live_server.url, "data:"))] == []
    assert problems == []


@pytest.fixture
def known(cpu_hours: Metric, organisation: Organisation) -> dict[str, str]:
    """Something of everything; returns the names to put in addresses."""
    assert cpu_hours.usage_event is not None
    result = take_in(cpu_hours.usage_event, record("cus_1", id="a"), record(hours="5"))
    revise_metric(cpu_hours, {"group_by": ["region"]})
    Customer.objects.filter(external_id="cus_1").update(name="One")
    return {
        "/usage/": "compute_hours",
        "/api/usage-events/": "compute_hours",
        "/api/metrics/": "cpu_hours",
        "/api/materialization/": "",
        "/api/customers/": "cus_1",
        "/api/usage-records/": str(UsageRecord.objects.get().pk),
        "/api/rejected-records/": str(RejectedRecord.objects.get().pk),
        "/api/ingest-batches/": result.batch or "",
        "/api/uploads/": "1",
    }


def test_the_real_server_answers_as_the_document_says(
    live_server: LiveServer, client: Client, headers: dict[str, str], known: dict[str, str]
) -> None:
    schema = schemathesis.openapi.from_dict(document(client))
    tried = []

    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]
        (name,) = (name for prefix, name in known.items() if operation.path.startswith(prefix))
        try_out(operation, name, live_server.url, headers)
        tried.append(operation.label)

    assert len(tried) >= 25


def try_out(operation: Any, name: str, url: str, headers: dict[str, str]) -> None:
    """Send requests of an operation's own making about something that is there."""

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def answers_as_described(case: Any) -> None:
        for parameter in case.path_parameters or {}:
            case.path_parameters[parameter] = name
        case.validate_response(case.call(base_url=url, headers=headers), checks=CHECKS)

    answers_as_described()
