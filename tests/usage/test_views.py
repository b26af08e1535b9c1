"""The HTTP edge of usage: every answer of the contract, and that a refusal leaves no trace."""

import gc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg.errors
import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils.timezone import now
from rest_framework.request import Request

from customers.exactjson import loads
from customers.keys import issue_api_key
from customers.models import ApiKey, Customer, Organisation, Scope
from tests.conftest import Post, beaten_to_it, record
from usage import sql, storage
from usage.bodies import Submission
from usage.definitions import create_usage_event, find_definition, publish_schema
from usage.models import IngestBatch, PendingBatch, RejectedRecord, SchemaVersion, UsageEvent, UsageRecord
from usage.references import parse_batch_reference
from usage.views.ingest import UsageIngestViewSet

URL = "/usage/compute_hours"


def stored() -> list[str | None]:
    return list(UsageRecord.objects.order_by("id").values_list("idempotency_key", flat=True))


def check_problem(answer: Any, status: int, title: str, detail: str) -> None:
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json() == {"type": "about:blank", "title": title, "status": status, "detail": detail}


@pytest.fixture
def nothing_stored(compute: UsageEvent) -> Callable[[], None]:
    """Call it after refusals: there is no record, no receipt and no customer."""

    def check() -> None:
        for model in (UsageRecord, IngestBatch, PendingBatch, Customer):
            assert not model.objects.exists()

    return check


# --- 200 201 207 409 422 ---------------------------------------------------------------------------------------------


def test_the_examples_of_the_readme_are_taken(compute: UsageEvent, post: Post) -> None:
    for body in (
        '{"customer_id":"cus_123","timestamp":"2025-06-17T14:03:12Z","data":{"cpu_usage_hours":5}}',
        '{"customer_id":"cus_123","timestamp":"2025-06-30T23:59:59Z","data":{"cpu_usage_hours_per_month":320}}',
    ):
        answer = post(URL, body)
        receipt = IngestBatch.objects.latest("id")
        assert (answer.status_code, answer["Content-Type"]) == (201, "application/json")
        batch = answer.json()["batch"]
        assert parse_batch_reference(batch)[0] == receipt.pk  # type: ignore[index]
        assert answer.json() == {
            "batch": batch,
            "accepted": 1,
            "duplicates": 0,
            "conflicts": 0,
            "rejected": 0,
            "errors": [],
        }
        assert (receipt.source, receipt.api_key_id, receipt.accepted) == ("api", ApiKey.objects.get().pk, 1)
    assert [item.data for item in UsageRecord.objects.order_by("id")] == [
        {"cpu_usage_hours": 5},
        {"cpu_usage_hours_per_month": 320},
    ]


GOOD, OTHER, BAD = record(id="a"), record(id="a", hours=2), record(id="c", hours="5")
CONFLICT = {"id": "a", "code": "conflict", "pointer": "/id", "message": "this id is known with other content"}
SCHEMA = {"id": "c", "code": "schema", "pointer": "/data/cpu_usage_hours", "message": "'5' is not of type 'number'"}


@pytest.mark.parametrize(
    ("body", "status", "counts", "errors"),
    [
        ([record(id="b")], 201, (1, 0, 0, 0), []),
        ([record(id="b"), GOOD], 201, (1, 1, 0, 0), []),
        (GOOD, 200, (0, 1, 0, 0), []),
        ([GOOD, GOOD], 200, (0, 2, 0, 0), []),
        ([record(id="b"), BAD], 207, (1, 0, 0, 1), [{"index": 1, **SCHEMA}]),
        ([GOOD, BAD], 207, (0, 1, 0, 1), [{"index": 1, **SCHEMA}]),
        ([OTHER, record(id="b")], 207, (1, 0, 1, 0), [{"index": 0, **CONFLICT}]),
        ([BAD, OTHER, record(id="b")], 207, (1, 0, 1, 1), [{"index": 0, **SCHEMA}, {"index": 1, **CONFLICT}]),
        (OTHER, 409, (0, 0, 1, 0), [{"index": 0, **CONFLICT}]),
        ([OTHER, OTHER], 409, (0, 0, 2, 0), [{"index": 0, **CONFLICT}, {"index": 1, **CONFLICT}]),
        (BAD, 422, (0, 0, 0, 1), [{"index": 0, **SCHEMA}]),
        ([OTHER, BAD], 422, (0, 0, 1, 1), [{"index": 0, **CONFLICT}, {"index": 1, **SCHEMA}]),
    ],
)
def test_the_status_says_what_became_of_the_records(
    compute: UsageEvent, post: Post, body: Any, status: int, counts: tuple[int, ...], errors: list[Any]
) -> None:
    assert post(URL, GOOD).status_code == 201

    answer = post(URL, body)

    assert answer.status_code == status
    told = answer.json()
    assert (told["accepted"], told["duplicates"], told["conflicts"], told["rejected"]) == counts
    entries = [error.pop("rejected_record") for error in told["errors"]]
    assert told["errors"] == errors
    assert set(entries) == {str(pk) for pk in RejectedRecord.objects.values_list("pk", flat=True)}
    assert stored() == ["a"] + ["b"] * counts[0]
    assert UsageRecord.objects.get(idempotency_key="a").data == {"cpu_usage_hours": 1}
    receipt = IngestBatch.objects.latest("id")
    assert (receipt.accepted, receipt.duplicates, receipt.conflicts, receipt.rejected) == counts


