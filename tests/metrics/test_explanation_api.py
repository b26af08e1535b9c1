"""GET …/explain/, …/explain/records/ and /api/usage-records/<id>/metrics/: what a client can count again itself."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from customers.exactjson import loads
from customers.keys import issue_api_key
from customers.models import Organisation, Scope
from metrics.definitions import activate_metric, save_metric
from metrics.materialization import fold
from metrics.models import Metric
from metrics.openapi_explanations import EXPLANATION, OF_RECORD, RECORDS
from tests.conftest import active_metric, take_in
from tests.metrics.comparing import is_quantity
from tests.metrics.recounting import all_records, recounted
from usage.corrections import Actor, correct_record, void_records
from usage.definitions import create_usage_event
from usage.models import UsageEvent, UsageRecord

ACTOR = Actor(None, "someone")
SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": ["number", "null"]}, "region": {"type": ["string", "null"]}, "tier": {}},
}
NOT_US = {"all": [{"property": "region", "operator": "ne", "value": "us"}]}
JUNE = {"customer_id": "a", "start": "2025-06-01", "end": "2025-07-01"}

DEFINITIONS: list[dict[str, Any]] = [
    {"aggregation": "count"},
    {"aggregation": "sum", "property": "amount"},
    {"aggregation": "sum", "expression": "amount * amount / 3 - 1"},
    {"aggregation": "avg", "property": "amount", "rounding_mode": "half_even", "rounding_digits": 3},
    {"aggregation": "min", "property": "amount"},
    {"aggregation": "max", "property": "amount"},
    {"aggregation": "latest", "property": "amount"},
    {"aggregation": "unique_count", "property": "tier"},
    {"aggregation": "percentile", "property": "amount", "percentile": Decimal(70)},
    {"aggregation": "weighted_sum", "property": "amount"},
]


@pytest.fixture
def stream(organisation: Organisation) -> UsageEvent:
    return create_usage_event(organisation, name="Stream", slug="stream", schema=SCHEMA)


def at(moment: str, customer: str = "a", **data: Any) -> dict[str, Any]:
    return {"customer_id": customer, "timestamp": f"2025-{moment}:00Z", "data": data}


def pending_folded_and_changed(stream: UsageEvent) -> None:
    """Records of which some are folded, some pending, some corrected or void since the last fold, and some late."""
    take_in(
        stream,
        at("05-30T00:20", amount=4, region="eu"),
        at("06-01T00:20", amount=5, region="eu", tier=1),
        at("06-01T00:20", amount=6, region="eu", tier=Decimal("1.0")),
        at("06-03T10:00", amount=Decimal("2.5"), region="us", tier="1"),
        at("06-03T10:30", amount=3, region="eu", tier="1"),
        at("06-05T00:00", amount=None, region="eu", tier=True),
        at("06-21T00:00", amount=10, region=None, tier=[1]),
        at("06-21T00:00", "b", amount=1),
    )
    fold(stream.pk)
    first, _, third, fourth = UsageRecord.objects.filter(customer__external_id="a").order_by("id")[1:5]
    void_records(stream.pk, [first.pk], reason="r", actor=ACTOR)
    moved = datetime(2025, 6, 21, 0, 30, tzinfo=UTC)
    correct_record(fourth.pk, timestamp=moved, revision=1, reason="r", actor=ACTOR)
    assert third.data["region"] == "us"
    take_in(stream, at("06-21T00:10", amount=7, region="eu"), at("06-03T11:10", amount=8, region="eu", tier=0))


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
def test_a_client_can_count_again(
    client: Client, headers: dict[str, str], stream: UsageEvent, definition: dict[str, Any]
) -> None:
    active_metric(stream, code="m", filters=NOT_US, group_by=["region"], **definition)
    pending_folded_and_changed(stream)

    def ask(url: str) -> Any:
        return client.get(url, headers=headers)

    for more in ({}, {"start": "2025-06-03T10:15:00Z", "end": "2025-06-21T00:20:00Z"}, {"filter.region": "eu"}):
        asked = {**JUNE, **more}
        answer = client.get("/api/metrics/m/explain/", asked, headers=headers)
        assert answer.status_code == 200, answer.content
        told = loads(answer.content)
        (row,) = loads(client.get("/api/metrics/m/quantities/", asked, headers=headers).content)["quantities"]
        assert told["quantity"] == told["recount"] == row["quantity"]
        records = all_records(ask, told["records_url"] + "&page_size=3")
        assert is_quantity(Decimal(told["quantity"]), recounted(told, records))
        assert len(records) == told["records"]["counted"]
        assert sum(part["record_count"] for part in told["windows"]) == row["record_count"]
        everything = all_records(ask, told["records_url"] + "&include=skipped")
        reasons = [record["reason"] for record in everything]
        assert {name: reasons.count(name) for name in ("filtered_out", "no_value", "voided")} == told["records"][
            "skipped"
        ]
        assert [record for record in everything if record["counted"]] == records


def test_the_whole_answer(client: Client, headers: dict[str, str], stream: UsageEvent) -> None:
    active_metric(stream, code="m", aggregation="sum", property="amount", filters=NOT_US, group_by=["region"])
    pending_folded_and_changed(stream)

    answer = client.get("/api/metrics/m/explain/", {**JUNE, "timezone": "Europe/Berlin"}, headers=headers)

    told = loads(answer.content)
    as_of, url = told.pop("as_of"), told.pop("records_url")
    pending = [part.pop("batch") for part in told["windows"] if part["from"] == "pending"]
    assert told == {
        "metric": "m",
        "version": 1,
        "definition": loads(client.get("/api/metrics/m/", headers=headers).content),
        "customer_id": "a",
        "start": "2025-05-31T22:00:00Z",
        "end": "2025-06-30T22:00:00Z",
        "timezone": "Europe/Berlin",
        "quantity": "34",
        "recount": "34",
        "records": {"counted": 5, "skipped": {"filtered_out": 1, "no_value": 1, "voided": 1}},
        "windows": [
            part("06-01T00", "06-01T01", "changed", 1),
            part("06-03T10", "06-03T11", "changed", 0),
            part("06-03T11", "06-03T12", "pending", 1),
            part("06-05T00", "06-05T01", "aggregates", 1),
            part("06-21T00", "06-21T01", "changed", 3),
        ],
        "carried_in": [],
        "truncated": False,
        "sql": None,
    }
    assert len(pending) == 1
    assert client.get(f"/api/ingest-batches/{pending[0]}/", headers=headers).json()["materialized"] is False
    assert urlsplit(url).path == "/api/metrics/m/explain/records/"
    asked = {"customer_id": ["a"], "start": ["2025-05-31T22:00:00Z"], "end": ["2025-06-30T22:00:00Z"]}
    assert parse_qs(urlsplit(url).query) == asked

    page = loads(client.get(url + "&page_size=1&include=skipped", headers=headers).content)
    assert page.pop("as_of") > as_of
    assert "cursor=n" in page.pop("next")
    (shown,) = page.pop("results")
    assert page == {"previous": None, "metric": "m", "version": 1}
    assert set(shown) == set(RECORDS["properties"]["results"]["items"]["required"])
    assert {name: shown[name] for name in ("timestamp", "value", "data", "dimensions", "counted", "reason")} == {
        "timestamp": "2025-06-01T00:20:00Z",
        "value": "5",
        "data": {"amount": 5, "region": "eu", "tier": 1},
        "dimensions": {"region": "eu"},
        "counted": False,
        "reason": "voided",
    }


def part(start: str, end: str, source: str, count: int) -> dict[str, Any]:
    return {"start": f"2025-{start}:00:00Z", "end": f"2025-{end}:00:00Z", "from": source, "record_count": count}


def test_one_record_and_its_metrics(client: Client, headers: dict[str, str], stream: UsageEvent) -> None:
    active_metric(stream, code="amounts", aggregation="sum", property="amount", group_by=["region", "tier"])
    active_metric(stream, code="eu", aggregation="count", filters={"all": [{**NOT_US["all"][0], "operator": "eq"}]})
    take_in(stream, at("06-01T00:20", amount=Decimal("5.50"), region="eu"))
    stored = UsageRecord.objects.get()

    answer = client.get(f"/api/usage-records/{stored.pk}/metrics/", headers=headers)

    told = loads(answer.content)
    assert set(told) == set(OF_RECORD["required"])
    assert told["id"] == str(stored.pk)
    same = {
        "version": 1,
        "status": "active",
        "window": {"start": "2025-06-01T00:00:00Z", "end": "2025-06-01T01:00:00Z"},
        "from": "pending",
    }
    dimensions = {"region": "eu", "tier": None}
    eu = {"counted": False, "reason": "filtered_out", "condition": "region is “us”", "value": "1", "dimensions": {}}
    amounts = {"counted": True, "reason": None, "condition": None, "value": "5.50", "dimensions": dimensions}
    assert told["metrics"] == [{"metric": "amounts", **same, **amounts}, {"metric": "eu", **same, **eu}]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"customer_id": None}, "customer_id"),
        ({"customer_id": ["a", "b"]}, "customer_id"),
        ({"customer_id": "nobody"}, "customer_id"),
        ({"customer_id": ""}, "customer_id"),
        ({"start": None}, "start"),
        ({"end": "yesterday"}, "end"),
        ({"end": "2025-06-01"}, "end"),
        ({"timezone": "Mars"}, "timezone"),
        ({"window": "day"}, "window"),
        ({"group_by": "region"}, "group_by"),
        ({"version": "1"}, "version"),
        ({"filter.tier": "1"}, "filter.tier"),
    ],
)
def test_what_cannot_be_explained_names_its_parameter(
    client: Client, headers: dict[str, str], stream: UsageEvent, query: dict[str, Any], field: str
) -> None:
    active_metric(stream, code="m", aggregation="count", group_by=["region"])
    take_in(stream, at("06-01T00:20"), at("06-01T00:20", "b"))
    asked = {name: value for name, value in {**JUNE, **query}.items() if value is not None}

    for path in ("explain", "explain/records"):
        answer = client.get(f"/api/metrics/m/{path}/", asked, headers=headers)
        assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (400, [field])


@pytest.mark.parametrize(
    "query",
    [{"include": "all"}, {"page_size": "0"}, {"page_size": "501"}, {"cursor": "x"}, {"cursor": "n1-" + "9" * 40}],
)
def test_a_page_that_is_none_names_its_parameter(
    client: Client, headers: dict[str, str], stream: UsageEvent, query: dict[str, str]
) -> None:
    active_metric(stream, code="m", aggregation="count")
    take_in(stream, at("06-01T00:20"))

    answer = client.get("/api/metrics/m/explain/records/", {**JUNE, **query}, headers=headers)

    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (400, list(query))


def test_metrics_that_are_not_there_or_not_active(client: Client, headers: dict[str, str], stream: UsageEvent) -> None:
    draft = Metric(organisation=stream.organisation, usage_event=stream, code="d", name="D", aggregation="count")
    save_metric(draft)
    for path in ("explain", "explain/records"):
        assert client.get(f"/api/metrics/nothing/{path}/", JUNE, headers=headers).status_code == 404
        answer = client.get(f"/api/metrics/d/{path}/", JUNE, headers=headers)
        assert (answer.status_code, "'draft'" in answer.json()["detail"]) == (409, True)


def test_explanations_need_the_scope_read(client: Client, stream: UsageEvent) -> None:
    active_metric(stream, code="m", aggregation="count")
    take_in(stream, at("06-01T00:20"))
    pk = UsageRecord.objects.get().pk
    for scope, status in ((Scope.READ, 200), (Scope.INGEST, 403), (Scope.MANAGE, 403)):
        _, secret = issue_api_key(stream.organisation, str(scope), [scope])
        key = {"organisation": str(stream.organisation.key), "x-api-key": secret}
        for path in ("metrics/m/explain", "metrics/m/explain/records", f"usage-records/{pk}/metrics"):
            assert client.get(f"/api/{path}/", JUNE if "m/" in path else {}, headers=key).status_code == status


def test_nothing_of_another_organisation_is_explained(client: Client, headers: dict[str, str]) -> None:
    other = Organisation.objects.create(name="Other", timezone="UTC")
    theirs = create_usage_event(other, name="Stream", slug="stream", schema=SCHEMA)
    active_metric(theirs, code="m", aggregation="count")
    take_in(theirs, at("06-01T00:20"))
    pk = UsageRecord.objects.get().pk
    own = create_usage_event(
        Organisation.objects.get(key=headers["organisation"]), name="Stream", slug="stream", schema=SCHEMA
    )
    active_metric(own, code="own", aggregation="count")

    for path in ("metrics/m/explain", "metrics/m/explain/records", f"usage-records/{pk}/metrics"):
        assert client.get(f"/api/{path}/", JUNE if "m/" in path else {}, headers=headers).status_code == 404
    for path in ("explain", "explain/records"):
        answer = client.get(f"/api/metrics/own/{path}/", JUNE, headers=headers)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "customer_id")
    assert client.get(f"/api/usage-records/{'9' * 18}/metrics/", headers=headers).status_code == 404


def test_the_document_tells_every_member(client: Client, headers: dict[str, str], stream: UsageEvent) -> None:
    active_metric(stream, code="m", aggregation="weighted_sum", property="amount")
    pending_folded_and_changed(stream)

    told = client.get("/api/metrics/m/explain/", JUNE, headers=headers).json()

    assert list(told) == EXPLANATION["required"]
    assert [row["value"] for row in told["carried_in"]] == ["4"]
    assert list(told["carried_in"][0]) == EXPLANATION["properties"]["carried_in"]["items"]["required"]


SUM_BY_REGION = """SELECT customer_id, region, sum(amount) AS quantity FROM stream
                   WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} GROUP BY 1, 2"""


def test_sql_is_explained_by_what_was_run(client: Client, headers: dict[str, str], stream: UsageEvent) -> None:
    metric = Metric(organisation=stream.organisation, code="s", name="S", sql=SUM_BY_REGION, sql_window="month")
    save_metric(metric)
    activate_metric(metric.pk)
    pending_folded_and_changed(stream)
    asked = {**JUNE, "end": "2025-07-15", "filter.region": "eu"}

    answer = client.get("/api/metrics/s/explain/", asked, headers=headers)

    assert answer.status_code == 200, answer.content
    told = loads(answer.content)
    (row,) = loads(client.get("/api/metrics/s/quantities/", asked, headers=headers).content)["quantities"]
    assert told["quantity"] == row["quantity"] == "24"
    months = [("2025-06-01T00:00:00Z", "2025-07-01T00:00:00Z"), ("2025-07-01T00:00:00Z", "2025-07-15T00:00:00Z")]
    bound = [{"start_date": start, "end_date": end} for start, end in months]
    assert told["sql"] == {"text": SUM_BY_REGION, "tables": ["stream"], "bound": bound}
    assert told["windows"] == [
        {"start": start, "end": end, "from": "sql", "record_count": None} for start, end in months
    ]
    nothing = ("recount", "records", "records_url")
    assert [told[name] for name in nothing] == [None, None, None]
    assert told["definition"]["sql"] == SUM_BY_REGION
    records = client.get("/api/metrics/s/explain/records/", JUNE, headers=headers)
    assert (records.status_code, "which records it counts is not known" in records.json()["detail"]) == (404, True)
    tier = client.get("/api/metrics/s/explain/", {**JUNE, "filter.tier": "1"}, headers=headers)
    assert (tier.status_code, tier.json()["errors"][0]["field"]) == (400, "filter.tier")


def test_sql_that_fails_says_so(client: Client, headers: dict[str, str], stream: UsageEvent) -> None:
    failing = SUM_BY_REGION.replace("sum(amount)", "sum(1 / amount)")
    metric = Metric(organisation=stream.organisation, code="s", name="S", sql=failing, sql_window="month")
    save_metric(metric)
    activate_metric(metric.pk)
    take_in(stream, at("06-01T00:20", amount=0))

    answer = client.get("/api/metrics/s/explain/", JUNE, headers=headers)

    assert (answer.status_code, "division by zero" in answer.json()["detail"]) == (422, True)
