"""POST /usage/<slug>, line by line of its contract: bodies, identity, strictness, policies, quarantine, look-ups."""

import gzip
import io
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils.timezone import now
from pytest_django import Settings

from customers.exactjson import dumps
from customers.keys import issue_api_key
from customers.models import Customer, CustomerAlias, Organisation, Scope
from tests.conftest import Post, record, take_in
from usage.corrections import Actor, correct_record, void_records
from usage.definitions import change_usage_event, create_usage_event
from usage.models import IngestBatch, QuarantineDay, RejectedRecord, UsageEvent, UsageRecord

URL = "/usage/compute_hours"
JSON, NDJSON = "application/json", "application/x-ndjson"
Send = Callable[..., Any]


@pytest.fixture
def send(client: Client, compute: UsageEvent, headers: dict[str, str]) -> Send:
    """send(bytes, media type, **headers): POST to compute_hours."""

    def posted(body: bytes, media_type: str = JSON, **more: str) -> Any:
        return client.generic("POST", URL, body, media_type, headers={**headers, **more})

    return posted


def counts(answer: Any) -> tuple[int, int, int, int, int]:
    told = answer.json()
    return answer.status_code, told["accepted"], told["duplicates"], told["conflicts"], told["rejected"]


def keys() -> list[str | None]:
    return list(UsageRecord.objects.order_by("id").values_list("idempotency_key", flat=True))