def test_at_most_100_errors_are_listed(compute: UsageEvent, post: Post) -> None:
    hundred = post(URL, [BAD | {"id": str(number)} for number in range(100)]).json()
    more = post(URL, [BAD | {"id": str(number)} for number in range(101)]).json()

    assert (len(hundred["errors"]), hundred["rejected"], "errors_truncated" in hundred) == (100, 100, False)
    assert (len(more["errors"]), more["rejected"], more["errors_truncated"]) == (100, 101, True)
    assert [error["index"] for error in more["errors"]] == list(range(100))


# --- the other refusals ----------------------------------------------------------------------------------------------


def test_400_for_a_body_that_cannot_be_read(
    client: Client, headers: dict[str, str], post: Post, nothing_stored: Callable[[], None]
) -> None:
    for body, detail in {
        " ": "JSON was expected: Input data was truncated",
        "[]": "at least one record was expected, got none",
        "null": 'a record (a JSON object), an array of records or {"records": […]} was expected',
        "{": "JSON was expected: Input data was truncated",
    }.items():
        check_problem(post(URL, body), 400, "Bad Request", detail)
    empty = client.generic("POST", URL, b"", CONTENT_TYPE="application/json", headers=headers)
    check_problem(empty, 400, "Bad Request", "JSON was expected: Input data was truncated")
    nothing_stored()


def test_403_for_a_key_that_may_not_post(
    client: Client, organisation: Organisation, post: Post, nothing_stored: Callable[[], None]
) -> None:
    _, secret = issue_api_key(organisation, "k", [Scope.READ, Scope.MANAGE])

    for body in (record(), "not JSON"):
        answer = post(URL, body, **{"x-api-key": secret})
        check_problem(answer, 403, "Forbidden", "This needs a key with the scope 'ingest'.")
    nothing_stored()


def test_404_for_a_slug_that_is_not_there(post: Post, nothing_stored: Callable[[], None]) -> None:
    for slug in ("Compute_hours", "compute_hours2", "s" * 10_000):
        check_problem(post(f"/usage/{slug}", record()), 404, "Not Found", "There is no such usage event.")
    for path in (
        "/usage/compute_hours/",
        "/usage/compute%20hours",
        "/usage/compute_hours%00",
        "/usage/..",
        "/usage/%ff",
    ):
        assert post(path, record()).status_code == 404
    nothing_stored()


def test_410_for_an_archived_usage_event_even_where_it_is_remembered_otherwise(compute: UsageEvent, post: Post) -> None:
    assert post(URL, GOOD).status_code == 201
    assert find_definition(compute.organisation_id, "compute_hours") is not None
    UsageEvent.objects.update(archived_at=now())

    for body in (record(id="b"), GOOD, BAD):
        check_problem(post(URL, body), 410, "Gone", "This usage event is archived; it takes no more records.")

    assert stored() == ["a"]
    assert IngestBatch.objects.count() == 1


def test_a_new_schema_holds_at_once_where_the_old_one_is_remembered(compute: UsageEvent, post: Post) -> None:
    assert post(URL, GOOD).status_code == 201
    schema = {"type": "object", "properties": {"gb": {"type": "number"}}, "additionalProperties": False}
    publish_schema(compute, schema, accept_violations=True)

    assert post(URL, record(id="b")).status_code == 422
    assert post(URL, record(id="b") | {"data": {"gb": 1}}).status_code == 201
    assert list(UsageRecord.objects.order_by("id").values_list("schema_version", flat=True)) == [1, 2]


def test_413_for_too_many_records_or_bytes(post: Post, settings: Any, nothing_stored: Callable[[], None]) -> None:
    settings.INGEST_MAX_RECORDS, settings.INGEST_MAX_BYTES = 3, 1_000

    answer = post(URL, [record(str(number)) for number in range(4)])
    check_problem(answer, 413, "Request Entity Too Large", "at most 3 records are taken in one request, got 4")
    for body in (" " * 1_001, "not JSON" * 200, record(more="x" * 1_000)):
        answer = post(URL, body)
        check_problem(answer, 413, "Request Entity Too Large", "a body of at most 1000 bytes is taken")
    nothing_stored()
    assert post(URL, [record(), record(), record()]).status_code == 201
    padded = "{}".ljust(1_000)
    assert post(URL, padded).status_code == 422


