"""Authentication: two headers, one wording for every refusal, and no memory that outlives a key."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils.timezone import now

from customers import authentication
from customers.authentication import WORDING
from customers.keys import issue_api_key
from customers.models import ApiKey, Organisation, Scope
from tests.conftest import Post, record
from usage.models import IngestBatch, UsageEvent, UsageRecord

PROBLEM = {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": WORDING}


def get(client: Client, headers: dict[str, str], path: str = "/api/usage-events/") -> Any:
    return client.get(path, headers=headers)


NOT_ENOUGH: list[dict[str, str | None]] = [
    {"organisation": None},
    {"x-api-key": None},
    {"organisation": None, "x-api-key": None},
    {"organisation": ""},
    {"x-api-key": ""},
    {"organisation": str(uuid.UUID(int=0))},
    {"organisation": "Acme"},
    {"organisation": "1"},
    {"organisation": "é" * 32},
    {"organisation": "²" * 32},
    {"organisation": "0" * 10_000},
    {"organisation": "\x00" * 32},
    {"x-api-key": "tb_wrong"},
    {"x-api-key": "\xff\x00\x80"},
    {"x-api-key": "\udce9"},
    {"x-api-key": "x" * 10_000},
    {"x-api-key": "' OR 1=1 --"},
]


def test_every_refusal_has_one_wording(client: Client, compute: UsageEvent, headers: dict[str, str]) -> None:
    for change in NOT_ENOUGH:
        sent = {name: value for name, value in (headers | change).items() if value is not None}
        for answer in (
            get(client, sent),
            client.post("/usage/compute_hours", "{}", content_type="application/json", headers=sent),
        ):
            assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json"), change
            assert answer["WWW-Authenticate"] == "ApiKey"
            assert answer.json() == PROBLEM
    assert not IngestBatch.objects.exists()


def test_a_key_of_another_organisation_opens_nothing(client: Client, headers: dict[str, str]) -> None:
    other = Organisation.objects.create(name="Other")
    _, secret = issue_api_key(other, "k", list(Scope))

    assert get(client, {**headers, "x-api-key": secret}).json() == PROBLEM
    assert get(client, {**headers, "organisation": str(other.key)}).json() == PROBLEM
    assert get(client, {"organisation": str(other.key), "x-api-key": secret}).status_code == 200


def test_an_organisation_s_key_may_be_spelled_as_uuids_are(client: Client, headers: dict[str, str]) -> None:
    key = headers["organisation"]
    for spelling in (key.upper(), key.replace("-", ""), f"{{{key}}}"):
        assert get(client, {**headers, "organisation": spelling}).status_code == 200


@pytest.mark.parametrize("loss", [{"revoked_at": now()}, {"expires_at": now() - timedelta(seconds=1)}])
def test_a_key_that_ended_opens_nothing_even_where_it_is_remembered(
    client: Client, compute: UsageEvent, headers: dict[str, str], post: Post, loss: dict[str, Any]
) -> None:
    assert post("/usage/compute_hours", record(id="a")).status_code == 201
    assert len(authentication._known) == 1
    ApiKey.objects.update(**loss)

    for body in (record(id="b"), record(id="a"), "not JSON", "[]", [record(hours="x")], b"\xff"):
        answer = post("/usage/compute_hours", body)
        assert (answer.status_code, answer.json()) == (401, PROBLEM), body
        authentication._known.clear()
        ApiKey.objects.update(revoked_at=None, expires_at=None)
        assert post("/usage/compute_hours", record(id="a")).status_code == 200
        ApiKey.objects.update(**loss)
    assert post("/usage/nowhere", record()).json() == PROBLEM
    assert get(client, headers).json() == PROBLEM

    assert UsageRecord.objects.count() == 1


def test_a_key_that_will_expire_is_refused_from_that_moment(
    compute: UsageEvent, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = now() + timedelta(hours=1)
    ApiKey.objects.update(expires_at=end)
    assert post("/usage/compute_hours", record()).status_code == 201

    monkeypatch.setattr(authentication, "now", lambda: end)

    assert post("/usage/compute_hours", record()).json() == PROBLEM
    ApiKey.objects.update(expires_at=end + timedelta(hours=1))
    monkeypatch.undo()
    assert post("/usage/compute_hours", record()).status_code == 201


def test_a_scope_that_was_taken_away_is_gone_at_once_and_one_that_was_given_is_there_at_once(
    compute: UsageEvent, post: Post
) -> None:
    assert post("/usage/compute_hours", record()).status_code == 201
    ApiKey.objects.update(scopes=["read"])

    for _ in range(2):
        answer = post("/usage/compute_hours", record())
        assert answer.status_code == 403
        assert answer.json()["detail"] == "This needs a key with the scope 'ingest'."
    assert UsageRecord.objects.count() == 1

    ApiKey.objects.update(scopes=["ingest"])
    assert post("/usage/compute_hours", record()).status_code == 201


ADDRESSES = [
    ("get", "/api/usage-events/", "read"),
    ("get", "/api/usage-events/compute_hours/", "read"),
    ("post", "/api/usage-events/", "manage"),
    ("post", "/usage/compute_hours", "ingest"),
    ("get", "/api/metrics/", "read"),
    ("get", "/api/metrics/cpu_hours/", "read"),
    ("get", "/api/metrics/cpu_hours/quantities/", "read"),
    ("post", "/api/metrics/", "manage"),
    ("post", "/api/metrics/cpu_hours/activate/", "manage"),
]


def test_each_address_needs_its_scope(client: Client, organisation: Organisation) -> None:
    for method, path, scope in ADDRESSES:
        _, others = issue_api_key(organisation, "others", [other for other in Scope.values if other != scope])
        _, right = issue_api_key(organisation, "right", [scope])

        refused, passed = (
            getattr(client, method)(path, headers={"organisation": str(organisation.key), "x-api-key": secret})
            for secret in (others, right)
        )

        assert refused.status_code == 403, path
        assert refused.json() == {
            "type": "about:blank",
            "title": "Forbidden",
            "status": 403,
            "detail": f"This needs a key with the scope '{scope}'.",
        }
        assert passed.status_code not in (401, 403), path


def test_a_use_is_noted_once_a_minute(compute: UsageEvent, post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    before = now()
    post("/usage/compute_hours", record())
    first = ApiKey.objects.get().last_used_at
    post("/usage/compute_hours", record())

    assert first is not None
    assert first >= before
    assert ApiKey.objects.get().last_used_at == first

    key_id = ApiKey.objects.get().pk
    authentication._use_noted[key_id] -= 60
    post("/usage/compute_hours", record())
    assert ApiKey.objects.filter(last_used_at__gt=first).count() == 1


def test_a_refused_key_is_not_noted_as_used(
    client: Client, organisation: Organisation, headers: dict[str, str]
) -> None:
    ApiKey.objects.update(revoked_at=now())

    get(client, headers)

    assert ApiKey.objects.get().last_used_at is None


def test_memory_holds_no_secret_and_is_bounded(
    compute: UsageEvent, post: Post, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "REMEMBERED", 1)
    post("/usage/compute_hours", record())
    post("/usage/compute_hours", record(), organisation=headers["organisation"].upper())

    assert len(authentication._known) == 1
    assert headers["x-api-key"] not in repr(authentication._known)