def detail(answer: Any) -> tuple[int, str]:
    assert answer["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_every_shape_of_body_stores_the_same(send: Send) -> None:
    one, two = dumps(record(id="a")).encode(), dumps(record(id="b")).encode()

    assert counts(send(b"[" + one + b"," + two + b"]")) == (201, 2, 0, 0, 0)
    assert counts(send(b'{"records":[' + one + b"," + two + b"]}")) == (200, 0, 2, 0, 0)
    assert counts(send(one + b"\r\n\r\n \n" + two, NDJSON)) == (200, 0, 2, 0, 0)
    assert counts(send(gzip.compress(one + b"\n") + gzip.compress(two), NDJSON, **{"Content-Encoding": "GZIP"})) == (
        (200, 0, 2, 0, 0)
    )
    assert counts(send(one, "application/json; charset=utf-8")) == (200, 0, 1, 0, 0)
    assert keys() == ["a", "b"]


def test_a_broken_line_is_refused_alone_and_kept(send: Send) -> None:
    answer = send(b'{"customer_id": oops}\n' + dumps(record(id="b")).encode() + b"\n[]", NDJSON)

    assert counts(answer) == (207, 1, 0, 0, 2)
    assert [(error["index"], error["code"], error["id"]) for error in answer.json()["errors"]] == [
        (0, "malformed", None),
        (2, "malformed", None),
    ]
    kept = RejectedRecord.objects.order_by("id").values_list("payload", flat=True)
    assert sorted(kept) == ["[]", '{"customer_id": oops}']


def test_gzip_that_is_none_is_400_and_a_bomb_is_413(send: Send, settings: Settings) -> None:
    settings.INGEST_MAX_BYTES = 1_000
    packed = {"Content-Encoding": "gzip"}

    for body in (b"{}", gzip.compress(b"{}")[:-2], gzip.compress(b"{}") + b"x"):
        status, told = detail(send(body, **packed))
        assert (status, told.startswith("gzip was expected, as Content-Encoding says: ")) == (400, True)
    bomb = gzip.compress(b" " * 1_000_000)
    assert detail(send(bomb, **packed)) == (413, "a body that unpacks to at most 1000 bytes is taken")
    assert send(gzip.compress(dumps(record()).encode().ljust(1_000)), **packed).status_code == 201
    assert send(gzip.compress(dumps(record()).encode().ljust(1_001)), **packed).status_code == 413


def test_a_body_that_ends_before_its_content_length_is_400(client: Client, send: Send, headers: dict[str, str]) -> None:
    body = dumps(record()).encode()
    for content, packed in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        stream: Any = {"wsgi.input": io.BytesIO(content)}
        answer = client.generic(
            "POST",
            URL,
            content,
            JSON,
            headers={**headers, **packed},
            CONTENT_LENGTH=str(len(content) + 1),
            **stream,
        )
        assert detail(answer) == (400, "The body ended before its time.")
    assert keys() == []


def test_a_chunked_body_is_read_to_its_end_or_refused_with_411(
    client: Client, send: Send, headers: dict[str, str]
) -> None:
    def chunked(content: bytes, *, terminated: bool) -> Any:
        served: Any = {"wsgi.input": io.BytesIO(content), "wsgi.input_terminated": terminated}
        served |= {"CONTENT_LENGTH": "", "CONTENT_TYPE": JSON}
        return client.generic("POST", URL, headers={**headers, "Transfer-Encoding": "chunked"}, **served)

    body = dumps([record(id="a"), record(id="b")]).encode()
    assert counts(chunked(body, terminated=True)) == (201, 2, 0, 0, 0)
    assert detail(chunked(body, terminated=False)) == (
        411,
        "Content-Length was expected: this server does not tell where a chunked body ends.",
    )


# --- identity --------------------------------------------------------------------------------------------------------


def test_an_idempotency_key_is_the_identity_of_records_without_one(send: Send) -> None:
    alone, batch = dumps(record()).encode(), dumps([record(), record(id="own"), record()]).encode()

    assert send(alone, **{"Idempotency-Key": "one"}).status_code == 201
    assert send(alone, **{"Idempotency-Key": "one"}).status_code == 200
    assert counts(send(batch, **{"Idempotency-Key": "k" * 200})) == (201, 3, 0, 0, 0)
    assert counts(send(batch, **{"Idempotency-Key": "k" * 200})) == (200, 0, 3, 0, 0)
    assert counts(send(dumps(record(hours=2)).encode(), **{"Idempotency-Key": "one"})) == (409, 0, 0, 1, 0)
    assert keys() == ["one", "k" * 200 + ":0", "own", "k" * 200 + ":2"]


@pytest.mark.parametrize("key", ["", "k" * 201, "a\tb", "a\x7f", "\xa0"])
def test_an_idempotency_key_that_is_none_is_400(send: Send, key: str) -> None:
    status, told = detail(send(dumps(record()).encode(), **{"Idempotency-Key": key}))

    assert (status, told) == (400, f"Idempotency-Key: 1 to 200 printable characters were expected, got {len(key)}.")
    assert keys() == []


def test_of_fields_that_appear_twice_the_last_wins_in_validation_and_in_storage(send: Send) -> None:
    twice = (
        b'{"id":"x","id":"a","customer_id":5,"customer_id":"first","customer_id":"last","data":{"cpu_usage_hours":"no"},'
        b'"timestamp":"never","timestamp":"2025-06-17T14:03:12Z","data":{"cpu_usage_hours":"no","cpu_usage_hours":2}}'
    )
    wrong = twice.replace(b'"cpu_usage_hours":"no","cpu_usage_hours":2', b'"cpu_usage_hours":2,"cpu_usage_hours":"no"')

    assert counts(send(b'{"records":[1],"records":[' + twice + b"]}")) == (201, 1, 0, 0, 0)
    stored = UsageRecord.objects.select_related("customer").get()
    assert (stored.customer.external_id, stored.idempotency_key, stored.data) == ("last", "a", {"cpu_usage_hours": 2})
    assert counts(send(wrong)) == (422, 0, 0, 0, 1)


def test_duplicates_and_conflicts_are_told_by_what_came_first(send: Send) -> None:
    actor = Actor(None, "someone")
    send(dumps([record(id="a"), record(id="b")]).encode())
    corrected, voided = UsageRecord.objects.order_by("id")
    correct_record(corrected.pk, data={"cpu_usage_hours": 7}, revision=1, reason="r", actor=actor)
    void_records(voided.usage_event_id, [voided.pk], reason="r", actor=actor)

    assert counts(send(dumps([record(id="a"), record(id="b")]).encode())) == (200, 0, 2, 0, 0)
    assert counts(send(dumps([record(id="a", hours=7), record(id="b")]).encode())) == (207, 0, 1, 1, 0)
    assert counts(send(dumps([record(id="a", hours=7)]).encode())) == (409, 0, 0, 1, 0)


def test_a_record_under_an_alias_is_the_same_record(compute: UsageEvent, send: Send) -> None:
    customer = Customer.objects.create(organisation=compute.organisation, external_id="cus_1")
    CustomerAlias.objects.create(organisation=compute.organisation, customer=customer, alias="old_1")

    batch = [record("old_1", id="a"), record("cus_1", id="a"), record("old_1", id="b"), record("new", id="b")]
    assert counts(send(dumps(batch).encode())) == (207, 2, 1, 0, 1)
    assert counts(send(dumps(record("cus_1", id="a")).encode())) == (200, 0, 1, 0, 0)
    assert counts(send(dumps(record("other", id="a")).encode())) == (409, 0, 0, 1, 0)
    assert set(UsageRecord.objects.values_list("customer_id", flat=True)) == {customer.pk}


def test_unknown_customers_of_one_name_are_one_in_a_request(send: Send) -> None:
    batch = [record("new", id="a"), record("new", id="a"), record("newer", id="a")]

    assert counts(send(dumps(batch).encode())) == (207, 1, 1, 0, 1)
    assert list(Customer.objects.values_list("external_id", "confirmed")) == [("new", False)]


@pytest.mark.parametrize("number", ["0.1", "12345678901234567890.123456789", "1e-7", "-0", str(2**70), "1E+3", "0.10"])
def test_numbers_arrive_with_every_digit(send: Send, number: str) -> None:
    body = f'{{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z","data":{{"cpu_usage_hours":{number}}}}}'

    assert send(body.encode()).status_code == 201
    assert Decimal(UsageRecord.objects.get().data["cpu_usage_hours"]) == Decimal(number)


# --- strict and lenient ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("handling=strict", "handling=strict"),
        ('respond-async, Handling = "Strict"; x=1', "handling=strict"),
        ("handling=lenient", "handling=lenient"),
        ("handling=lenient, handling=strict", "handling=lenient"),
        ("handling=other", None),
        ("strict", None),
        ("", None),
    ],
)
def test_what_prefer_asks_is_applied_and_told(send: Send, prefer: str, applied: str | None) -> None:
    answer = send(dumps([record(id="a"), record(hours="5")]).encode(), Prefer=prefer)

    strict = applied == "handling=strict"
    assert answer.headers.get("Preference-Applied") == applied
    assert counts(answer) == ((422, 0, 0, 0, 1) if strict else (207, 1, 0, 0, 1))
    assert (answer.json()["batch"] is None) is strict
    assert keys() == ([] if strict else ["a"])
    assert RejectedRecord.objects.count() == (0 if strict else 1)


