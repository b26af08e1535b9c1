"""/api/usage-records/: filters, pages that an index gives, corrections by a key."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils.timezone import now

from customers.keys import issue_api_key
from customers.models import Customer, CustomerAlias, Organisation
from tests.conftest import record, take_in
from usage.definitions import create_usage_event, publish_schema
from usage.models import ChangedWindow, IngestBatch, RecordRevision, UsageEvent, UsageRecord
from usage.record_filters import Place, RecordFilter, parse_place
from usage.record_queries import list_records
from usage.references import batch_reference

LIST = "/api/usage-records/"
JUNE = "timestamp_after=2025-06-01T00:00:00Z&timestamp_before=2025-07-01T00:00:00Z"

Get = Callable[..., Any]


@pytest.fixture
def get(client: Client, headers: dict[str, str]) -> Get:
    """get(query): the answer of the list, read exactly."""

    def get_list(query: str = "", path: str = LIST) -> Any:
        return client.get(path if path.startswith("http") else f"{path}?{query}", headers=headers)

    return get_list


@pytest.fixture
def patch(client: Client, headers: dict[str, str]) -> Callable[[str, Any], Any]:
    def patch_json(path: str, body: Any) -> Any:
        return client.patch(path, json.dumps(body), content_type="application/json", headers=headers)

    return patch_json


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [row["record_id"] for row in answer.json()["results"]]


@pytest.fixture
def stored(compute: UsageEvent) -> UsageRecord:
    take_in(compute, record(id="a", hours=Decimal("1.50")))
    return UsageRecord.objects.get()


def test_a_record_has_the_form_of_the_contract(get: Get, stored: UsageRecord) -> None:
    answer = get(path=f"{LIST}{stored.pk}/")

    assert answer.status_code == 200
    body = json.loads(answer.content, parse_float=Decimal)
    batch = body.pop("batch")
    assert len(batch) == 26
    received_at = body.pop("received_at")
    assert received_at == stored.received_at.isoformat().replace("+00:00", "Z")
    assert body == {
        "id": str(stored.pk),
        "record_id": "a",
        "usage_event": "compute_hours",
        "customer_id": "cus_1",
        "customer_archived": False,
        "timestamp": "2025-06-17T14:03:12Z",
        "data": {"cpu_usage_hours": Decimal("1.50")},
        "schema_version": 1,
        "revision": 1,
        "voided_at": None,
    }
    assert b'"cpu_usage_hours":1.50' in answer.content
    assert names(get(f"batch={batch}")) == ["a"]


def test_usage_of_an_archived_customer_says_so(get: Get, compute: UsageEvent) -> None:
    take_in(compute, record(id="a"))
    Customer.objects.update(archived_at=now())
    take_in(compute, record(id="b"))

    assert [row["customer_archived"] for row in get().json()["results"]] == [True, True]


@pytest.fixture
def several(compute: UsageEvent) -> dict[str, str]:
    """Records a to e of two usage events; returns the batches' names."""
    calls = create_usage_event(
        compute.organisation, name="Calls", slug="calls", schema={"type": "object", "properties": {"n": {}}}
    )
    first = take_in(compute, record("cus_1", "2025-06-01T00:00:00Z", 1, id="a"), record("cus_2", hours=2, id="b"))
    second = take_in(compute, record("cus_1", "2025-07-01T00:00:00Z", Decimal("1.0"), id="c"))
    third = take_in(
        calls,
        {"customer_id": "cus_1", "timestamp": "2025-06-05T00:00:00Z", "data": {"n": "5"}, "id": "d"},
        {"customer_id": "cus_2", "timestamp": "2025-06-06T00:00:00Z", "data": {"n": 5}, "id": "e"},
    )
    CustomerAlias.objects.create(
        organisation=compute.organisation, customer=Customer.objects.get(external_id="cus_2"), alias="second"
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('tallybook.act', 'test', false)")
        cursor.execute("UPDATE usage_usagerecord SET voided_at = now() WHERE idempotency_key = 'b'")
        cursor.execute("SELECT set_config('tallybook.act', '', false)")
    return {"first": first.batch or "", "second": second.batch or "", "third": third.batch or ""}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["c", "b", "e", "d", "a"]),
        ("usage_event=compute_hours", ["c", "b", "a"]),
        ("usage_event=calls", ["e", "d"]),
        ("customer_id=cus_1", ["c", "d", "a"]),
        ("customer_id=second", ["b", "e"]),
        ("customer_id=nobody", []),
        ("usage_event=compute_hours&customer_id=cus_1", ["c", "a"]),
        ("timestamp_after=2025-06-01T00:00:00Z&timestamp_before=2025-07-01T00:00:00Z", ["b", "e", "d", "a"]),
        ("timestamp_after=2025-06-01T00:00:00.000001Z", ["c", "b", "e", "d"]),
        ("record_id=d", ["d"]),
        ("record_id=none", []),
        ("batch={first}", ["b", "a"]),
        ("batch={third}&customer_id=cus_1", ["d"]),
        ("batch={first}&usage_event=calls", []),
        ("batch=" + batch_reference(999_999, datetime(2025, 6, 17, tzinfo=UTC)), []),
        ("voided=true", ["b"]),
        ("voided=false", ["c", "e", "d", "a"]),
        (f"usage_event=compute_hours&{JUNE}&data.cpu_usage_hours=1.00", ["a"]),
        (f"usage_event=compute_hours&{JUNE}&data.region=eu", []),
        (f"usage_event=calls&{JUNE}&data.n=5", ["e", "d"]),
        (f"usage_event=calls&{JUNE}&data.n=%225%22", []),
        (f"usage_event=calls&{JUNE}&data.m=5", []),
        ("received_after=2025-01-01T00:00:00Z&received_before=2100-01-01T00:00:00Z", ["e", "d", "c", "b", "a"]),
        ("received_before=2025-01-01T00:00:00Z", []),
        ("received_after=2025-01-01T00:00:00Z&customer_id=cus_1&usage_event=compute_hours", ["c", "a"]),
    ],
)
def test_filters(get: Get, several: dict[str, str], query: str, expected: list[str]) -> None:
    assert names(get(query.format(**several))) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("customer=cus_1", "customer"),
        ("usage_event=nowhere", "usage_event"),
        ("usage_event=compute_hours&usage_event=calls", "usage_event"),
        ("timestamp_after=yesterday", "timestamp_after"),
        ("timestamp_before=1750168992", "timestamp_before"),
        ("received_after=2025-06-17", "received_after"),
        ("batch=17", "batch"),
        ("voided=maybe", "voided"),
        ("page_size=0", "page_size"),
        ("page_size=501", "page_size"),
        ("page_size=ten", "page_size"),
        ("cursor=abc", "cursor"),
        ("cursor=n1-9999999999999999999", "cursor"),
        ("customer_id=%00", "customer_id"),
        ("record_id=", "record_id"),
        (f"{JUNE}&data.n=5", "data.n"),
        ("usage_event=calls&timestamp_after=2025-06-01T00:00:00Z&data.n=5", "data.n"),
        (f"usage_event=compute_hours&{JUNE}&data.cpu_usage_hours=five", "data.cpu_usage_hours"),
        (f"usage_event=compute_hours&{JUNE}&data.cpu_usage_hours=1e400", "data.cpu_usage_hours"),
        (f"usage_event=calls&{JUNE}&data.n=%00", "data.n"),
        (f"usage_event=calls&{JUNE}&data.n={'9' * 65}", "data.n"),
        (f"usage_event=calls&{JUNE}&data.n={'[' * 900 + ']' * 900}", "data.n"),
    ],
)
def test_a_question_that_is_not_understood_is_refused_by_name(
    get: Get, several: dict[str, str], query: str, field: str
) -> None:
    answer = get(query)

    assert answer.status_code == 400, answer.content
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("query", ["", "usage_event=compute_hours", "received_after=2025-01-01T00:00:00Z"])
def test_pages_lead_forth_and_back_without_a_gap(get: Get, compute: UsageEvent, query: str) -> None:
    other = create_usage_event(compute.organisation, name="Other", slug="other", schema={"type": "object"})
    for number in range(11):
        # Many records of one instant, stored by several batches.
        take_in(compute, record(timestamp="2025-06-17T14:03:12Z", id=f"{number:02}"))
    if not query:
        take_in(other, record(id="99"), record(timestamp="2025-06-18T00:00:00Z", id="98"))
    everything = names(get(query))
    assert len(everything) == (13 if not query else 11)

    pages, link = [], f"http://testserver{LIST}?{query}&page_size=3"
    back = None
    while link:
        answer = get(path=link)
        pages.append(names(answer))
        back, link = answer.json()["previous"], answer.json()["next"]
    assert [name for page in pages for name in page] == everything
    assert [len(page) for page in pages[:-1]] == [3] * (len(pages) - 1)

    returned = []
    while back:
        answer = get(path=back)
        returned.append(names(answer))
        assert answer.json()["next"] is not None
        back = answer.json()["previous"]
    assert returned[::-1] == pages[:-1]


