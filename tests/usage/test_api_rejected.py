"""/api/rejected-records/: the quarantine over HTTP."""

from typing import Any

import pytest
from django.test import Client

from tests.conftest import record, take_in
from usage.definitions import archive_usage_event, publish_schema
from usage.models import IngestBatch, RejectedRecord, UsageEvent, UsageRecord

LIST = "/api/rejected-records/"


@pytest.fixture
def refused(compute: UsageEvent) -> UsageEvent:
    """Three open entries: two of schema, of which one came twice, and one of timestamp."""
    take_in(compute, record(hours="5", id="a"), record(hours="6"), record(hours="6"))
    take_in(compute, record(timestamp="never", id="t"))
    return compute


def ids(**asked: Any) -> list[str]:
    return [str(pk) for pk in RejectedRecord.objects.filter(**asked).order_by("pk").values_list("pk", flat=True)]


def test_an_entry_tells_everything(client: Client, headers: dict[str, str], refused: UsageEvent) -> None:
    entry = RejectedRecord.objects.get(idempotency_key="a")
    answer = client.get(f"{LIST}{entry.pk}/", headers=headers)

    body = answer.json()
    assert len(body.pop("batch")) == 26
    assert body.pop("first_seen_at") == body.pop("last_seen_at")
    assert body == {
        "id": str(entry.pk),
        "record_id": "a",
        "usage_event": "compute_hours",
        "code": "schema",
        "pointer": "/data/cpu_usage_hours",
        "message": "'5' is not of type 'number'",
        "payload": entry.payload,
        "times": 1,
        "status": "open",
        "closed_at": None,
        "closed_by": "",
        "closing_reason": "",
        "closing_batch": None,
    }


@pytest.mark.parametrize(
    ("query", "codes"),
    [
        ("", ["timestamp", "schema", "schema"]),
        ("code=schema", ["schema", "schema"]),
        ("code=nothing", []),
        ("usage_event=compute_hours&record_id=t", ["timestamp"]),
        ("status=discarded", []),
        ("status=any", ["timestamp", "schema", "schema"]),
        ("batch={batch}", ["schema", "schema"]),
    ],
)
def test_filters(client: Client, headers: dict[str, str], refused: UsageEvent, query: str, codes: list[str]) -> None:
    first = client.get(f"{LIST}{ids()[0]}/", headers=headers).json()["batch"]
    answer = client.get(f"{LIST}?{query.format(batch=first)}", headers=headers)

    assert answer.status_code == 200, answer.content
    assert [entry["code"] for entry in answer.json()["results"]] == codes


def test_pages(client: Client, headers: dict[str, str], refused: UsageEvent) -> None:
    seen, link = [], f"{LIST}?page_size=2"
    while link:
        answer = client.get(link, headers=headers).json()
        seen.append([entry["id"] for entry in answer["results"]])
        link = answer["next"]
    newest = ids()[::-1]
    assert seen == [newest[:2], newest[2:]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("cause=schema", "cause"),
        ("status=closed", "status"),
        ("usage_event=nowhere", "usage_event"),
        ("batch=17", "batch"),
        ("summary=day", "summary"),
        ("code=%00", "code"),
        ("page_size=501", "page_size"),
    ],
)
def test_a_question_that_is_not_understood(
    client: Client, headers: dict[str, str], refused: UsageEvent, query: str, field: str
) -> None:
    answer = client.get(f"{LIST}?{query}", headers=headers)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_what_is_open_by_cause(client: Client, headers: dict[str, str], refused: UsageEvent) -> None:
    answer = client.get(f"{LIST}?summary=code", headers=headers)

    assert answer.json() == {
        "results": [
            {"usage_event": "compute_hours", "code": "schema", "entries": 2, "records": 3},
            {"usage_event": "compute_hours", "code": "timestamp", "entries": 1, "records": 1},
        ]
    }
    assert client.get(f"{LIST}?summary=code&code=timestamp", headers=headers).json()["results"][0]["entries"] == 1


def test_an_entry_is_mended_tried_and_replayed(
    client: Client, headers: dict[str, str], post: Any, refused: UsageEvent
) -> None:
    (entry,) = ids(code="timestamp")
    body = '{"record":{"customer_id":"c","timestamp":"2025-06-17T14:03:12Z","data":{"cpu_usage_hours":0.10},"id":"t"}'

    rehearsed = post(f"{LIST}{entry}/replay/", body + ',"dry_run":true}')
    assert (rehearsed.status_code, rehearsed.json()) == (
        200,
        {"entries": 1, "last": entry, "accepted": 1, "duplicates": 0, "refused": [], "batch": None, "dry_run": True},
    )
    assert not UsageRecord.objects.exists()

    replayed = post(f"{LIST}{entry}/replay/", body + "}").json()
    stored = UsageRecord.objects.get()
    assert (replayed["accepted"], stored.idempotency_key, str(stored.data["cpu_usage_hours"])) == (1, "t", "0.10")
    closed = client.get(f"{LIST}{entry}/", headers=headers).json()
    assert (closed["status"], closed["closed_by"], closed["closing_batch"]) == (
        "replayed",
        "API key test",
        replayed["batch"],
    )

    again = post(f"{LIST}{entry}/replay/", {})
    assert (again.status_code, again.json()["detail"]) == (
        409,
        "an open rejected record was expected, this one is replayed",
    )