@pytest.mark.parametrize(
    ("bad", "counted"),
    [
        (record("new", hours="5"), (422, 0, 0, 0, 1)),
        (record("new", id="dup", hours=3), (422, 0, 0, 0, 1)),
        (record("new", id="known"), (422, 0, 0, 1, 0)),
        ("no record", (422, 0, 0, 0, 1)),
    ],
)
def test_a_refused_strict_request_leaves_no_trace(
    compute: UsageEvent, send: Send, bad: Any, counted: tuple[int, ...]
) -> None:
    take_in(compute, record(id="known"))
    batch = [record("newer", id="dup"), record(), bad]

    answer = send(dumps(batch).encode(), Prefer="handling=strict")

    told = answer.json()
    assert (answer.status_code, told["accepted"], told["conflicts"], told["rejected"]) == (
        (counted[0], counted[1], counted[3], counted[4])
    )
    assert told["errors"][0]["rejected_record"] is None
    assert (keys(), IngestBatch.objects.count(), RejectedRecord.objects.count()) == (["known"], 1, 0)
    assert list(Customer.objects.values_list("external_id", flat=True)) == ["cus_1"]


def test_a_good_strict_request_is_stored(send: Send) -> None:
    batch = dumps([record("new", id="a"), record("newer", id="b")]).encode()

    assert counts(send(batch, Prefer="handling=strict")) == (201, 2, 0, 0, 0)
    assert counts(send(batch, Prefer="handling=strict")) == (200, 0, 2, 0, 0)
    assert Customer.objects.count() == 2