def test_a_place_is_read_as_it_was_written() -> None:
    place = Place(now(), 17, backwards=True)

    assert parse_place(place.text()) == place
    with pytest.raises(ValueError, match="cursor"):
        parse_place("x1-1")


@pytest.fixture
def many(compute: UsageEvent) -> UsageEvent:
    """20,000 records of 50 customers in 20 batches, and statistics about them."""
    quiet = create_usage_event(compute.organisation, name="Quiet", slug="quiet", schema={"type": "object"})
    take_in(quiet, record(id="quiet"))
    for batch in range(20):
        rows = (
            record(f"cus_{number % 50}", f"2025-06-{1 + batch:02}T{number % 24:02}:00:00Z", 1, id=f"{batch}-{number}")
            for number in range(1_000)
        )
        take_in(compute, *rows)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE usage_usagerecord, usage_ingestbatch, customers_customer, usage_usageevent")
    return compute


def plan_of(asked: RecordFilter, place: Place | None) -> str:
    """The plan that the database chose for a page, as it really ran."""
    plans: list[str] = []

    def explain(execute: Any, statement: Any, params: Any, many: bool, context: Any) -> Any:
        execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement.as_string(None), params, many, context)
        plans.append("\n".join(line for (line,) in context["cursor"].fetchall()))
        return execute(statement, params, many, context)

    with connection.execute_wrapper(explain):
        assert list_records(asked, place=place, page_size=100).rows
    (plan,) = plans
    return plan