def test_415_for_another_type_or_an_encoding(
    client: Client, headers: dict[str, str], nothing_stored: Callable[[], None]
) -> None:
    for sent, shown in {
        "": "",
        "text/json": "text/json",
        "é": "é",
        "Application/XML; a=b": "application/xml",
        ";": "",
    }.items():
        answer = client.post(URL, "{}", content_type=sent, headers=headers)
        detail = f"Content-Type application/json or application/x-ndjson was expected, got '{shown}'."
        check_problem(answer, 415, "Unsupported Media Type", detail)
    for encoding in ("br", "deflate", "identity, identity", "x" * 1_000):
        answer = client.post(
            URL, "{}", content_type="application/json", headers={**headers, "Content-Encoding": encoding}
        )
        detail = f"Content-Encoding gzip or none was expected, got '{encoding[:60]}'."
        check_problem(answer, 415, "Unsupported Media Type", detail)
    nothing_stored()


def test_other_methods_are_405(client: Client, headers: dict[str, str], nothing_stored: Callable[[], None]) -> None:
    for method in ("get", "head", "put", "patch", "delete", "trace"):
        answer = getattr(client, method)(URL, headers=headers)
        assert answer.status_code == 405, method
        assert answer["Allow"] == "POST, OPTIONS"
    nothing_stored()


def test_503_when_the_database_is_not_there(
    client: Client, compute: UsageEvent, post: Post, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    post(URL, GOOD)
    connection.close()

    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "PORT", "1")
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        answers = [post(URL, record(id="b")), post(URL, "not JSON"), client.get("/api/usage-events/", headers=headers)]
    connection.close()

    for answer in answers:
        check_problem(answer, 503, "Service Unavailable", "The database is unreachable; please try again.")
        assert answer["Retry-After"] == "5"
    assert post(URL, record(id="b")).status_code == 201
    assert stored() == ["a", "b"]


PLACES = ["store_fresh", "open_batch", "insert_fresh", "copy_fresh", "insert_unknown", "compare_with_first"]


