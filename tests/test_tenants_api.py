"""Every address of the API as the wrong organisation: nothing of another one is seen, changed or told apart."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from customers.keys import issue_api_key
from customers.models import Customer, Organisation, Scope
from metrics.definitions import save_metric
from metrics.models import Metric
from tests.conftest import COMPUTE_SCHEMA, active_metric, record, take_in
from usage.definitions import create_usage_event
from usage.models import (
    ChangedWindow,
    IngestBatch,
    PendingBatch,
    RecordRevision,
    SchemaVersion,
    UsageEvent,
    UsageRecord,
)

FACTS = (
    UsageEvent,
    SchemaVersion,
    UsageRecord,
    RecordRevision,
    IngestBatch,
    PendingBatch,
    ChangedWindow,
    Customer,
    Metric,
)

JUNE = "start=2025-06-01&end=2025-07-01"
# route -> (method, path with {} for a name, body); every route of the API must be here
REQUESTS: dict[str, list[tuple[str, str, Any]]] = {
    "usage/<slug:slug>": [("post", "/usage/{}", record())],
    "api/usage-events/": [("get", "/api/usage-events/", None)],
    "api/usage-events/<slug>/": [("get", "/api/usage-events/{}/", None)],
    "api/metrics/": [("get", "/api/metrics/", None)],
    "api/metrics/<code>/": [("get", "/api/metrics/{}/", None)],
    "api/metrics/<code>/activate/": [("post", "/api/metrics/{}/activate/", None)],
    "api/metrics/<code>/quantities/": [
        ("get", "/api/metrics/{}/quantities/?" + JUNE, None),
        ("get", "/api/metrics/{}/quantities/?" + JUNE + "&customer_id=cus_theirs", None),
    ],
}


def routes(patterns: Any = None, prefix: str = "") -> Iterator[str]:
    """Every route under the API's paths, written plainly."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            plain = route.replace("^", "").replace("$", "").replace("\\Z", "").replace("/?", "/")
            for name in ("slug", "code"):
                plain = plain.replace(f"(?P<{name}>[A-Za-z0-9_-]+)", f"<{name}>")
            if plain.startswith(("api/", "usage/")):
                yield plain


def facts() -> list[Any]:
    return [list(model.objects.order_by("pk").values()) for model in FACTS]


@pytest.fixture
def mine(organisation: Organisation) -> dict[str, str]:
    """The headers of an organisation that has nothing but a key with every scope."""
    _, secret = issue_api_key(organisation, "mine", list(Scope))
    return {"organisation": str(organisation.key), "x-api-key": secret}


@pytest.fixture
def theirs(organisation: Organisation) -> dict[str, str]:
    """The headers of another organisation, which has a usage event, a record and two metrics, all named `theirs…`."""
    other = Organisation.objects.create(name="Theirs")
    usage_event = create_usage_event(other, name="Theirs", slug="theirs", schema=COMPUTE_SCHEMA)
    active_metric(usage_event, code="theirs", aggregation="sum", property="cpu_usage_hours")
    save_metric(Metric(organisation=other, usage_event=usage_event, code="theirs2", name="D", aggregation="count"))
    take_in(usage_event, record("cus_theirs", id="a"))
    _, secret = issue_api_key(other, "theirs", list(Scope))
    return {"organisation": str(other.key), "x-api-key": secret}


def send(client: Client, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    if method == "get":
        return client.get(path, headers=headers)
    return client.post(path, body or "", content_type="application/json", headers=headers)


def test_every_route_of_the_api_is_tried_here() -> None:
    assert sorted(set(routes())) == sorted(REQUESTS)


def test_nothing_of_another_organisation_is_there(client: Client, mine: dict[str, str], theirs: dict[str, str]) -> None:
    before = facts()

    for requests in REQUESTS.values():
        for method, path, body in requests:
            if "{}" not in path:
                assert send(client, method, path, body, mine).json()["results"] == []
                assert send(client, method, path, body, theirs).json()["results"] != []
                continue
            for name in ("theirs", "theirs2"):
                answer = send(client, method, path.format(name), body, mine)
                nowhere = send(client, method, path.format("nowhere"), body, mine)
                assert (answer.status_code, nowhere.status_code) == (404, 404), path
                assert answer.content.replace(name.encode(), b"") == nowhere.content.replace(b"nowhere", b"")

    assert facts() == before


def test_a_key_opens_only_its_own_organisation(client: Client, mine: dict[str, str], theirs: dict[str, str]) -> None:
    before = facts()
    crossed = [{**mine, "x-api-key": theirs["x-api-key"]}, {**theirs, "x-api-key": mine["x-api-key"]}]
    answers = set()

    for headers in (*crossed, {}, {"organisation": theirs["organisation"]}, {"x-api-key": theirs["x-api-key"]}):
        for requests in REQUESTS.values():
            for method, path, body in requests:
                for name in ("theirs", "nowhere"):
                    answer = send(client, method, path.format(name), body, headers)
                    answers.add((answer.status_code, answer.content))

    ((status, _),) = answers
    assert status == 401
    assert facts() == before


def test_definitions_cannot_reach_into_another_organisation(
    client: Client, mine: dict[str, str], theirs: dict[str, str]
) -> None:
    before = facts()
    metric = {"code": "m", "name": "M", "aggregation": "sum", "property": "cpu_usage_hours"}

    answers = [
        client.post("/api/metrics/", {**metric, "usage_event": name}, content_type="application/json", headers=mine)
        for name in ("theirs", "nowhere")
    ]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].content.replace(b"theirs", b"") == answers[1].content.replace(b"nowhere", b"")
    assert facts() == before


def test_the_same_names_mean_one_s_own(client: Client, mine: dict[str, str], theirs: dict[str, str]) -> None:
    own = Organisation.objects.get(key=mine["organisation"])
    usage_event = create_usage_event(own, name="Mine", slug="theirs", schema=COMPUTE_SCHEMA)
    active_metric(usage_event, code="theirs", aggregation="count")
    send(client, "post", "/usage/theirs", record("cus_theirs", id="a", hours=7), mine)

    for headers, name, quantity in ((mine, "Mine", "1"), (theirs, "Theirs", "1")):
        assert send(client, "get", "/api/usage-events/theirs/", None, headers).json()["name"] == name
        answer = send(client, "get", f"/api/metrics/theirs/quantities/?{JUNE}&customer_id=cus_theirs", None, headers)
        assert [row["quantity"] for row in answer.json()["quantities"]] == [quantity]
    assert Customer.objects.filter(external_id="cus_theirs").count() == 2
    send(client, "post", "/usage/theirs", record("cus_theirs", id="b", hours=5), theirs)
    answer = send(client, "get", f"/api/metrics/theirs/quantities/?{JUNE}", None, theirs)
    assert [row["quantity"] for row in answer.json()["quantities"]] == ["6"]