def test_pages_walk_an_index(many: UsageEvent) -> None:
    organisation_id = many.organisation_id
    customer = Customer.objects.get(external_id="cus_7")
    middle = UsageRecord.objects.get(idempotency_key="10-500")
    by_time, by_arrival = Place(middle.timestamp, middle.pk), Place(middle.received_at, middle.pk)
    batch = IngestBatch.objects.order_by("pk")[5]
    questions: list[tuple[RecordFilter, Place, str]] = [
        (RecordFilter(organisation_id), by_time, "usage_record_by_time"),
        (RecordFilter(organisation_id, usage_event_id=many.pk), by_time, "usage_record_by_time"),
        (RecordFilter(organisation_id, many.pk, customer.pk), by_time, "usage_record_by_customer"),
        (RecordFilter(organisation_id, many.pk, received_after=batch.received_at), by_arrival, "ingest_batch_by_time"),
        (RecordFilter(organisation_id, many.pk, batch_id=batch.pk), by_time, "usage_record_by_batch"),
    ]
    for asked, place, index in questions:
        for beyond in (None, place):
            plan = plan_of(asked, beyond)
            assert index in plan, plan
            assert "Seq Scan on usage_usagerecord" not in plan, plan


# --- corrections ------------------------------------------------------------------------------------------------------