def test_a_strict_refusal_goes_by_the_definition_of_now(compute: UsageEvent, send: Send) -> None:
    assert send(dumps(record()).encode(), Prefer="handling=strict").status_code == 201
    change_usage_event(compute, {}, schema={"type": "object"})

    assert send(dumps(record(hours="5")).encode(), Prefer="handling=strict").status_code == 201


# --- policies --------------------------------------------------------------------------------------------------------


def test_too_old_and_too_new_are_refused_by_policy(compute: UsageEvent, send: Send) -> None:
    change_usage_event(compute, {"max_age": timedelta(hours=2), "max_ahead": timedelta(hours=1)})
    moments = [now() + timedelta(hours=hours) for hours in (-3, -1, 0.5, 2)]

    answer = send(dumps([record(timestamp=moment.isoformat()) for moment in moments]).encode())

    assert [(error["index"], error["code"], error["pointer"]) for error in answer.json()["errors"]] == [
        (0, "too_old", "/timestamp"),
        (3, "too_new", "/timestamp"),
    ]
    change_usage_event(compute, {"max_age": None, "max_ahead": None})
    assert counts(send(dumps(record(timestamp="2000-01-01T00:00:00Z")).encode())) == (201, 1, 0, 0, 0)


def test_unknown_customers_are_kept_or_refused_by_policy(compute: UsageEvent, send: Send) -> None:
    change_usage_event(compute, {"unknown_customer": "quarantine"})

    answer = send(dumps(record("new", id="a")).encode())

    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["code"], error["pointer"]) == (422, "unknown_customer", "/customer_id")
    assert error["message"] == "a known customer was expected, got 'new'; this usage event creates none"
    assert (RejectedRecord.objects.get().code, Customer.objects.count()) == ("unknown_customer", 0)
    change_usage_event(compute, {"unknown_customer": "create", "invalid_record": "refuse"})
    refused = send(dumps(record("new", hours="5")).encode()).json()
    assert (refused["errors"][0]["rejected_record"], "not_quarantined" in refused) == (None, False)
    assert RejectedRecord.objects.count() == 1


# --- the quarantine --------------------------------------------------------------------------------------------------


def test_a_request_whose_every_record_is_bad_leaves_its_quarantine(send: Send) -> None:
    bad = [record(hours=str(number), id=f"r{number}") for number in range(10_000)]
    body = "\n".join(map(dumps, bad)).encode()

    first, again = send(body, NDJSON), send(body, NDJSON)

    assert counts(first) == counts(again) == (422, 0, 0, 0, 10_000)
    assert (len(first.json()["errors"]), first.json()["errors_truncated"]) == (100, True)
    assert RejectedRecord.objects.count() == 10_000
    assert set(RejectedRecord.objects.values_list("times", flat=True)) == {2}
    assert [error["rejected_record"] for error in first.json()["errors"]] == [
        error["rejected_record"] for error in again.json()["errors"]
    ]
    assert list(IngestBatch.objects.values_list("accepted", "rejected")) == [(0, 10_000)] * 2
    assert QuarantineDay.objects.get().kept == 10_000


