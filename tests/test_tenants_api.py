"""Every address of the API as the wrong organisation: nothing of another one is seen, changed or told apart."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings

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
    RejectedRecord,
    SchemaVersion,
    Upload,
    UsageEvent,
    UsageRecord,
)
from usage.references import batch_reference
from usage.uploads import stage_upload

FACTS = (
    UsageEvent,
    SchemaVersion,
    UsageRecord,
    RecordRevision,
    IngestBatch,
    PendingBatch,
    ChangedWindow,
    RejectedRecord,
    Upload,
    Customer,
    Metric,
)

JUNE = "start=2025-06-01&end=2025-07-01"
PERIOD = {"start": "2025-06-01", "end": "2025-07-01"}
WHY = {"reason": "r", "revision": 1}
# Documents about the API, which anybody may read: they hold nothing of anybody.
OPEN = {"api/schema/", "api/docs/"}
# route -> (method, path with a placeholder for a name, body); every route of the API must be here
REQUESTS: dict[str, list[tuple[str, str, Any]]] = {
    "usage/<slug>": [("post", "/usage/{definition}", record())],
    "usage/<slug>/records": [("get", "/usage/{definition}/records?id=a", None)],
    "api/usage-events/": [("get", "/api/usage-events/", None)],
    "api/usage-events/<slug>/": [
        ("get", "/api/usage-events/{definition}/", None),
        ("patch", "/api/usage-events/{definition}/", {"name": "x"}),
    ],
    "api/usage-records/": [("get", "/api/usage-records/", None)],
    "api/usage-records/<pk>/": [
        ("get", "/api/usage-records/{record}/", None),
        ("patch", "/api/usage-records/{record}/", {"data": {}, **WHY}),
    ],
    "api/usage-records/<pk>/void/": [("post", "/api/usage-records/{record}/void/", WHY)],
    "api/usage-records/<pk>/restore/": [("post", "/api/usage-records/{record}/restore/", WHY)],
    "api/usage-records/<pk>/metrics/": [("get", "/api/usage-records/{record}/metrics/", None)],
    "api/usage-records/export/": [("get", "/api/usage-records/export/?format=ndjson", None)],
    "api/rejected-records/": [
        ("get", "/api/rejected-records/", None),
        ("get", "/api/rejected-records/?summary=code", None),
    ],
    "api/rejected-records/<pk>/": [("get", "/api/rejected-records/{rejected}/", None)],
    "api/rejected-records/<pk>/replay/": [("post", "/api/rejected-records/{rejected}/replay/", None)],
    "api/rejected-records/<pk>/discard/": [("post", "/api/rejected-records/{rejected}/discard/", {"reason": "r"})],
    "api/rejected-records/replay/": [],  # names in bodies: see below
    "api/rejected-records/discard/": [],
    "api/ingest-batches/<batch>/": [("get", "/api/ingest-batches/{batch}/", None)],
    "api/customers/": [("get", "/api/customers/", None)],
    "api/customers/<external_id>/": [
        ("get", "/api/customers/{customer}/", None),
        ("patch", "/api/customers/{customer}/", {"name": "x"}),
    ],
    "api/uploads/": [("get", "/api/uploads/", None)],
    "api/uploads/<pk>/": [
        ("get", "/api/uploads/{upload}/", None),
        ("patch", "/api/uploads/{upload}/", {"timezone": "UTC"}),
    ],
    "api/uploads/<pk>/start/": [("post", "/api/uploads/{upload}/start/", None)],
    "api/uploads/<pk>/errors/": [("get", "/api/uploads/{upload}/errors/", None)],
    "api/materialization/": [("get", "/api/materialization/", None)],
    "api/metrics/": [("get", "/api/metrics/", None)],
    "api/metrics/preview/": [],  # names in its body: see below
    "api/metrics/<code>/": [
        ("get", "/api/metrics/{definition}/", None),
        ("patch", "/api/metrics/{definition}/", {"name": "x"}),
        ("patch", "/api/metrics/{definition}/?version=1", {"property": "cpu_usage_hours_per_month"}),
    ],
    "api/metrics/<code>/versions/": [("get", "/api/metrics/{definition}/versions/", None)],
    "api/metrics/<code>/activate/": [("post", "/api/metrics/{definition}/activate/", None)],
    "api/metrics/<code>/quantities/": [
        ("get", "/api/metrics/{definition}/quantities/?" + JUNE, None),
        ("get", "/api/metrics/{definition}/quantities/?" + JUNE + "&customer_id=cus_theirs", None),
        ("get", "/api/metrics/{definition}/quantities/?" + JUNE + "&group_by=region&filter.region=eu", None),
    ],
    "api/metrics/<code>/explain/": [
        ("get", "/api/metrics/{definition}/explain/?" + JUNE + "&customer_id=cus_theirs", None),
    ],
    "api/metrics/<code>/explain/records/": [
        ("get", "/api/metrics/{definition}/explain/records/?" + JUNE + "&customer_id=cus_theirs", None),
    ],
    "api/metrics/<code>/diff/": [("get", "/api/metrics/{definition}/diff/?" + JUNE, None)],
}


def routes(patterns: Any = None, prefix: str = "") -> Iterator[str]:
    """Every route under the API's paths, written plainly."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            plain = route.replace("^", "").replace("$", "").replace("\\Z", "").replace("<slug:", "<")
            plain = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"<\1>", plain).replace("/?", "/")
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
def theirs(organisation: Organisation, settings: Settings, tmp_path: Path) -> dict[str, str]:
    """The headers of another organisation, which has something of everything, named `theirs…` where it has a name."""
    settings.UPLOAD_DIR = tmp_path
    other = Organisation.objects.create(name="Theirs")
    usage_event = create_usage_event(other, name="Theirs", slug="theirs", schema=COMPUTE_SCHEMA)
    active_metric(usage_event, code="theirs", aggregation="sum", property="cpu_usage_hours")
    save_metric(Metric(organisation=other, usage_event=usage_event, code="theirs2", name="D", aggregation="count"))
    take_in(usage_event, record("cus_theirs", id="a"), record("cus_theirs", hours="five"))
    row = b"customer_id,timestamp\ncus_theirs,2025-06-17T14:03:12Z\n"
    stage_upload(usage_event, [row], file_name="f.csv", file_format="csv")
    _, secret = issue_api_key(other, "theirs", list(Scope))
    return {"organisation": str(other.key), "x-api-key": secret}