def test_a_key_corrects_a_record(patch: Any, stored: UsageRecord) -> None:
    change = {"customer_id": "cus_2", "timestamp": "2025-06-17 15:00:00", "data": {"cpu_usage_hours": 2}}
    answer = patch(f"{LIST}{stored.pk}/", {**change, "reason": "wrong meter", "revision": 1})

    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert (body["customer_id"], body["timestamp"], body["data"], body["revision"]) == (
        "cus_2",
        "2025-06-17T15:00:00Z",
        {"cpu_usage_hours": 2},
        2,
    )
    revision = RecordRevision.objects.get()
    assert (revision.actor_id, revision.actor_name, revision.reason) == (None, "API key test", "wrong meter")
    assert revision.data == {"cpu_usage_hours": Decimal("1.50")}


def test_exact_decimals_are_corrected_exactly(client: Client, headers: dict[str, str], stored: UsageRecord) -> None:
    body = '{"data":{"cpu_usage_hours":12345678901234567890.1230},"reason":"r","revision":1}'
    answer = client.patch(f"{LIST}{stored.pk}/", body, content_type="application/json", headers=headers)

    assert answer.status_code == 200
    assert b'"cpu_usage_hours":12345678901234567890.1230' in answer.content


def test_void_and_restore(post: Any, stored: UsageRecord) -> None:
    voided = post(f"{LIST}{stored.pk}/void/", {"reason": "test data", "revision": 1})
    assert (voided.status_code, voided.json()["revision"]) == (200, 2)
    assert voided.json()["voided_at"].endswith("Z")

    restored = post(f"{LIST}{stored.pk}/restore/", {"reason": "it was real", "revision": 2})
    assert (restored.status_code, restored.json()["revision"], restored.json()["voided_at"]) == (200, 3, None)
    actions = RecordRevision.objects.order_by("revision").values_list("action", "actor_name", "reason")
    assert list(actions) == [("void", "API key test", "test data"), ("restore", "API key test", "it was real")]


@pytest.mark.parametrize(
    ("address", "body", "status", "field"),
    [
        ("", {"data": {"cpu_usage_hours": 2}, "reason": "r", "revision": 2}, 409, None),
        ("void/", {"reason": "r", "revision": 7}, 409, None),
        ("restore/", {"reason": "r", "revision": 2}, 409, None),
        ("restore/", {"reason": "r", "revision": 1}, 400, ""),
        ("", {"data": {"cpu_usage_hours": "2"}, "reason": "r", "revision": 1}, 400, "data"),
        ("", {"data": [], "reason": "r", "revision": 1}, 400, "data"),
        ("", {"data": None, "reason": "r", "revision": 1}, 400, "data"),
        ("", {"customer_id": "", "reason": "r", "revision": 1}, 400, "customer_id"),
        ("", {"customer_id": "5", "reason": "r"}, 400, "revision"),
        ("", {"timestamp": "never", "reason": "r", "revision": 1}, 400, "timestamp"),
        ("", {"timestamp": 17, "reason": "r", "revision": 1}, 400, "timestamp"),
        ("", {"reason": "r", "revision": 1}, 400, ""),
        ("", {"data": {"cpu_usage_hours": 2}, "revision": 1}, 400, "reason"),
        ("", {"data": {"cpu_usage_hours": 2}, "reason": " ", "revision": 1}, 400, "reason"),
        ("", {"data": {"cpu_usage_hours": 2}, "reason": "r", "revision": "one"}, 400, "revision"),
        ("", {"datum": {}, "reason": "r", "revision": 1}, 400, "datum"),
        ("void/", {"reason": "r"}, 400, "revision"),
        ("void/", {"reason": "r", "revision": 1, "data": {}}, 400, "data"),
        ("void/", [], 400, ""),
    ],
)
def test_what_is_refused_leaves_no_trace(
    post: Any, patch: Any, stored: UsageRecord, address: str, body: Any, status: int, field: str | None
) -> None:
    path = f"{LIST}{stored.pk}/{address}"
    answer = post(path, body) if address else patch(path, body)

    assert answer.status_code == status, answer.content
    assert [error["field"] for error in answer.json().get("errors", [])] == ([] if field is None else [field])
    assert UsageRecord.objects.values().get() == UsageRecord.objects.filter(pk=stored.pk).values().get()
    assert UsageRecord.objects.get().revision == 1
    assert not RecordRevision.objects.exists()
    assert not ChangedWindow.objects.exists()
    assert Customer.objects.count() == 1