def test_a_full_quarantine_is_told(send: Send, settings: Settings) -> None:
    settings.QUARANTINE_DAILY_CAP = 2

    answer = send(dumps([record(hours=str(number)) for number in range(3)]).encode())

    told = answer.json()
    assert (told["rejected"], told["not_quarantined"]) == (3, 1)
    assert sorted(error["rejected_record"] is None for error in told["errors"]) == [False, False, True]


@pytest.mark.parametrize("text", ['{"id":"a\\u0000b"}', '{"customer_id":"c","timestamp":"t","data":{},"\\u0000":1}'])
def test_null_characters_are_kept_as_they_were_written(send: Send, text: str) -> None:
    assert send(text.encode()).status_code == 422

    entry = RejectedRecord.objects.get()
    assert (entry.payload, entry.idempotency_key) == (text, None)


# --- GET /usage/<slug>/records ---------------------------------------------------------------------------------------


def test_a_sender_that_lost_an_answer_can_ask(client: Client, send: Send, headers: dict[str, str]) -> None:
    batch = send(dumps([record(id="a"), record(id="é b")]).encode()).json()["batch"]

    answer = client.get(f"{URL}/records?id=é%20b&id=x&id=a&id=a&id=&id=%00", headers=headers)

    yes, no = {"stored": True, "batch": batch}, {"stored": False, "batch": None}
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "results": [{"id": "é b", **yes}, {"id": "x", **no}, {"id": "a", **yes}, {"id": "a", **yes}]
            + [{"id": "", **no}, {"id": "\0", **no}]
        },
    )
    assert client.get(f"{URL}/records", {"id": ["x"] * 1_000}, headers=headers).status_code == 200
    assert detail(client.get(f"{URL}/records", headers=headers)) == (400, "id: 1 to 1000 ids were expected, got 0")
    too_many = client.get(f"{URL}/records", {"id": ["x"] * 1_001}, headers=headers)
    assert detail(too_many) == (400, "At most 1000 parameters were expected, got more.")


def test_only_a_sender_of_the_organisation_may_ask(client: Client, send: Send, headers: dict[str, str]) -> None:
    send(dumps(record(id="a")).encode())
    other = Organisation.objects.create(name="Other")
    _, theirs = issue_api_key(other, "k", list(Scope))
    organisation = Organisation.objects.get(name="Acme")
    _, reader = issue_api_key(organisation, "k", [Scope.READ, Scope.MANAGE])
    create_usage_event(other, name="T", slug="theirs", schema={"type": "object"})

    def status(slug: str, **more: str) -> int:
        return client.get(f"/usage/{slug}/records?id=a", headers={**headers, **more}).status_code

    assert status("compute_hours") == 200
    assert status("compute_hours", **{"x-api-key": "wrong"}) == 401
    assert status("compute_hours", **{"x-api-key": reader}) == 403
    assert status("compute_hours", organisation=str(other.key), **{"x-api-key": theirs}) == 404
    assert status("theirs") == status("nowhere") == 404


def test_the_answer_is_the_one_of_the_contract(send: Send) -> None:
    answer = send(dumps([record(id="a"), record(hours="5", id="evt-9")]).encode())

    assert json.loads(answer.content) == {
        "batch": answer.json()["batch"],
        "accepted": 1,
        "duplicates": 0,
        "conflicts": 0,
        "rejected": 1,
        "errors": [
            {
                "index": 1,
                "id": "evt-9",
                "code": "schema",
                "pointer": "/data/cpu_usage_hours",
                "message": "'5' is not of type 'number'",
                "rejected_record": str(RejectedRecord.objects.get().pk),
            }
        ],
    }


def test_a_revoked_key_is_401_whatever_it_sends(send: Send, post: Post) -> None:
    assert send(dumps(record(id="a")).encode()).status_code == 201
    Organisation.objects.get().api_keys.update(revoked_at=now())

    for body, more in ((b"no JSON", {}), (dumps(record(hours="5")).encode(), {"Prefer": "handling=strict"})):
        assert send(body, **more).status_code == 401