def names(kind: str) -> list[tuple[str, str]]:
    """Names of theirs, and for each one of the same form that is nobody's."""
    batch = IngestBatch.objects.get()
    found: dict[str, list[tuple[str, str]]] = {
        "definition": [("theirs", "nowhere"), ("theirs2", "nowhere")],
        "record": [(str(UsageRecord.objects.get().pk), "987654321")],
        "rejected": [(str(RejectedRecord.objects.get().pk), "987654321")],
        "batch": [(batch_reference(batch.pk, batch.received_at), batch_reference(987_654_321, batch.received_at))],
        "customer": [("cus_theirs", "nowhere")],
        "upload": [(str(Upload.objects.get().pk), "987654321")],
    }
    return found[kind]


def send(client: Client, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
    if method == "get":
        return client.get(path, headers=headers)
    act = client.patch if method == "patch" else client.post
    return act(path, body or "", content_type="application/json", headers=headers)


def listed(answer: Any) -> list[Any]:
    """What a list or an export tells."""
    assert answer.status_code == 200, answer.content
    if answer.streaming:
        return b"".join(answer.streaming_content).splitlines()
    return list(answer.json()["results"])


def test_every_route_of_the_api_is_tried_here() -> None:
    assert sorted(set(routes()) - OPEN) == sorted(REQUESTS)


def test_nothing_of_another_organisation_is_there(client: Client, mine: dict[str, str], theirs: dict[str, str]) -> None:
    before = facts()

    for requests in REQUESTS.values():
        for method, path, body in requests:
            kind = re.search(r"\{(\w+)\}", path)
            if kind is None:
                assert listed(send(client, method, path, body, mine)) == []
                assert listed(send(client, method, path, body, theirs)) != []
                continue
            for name, nobody_s in names(kind[1]):
                answer = send(client, method, path.format(**{kind[1]: name}), body, mine)
                nowhere = send(client, method, path.format(**{kind[1]: nobody_s}), body, mine)
                assert (answer.status_code, nowhere.status_code) == (404, 404), path
                assert answer.content.replace(name.encode(), b"") == nowhere.content.replace(nobody_s.encode(), b"")

    assert facts() == before


def test_a_key_opens_only_its_own_organisation(client: Client, mine: dict[str, str], theirs: dict[str, str]) -> None:
    before = facts()
    crossed = [{**mine, "x-api-key": theirs["x-api-key"]}, {**theirs, "x-api-key": mine["x-api-key"]}]
    answers = set()

    for headers in (*crossed, {}, {"organisation": theirs["organisation"]}, {"x-api-key": theirs["x-api-key"]}):
        for requests in REQUESTS.values():
            for method, path, body in requests:
                kind = re.search(r"\{(\w+)\}", path)
                for pair in names(kind[1]) if kind else [("", "")]:
                    for name in pair:
                        answer = send(client, method, re.sub(r"\{\w+\}", name, path), body, headers)
                        answers.add((answer.status_code, answer.content))

    ((status, _),) = answers
    assert status == 401
    assert facts() == before


def test_names_in_questions_and_bodies_lead_nowhere_else(
    client: Client, mine: dict[str, str], theirs: dict[str, str]
) -> None:
    before = facts()
    rejected = str(RejectedRecord.objects.get().pk)
    batch = names("batch")[0][0]
    empty = [f"/api/usage-records/?batch={batch}", f"/api/rejected-records/?batch={batch}&status=any"]
    empty += ["/api/usage-records/?customer_id=cus_theirs", "/api/usage-records/?record_id=a"]
    for path in empty:
        assert listed(send(client, "get", path, None, mine)) == []
        assert listed(send(client, "get", path, None, theirs)) != []

    questions: list[tuple[str, str, Any]] = [
        ("get", "/api/usage-records/?usage_event={}", None),
        ("get", "/api/usage-records/export/?format=csv&usage_event={}", None),
        ("get", "/api/rejected-records/?usage_event={}", None),
        ("post", "/api/rejected-records/replay/", {"ids": [rejected]}),
        ("post", "/api/rejected-records/discard/", {"ids": [rejected], "reason": "r"}),
    ]
    for method, path, body in questions:
        answers = [
            send(client, method, path.format(name), body and {**body, "usage_event": name}, mine)
            for name in ("theirs", "nowhere")
        ]
        assert [answer.status_code for answer in answers] == [400, 400], path
        assert answers[0].content.replace(b"theirs", b"") == answers[1].content.replace(b"nowhere", b"")
    create_usage_event(Organisation.objects.get(key=mine["organisation"]), name="M", slug="m", schema=COMPUTE_SCHEMA)
    before[0], before[1] = facts()[0], facts()[1]
    for path, more in (("replay", {}), ("discard", {"reason": "r"})):
        body = {"usage_event": "m", "ids": [rejected], **more}
        assert send(client, "post", f"/api/rejected-records/{path}/", body, mine).status_code == 404
    assert facts() == before


def refused_alike(client: Client, requests: list[tuple[str, str, Any]], names: list[str], headers: Any) -> None:
    """Send the same requests of several names: each is refused, in the same words but for the name."""
    assert len(requests) == len(names)
    told = set()
    for (method, path, body), name in zip(requests, names, strict=True):
        answer = send(client, method, path, body, headers)
        assert answer.status_code == 400, (path, body)
        told.add(answer.content.replace(name.encode(), b""))
    assert len(told) == 1, told


def test_definitions_cannot_reach_into_another_organisation(
    client: Client, mine: dict[str, str], theirs: dict[str, str]
) -> None:
    own = Organisation.objects.get(key=mine["organisation"])
    usage_event = create_usage_event(own, name="M", slug="mine", schema=COMPUTE_SCHEMA)
    save_metric(Metric(organisation=own, usage_event=usage_event, code="mine", name="M", aggregation="count"))
    before = facts()
    metric = {"code": "m", "name": "M", "aggregation": "sum", "property": "cpu_usage_hours"}
    preview, there = ("post", "/api/metrics/preview/"), ["theirs", "nowhere"]

    made: list[tuple[str, str, Any]] = [("post", "/api/metrics/", {**metric, "usage_event": name}) for name in there]
    moved: list[tuple[str, str, Any]] = [("patch", "/api/metrics/mine/", {"usage_event": name}) for name in there]
    previewed = [(*preview, {**PERIOD, "metric": {**metric, "usage_event": name}}) for name in there]
    for requests in (made, moved, previewed):
        refused_alike(client, requests, there, mine)
    customers = ["cus_theirs", "nobody"]
    own_metric = {**PERIOD, "metric": {**metric, "usage_event": "mine"}}
    refused_alike(client, [(*preview, {**own_metric, "customer_id": [name]}) for name in customers], customers, mine)

    assert facts() == before


def test_sql_reaches_nothing_of_another_organisation(
    client: Client, mine: dict[str, str], theirs: dict[str, str]
) -> None:
    before = facts()
    schema = f"organisation_{Organisation.objects.get(key=theirs['organisation']).pk}"

    for tables in (["theirs", "nowhere"], [f"{schema}.theirs", f"{schema}.nowhere"], [schema, "organisation_987654"]):
        texts = [f"SELECT customer_id, count(*) AS quantity FROM {table} GROUP BY 1" for table in tables]
        formulas = [{"sql": text, "window": "day"} for text in texts]
        made = [("post", "/api/metrics/", {"code": "m", "name": "M", **formula}) for formula in formulas]
        refused_alike(client, made, tables, mine)
        previewed = [("post", "/api/metrics/preview/", {**PERIOD, "metric": formula}) for formula in formulas]
        refused_alike(client, previewed, tables, mine)

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