def test_a_void_record_is_not_corrected_nor_voided_again(post: Any, patch: Any, stored: UsageRecord) -> None:
    post(f"{LIST}{stored.pk}/void/", {"reason": "r", "revision": 1})

    again = post(f"{LIST}{stored.pk}/void/", {"reason": "r", "revision": 2})
    corrected = patch(f"{LIST}{stored.pk}/", {"data": {}, "reason": "r", "revision": 2})

    assert [(answer.status_code, answer.json()["detail"]) for answer in (again, corrected)] == [
        (400, "nothing to void: the record is void already"),
        (400, "the record is void; restore it before correcting it"),
    ]
    assert RecordRevision.objects.count() == 1


def test_a_correction_is_held_to_the_schema_in_force(patch: Any, stored: UsageRecord) -> None:
    publish_schema(stored.usage_event, {"type": "object", "required": ["gb"]}, accept_violations=True)
    answer = patch(f"{LIST}{stored.pk}/", {"data": {"cpu_usage_hours": 1}, "reason": "r", "revision": 1})

    assert (answer.status_code, answer.json()["detail"]) == (400, "data: /data: 'gb' is required, but is missing")


def test_scopes(client: Client, organisation: Organisation, stored: UsageRecord) -> None:
    def keyed(scope: str) -> dict[str, str]:
        return {"organisation": str(organisation.key), "x-api-key": issue_api_key(organisation, scope, [scope])[1]}

    body = json.dumps({"reason": "r", "revision": 1})
    path = f"{LIST}{stored.pk}/"
    for scope, reads, changes in (("read", 200, 403), ("manage", 403, 200), ("ingest", 403, 403)):
        assert client.get(path, headers=keyed(scope)).status_code == reads
        assert client.get(LIST, headers=keyed(scope)).status_code == reads
        assert client.get(f"{LIST}export/?format=ndjson", headers=keyed(scope)).status_code == reads
        answer = client.post(f"{path}void/", body, content_type="application/json", headers=keyed(scope))
        assert answer.status_code == changes
    assert UsageRecord.objects.get().voided_at is not None


def test_an_unknown_id_is_not_found(get: Get, stored: UsageRecord) -> None:
    for path in (
        f"{LIST}{stored.pk + 1000}/",
        f"{LIST}999999999999999999/",
        f"{LIST}9999999999999999999/",
        f"{LIST}x/",
    ):
        assert get(path=path).status_code == 404


@pytest.mark.parametrize("change", [{"customer_id": 5}, {"reason": 5}])
def test_a_number_is_no_text(
    client: Client, headers: dict[str, str], compute: UsageEvent, change: dict[str, Any]
) -> None:
    take_in(compute, record())
    body = {"reason": "typo", "revision": 1, "customer_id": "cus_1"} | change
    path = f"/api/usage-records/{UsageRecord.objects.get().pk}/"
    answer = client.patch(path, json.dumps(body), content_type="application/json", headers=headers)

    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": next(iter(change)), "message": "a string was expected, got 5"}]
    assert UsageRecord.objects.get().revision == 1