@pytest.mark.parametrize("place", PLACES)
def test_503_when_the_database_goes_away_in_the_middle_and_nothing_is_stored(
    compute: UsageEvent, post: Post, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    post(URL, GOOD)
    batch = [record(id=f"b{number}") for number in range(250 if place == "copy_fresh" else 2)]
    if place in ("insert_unknown", "compare_with_first"):
        batch.append(GOOD)
    statement = getattr(sql, place)

    def dying(*arguments: Any) -> Any:
        with pytest.raises((OperationalError, psycopg.errors.AdminShutdown)):
            connection.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return statement(*arguments)

    with monkeypatch.context() as dies:
        if place in ("open_batch", "insert_fresh"):
            dies.setattr(storage, "_store_at_once", lambda *_: None)
        if place == "insert_unknown":
            dies.setattr(storage, "_store_new", beaten_to_it)
        dies.setattr(sql, place, dying)
        answer = post(URL, batch)
    connection.close()

    check_problem(answer, 503, "Service Unavailable", "The database is unreachable; please try again.")
    assert stored() == ["a"]
    assert IngestBatch.objects.count() == PendingBatch.objects.count() == 1
    assert post(URL, batch).status_code == 201


# --- another organisation --------------------------------------------------------------------------------------------


def test_headers_of_another_organisation_are_401_and_its_slugs_404(
    client: Client, post: Post, headers: dict[str, str], nothing_stored: Callable[[], None]
) -> None:
    other = Organisation.objects.create(name="Other")
    create_usage_event(other, name="Theirs", slug="theirs", schema={"type": "object"})
    _, secret = issue_api_key(other, "k", list(Scope))

    assert post(URL, record(), organisation=str(other.key)).status_code == 401
    assert post(URL, record(), **{"x-api-key": secret}).status_code == 401
    mine, nowhere = post("/usage/theirs", record()), post("/usage/nowhere", record())
    assert (mine.status_code, mine.content) == (404, nowhere.content)
    theirs = post(URL, record(), organisation=str(other.key), **{"x-api-key": secret})
    assert (theirs.status_code, theirs.content) == (404, nowhere.content)
    nothing_stored()


def test_one_slug_in_two_organisations_is_two_streams(compute: UsageEvent, post: Post) -> None:
    other = Organisation.objects.create(name="Other")
    theirs = create_usage_event(other, name="Theirs", slug="compute_hours", schema={"type": "object"})
    _, secret = issue_api_key(other, "k", list(Scope))

    assert post(URL, record(id="a")).status_code == 201
    assert post(URL, record(id="a", hours=2), organisation=str(other.key), **{"x-api-key": secret}).status_code == 201

    by_stream = {item.usage_event_id: item for item in UsageRecord.objects.select_related("customer")}
    assert by_stream[compute.pk].data == {"cpu_usage_hours": 1}
    assert by_stream[theirs.pk].data == {"cpu_usage_hours": 2}
    assert by_stream[theirs.pk].customer.organisation_id == other.pk


# --- /api/usage-events/ ----------------------------------------------------------------------------------------------

DEFINITION = {
    "name": "Storage",
    "slug": "storage",
    "schema": {"type": "object", "properties": {"z": {}, "gb": {"minimum": Decimal("0.5")}}},
}
SHOWN = {
    **DEFINITION,
    "schema_version": 1,
    "unknown_customer": "create",
    "invalid_record": "quarantine",
    "max_age_seconds": None,
    "max_ahead_seconds": None,
    "archived": False,
}


def test_a_usage_event_is_created_read_and_listed(client: Client, headers: dict[str, str], post: Post) -> None:
    created = post("/api/usage-events/", DEFINITION)

    assert (created.status_code, loads(created.content)) == (201, SHOWN)
    assert b'"minimum":0.5' in created.content
    read = client.get("/api/usage-events/storage/", headers=headers)
    assert (read.status_code, loads(read.content)) == (200, SHOWN)
    assert list(read.json()["schema"]["properties"]) == ["z", "gb"]
    listed = client.get("/api/usage-events/", headers=headers)
    assert loads(listed.content) == {"next": None, "previous": None, "results": [SHOWN]}
    assert SchemaVersion.objects.count() == 1
    assert post("/usage/storage", record() | {"data": {"gb": 1}}).status_code == 201


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"slug": "storage"}, [("", "A usage event with this API slug endpoint exists already.")]),
        ({"slug": "a b"}, [("slug", "Use letters, digits, underscores and dashes only.")]),
        ({"slug": "s" * 101}, [("slug", "Ensure this field has no more than 100 characters.")]),
        ({"slug": ""}, [("slug", "This field may not be blank.")]),
        ({"slug": None}, [("slug", "This field may not be null.")]),
        ({"name": "a\0b"}, [("name", "Null characters are not allowed.")]),
        ({"name": {}}, [("name", "Not a valid string.")]),
        (
            {"schema": {"type": "number"}},
            [("schema", "at /type: \"object\" was expected, because data is an object, got 'number'")],
        ),
        ({"schema": "{}"}, [("schema", 'a JSON object was expected, such as {"type": "object"}, got \'{}\'')]),
        ({"schema": None}, [("schema", "This field may not be null.")]),
        (
            {"schema": {"type": "object", "$schema": 5}},
            [("schema", "at /$schema: https://json-schema.org/draft/2020-12/schema was expected, got 5")],
        ),
    ],
)
def test_a_usage_event_that_cannot_be_used_is_refused_at_the_field(
    compute: UsageEvent, post: Post, change: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    post("/api/usage-events/", DEFINITION)

    answer = post("/api/usage-events/", {**DEFINITION, "slug": "new", **change})

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert [(error["field"], error["message"]) for error in answer.json()["errors"]] == errors
    assert sorted(UsageEvent.objects.values_list("slug", flat=True)) == ["compute_hours", "storage"]


def test_what_is_missing_is_named(post: Post) -> None:
    answer = post("/api/usage-events/", {})

    assert [(error["field"], error["message"]) for error in answer.json()["errors"]] == [
        ("name", "This field is required."),
        ("slug", "This field is required."),
        ("schema", "This field is required."),
    ]


def test_a_request_leaves_nothing_behind_that_waits_for_the_collector(compute: UsageEvent, post: Post) -> None:
    """A body has megabytes, and the collector comes by rarely."""
    kinds = (Request, UsageIngestViewSet, Submission)

    def living() -> dict[int, Any]:
        # By its type: isinstance would ask a weak proxy whose object is gone, and other tests leave such.
        return {id(one): one for one in gc.get_objects() if issubclass(type(one), kinds)}

    post(URL, GOOD)
    gc.collect()
    before = living()  # the OpenAPI document keeps requests of its own
    gc.disable()
    try:
        for number in range(3):
            assert post(URL, record(id=f"n{number}")).status_code == 201
            assert post(URL, {"customer_id": 7}).status_code == 422
        assert living().keys() <= before.keys()
    finally:
        gc.enable()