def test_an_entry_that_is_still_bad_stays_open(post: Any, refused: UsageEvent) -> None:
    (entry,) = ids(code="timestamp")
    answer = post(f"{LIST}{entry}/replay/", "")

    assert answer.status_code == 200
    refusal = answer.json()["refused"][0]
    assert (refusal["rejected_record"], refusal["id"], refusal["code"], refusal["pointer"]) == (
        entry,
        "t",
        "timestamp",
        "/timestamp",
    )
    assert ids(status="open") == ids()


def test_many_are_replayed_by_code(post: Any, refused: UsageEvent) -> None:
    publish_schema(refused, {"type": "object"})
    schema = ids(code="schema")

    for body in ({"code": "schema"}, {"ids": schema}):
        dry = post(f"{LIST}replay/", {"usage_event": "compute_hours", "dry_run": True, **body}).json()
        assert (dry["entries"], dry["last"], dry["accepted"], dry["refused"]) == (2, schema[-1], 2, [])
    done = post(f"{LIST}replay/", {"usage_event": "compute_hours", "code": "schema"}).json()
    assert (done["entries"], done["accepted"]) == (2, 2)
    assert ids(status="open") == ids(code="timestamp")
    assert UsageRecord.objects.count() == 2
    nothing = post(f"{LIST}replay/", {"usage_event": "compute_hours", "code": "schema"}).json()
    assert (nothing["entries"], nothing["last"], nothing["batch"]) == (0, None, None)
    assert IngestBatch.objects.filter(source="replay").count() == 1


def test_discarding_one_and_many(client: Client, headers: dict[str, str], post: Any, refused: UsageEvent) -> None:
    (entry,) = ids(code="timestamp")
    assert post(f"{LIST}{entry}/discard/", {"reason": "test data"}).json() == {"entries": 1, "last": entry}
    assert client.get(f"{LIST}{entry}/", headers=headers).json()["closing_reason"] == "test data"

    first, second = ids(code="schema")
    body = {"usage_event": "compute_hours", "code": "schema", "reason": "a bug"}
    assert post(f"{LIST}discard/", {**body, "after": first}).json() == {"entries": 1, "last": second}
    assert ids(status="open") == [first]
    assert post(f"{LIST}discard/", body).json() == {"entries": 1, "last": first}


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("{entry}/discard/", {}, 400, "reason"),
        ("{entry}/discard/", {"reason": " "}, 400, "reason"),
        ("{entry}/discard/", {"reason": "r", "ids": []}, 400, "ids"),
        ("{entry}/replay/", {"record": []}, 400, "record"),
        ("{entry}/replay/", {"dry_run": "maybe"}, 400, "dry_run"),
        ("discard/", {"usage_event": "compute_hours", "code": "schema"}, 400, "reason"),
        ("replay/", {"usage_event": "compute_hours"}, 400, "ids"),
        ("replay/", {"usage_event": "compute_hours", "ids": ["1"], "code": "schema"}, 400, "ids"),
        ("replay/", {"usage_event": "compute_hours", "ids": []}, 400, "ids"),
        ("replay/", {"usage_event": "compute_hours", "ids": ["x"]}, 400, "ids.0"),
        ("replay/", {"usage_event": "nowhere", "code": "schema"}, 400, "usage_event"),
        ("replay/", {"usage_event": "compute_hours", "ids": ["999999"]}, 404, None),
        ("discard/", {"usage_event": "compute_hours", "ids": ["999999"], "reason": "r"}, 404, None),
        ("999999/replay/", {}, 404, None),
        ("999999/discard/", {"reason": "r"}, 404, None),
    ],
)
def test_what_is_refused_changes_nothing(
    post: Any, refused: UsageEvent, path: str, body: Any, status: int, field: str | None
) -> None:
    before = list(RejectedRecord.objects.order_by("pk").values())
    answer = post(LIST + path.format(entry=ids()[0]), body)

    assert answer.status_code == status, answer.content
    assert [error["field"] for error in answer.json().get("errors", [])] == ([field] if field else [])
    assert list(RejectedRecord.objects.order_by("pk").values()) == before


def test_an_archived_usage_event_takes_no_replay(post: Any, refused: UsageEvent) -> None:
    archive_usage_event(refused, archived=True)

    assert post(f"{LIST}{ids()[0]}/replay/", {}).status_code == 410
    assert ids(status="open") == ids()


def test_a_summary_takes_no_filter_that_it_would_ignore(client: Client, headers: dict[str, str]) -> None:
    for name, value in (("record_id", "a"), ("status", "any"), ("cursor", "1")):
        answer = client.get(f"/api/rejected-records/?summary=code&{name}={value}", headers=headers)
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == [name]
