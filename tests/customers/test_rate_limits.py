"""Rate limits: counted together by all processes, told in headers, open when Redis is away."""

import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as configured
from django.test import Client
from django.utils.timezone import now
from pytest_django import Settings
from redis import Redis

from customers import rate_limits
from customers.keys import issue_api_key
from customers.models import ApiKey, Organisation, Scope
from customers.rate_limits import Allowance, OverLimit, take_request
from tests.conftest import Post, record
from tests.threads import run_together
from usage.models import UsageEvent, UsageRecord

URL = "/usage/compute_hours"


@pytest.fixture(autouse=True)
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """An empty Redis, and a process that has never asked it."""
    monkeypatch.setattr(rate_limits, "_counter", rate_limits._Counter())
    client = Redis.from_url(configured.REDIS_URL)
    for key in client.scan_iter("tallybook:requests:*"):
        client.delete(key)
    yield client
    client.close()
    if rate_limits._counter.redis is not None:
        rate_limits._counter.redis.close()


def test_without_the_setting_nothing_is_counted(redis: Redis, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    assert take_request(1) is None
    assert rate_limits._counter.redis is None


def test_each_key_has_a_window_of_its_own(redis: Redis, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2

    assert [take_request(1), take_request(1)] == [Allowance(2, 1, 60), Allowance(2, 0, 60)]
    for _ in range(2):
        with pytest.raises(OverLimit) as over:
            take_request(1)
    assert take_request(2) == Allowance(2, 1, 60)
    assert over.value.allowance == Allowance(2, 0, 60)
    assert 59_000 < redis.pttl("tallybook:requests:1") <= 60_000

    redis.pexpire("tallybook:requests:1", 1_500)
    with pytest.raises(OverLimit) as over:
        take_request(1)
    assert over.value.allowance.seconds == 2
    redis.delete("tallybook:requests:1")  # what Redis does when the window ends
    assert take_request(1) == Allowance(2, 1, 60)


def test_a_count_that_lost_its_end_gets_one_again(redis: Redis, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 5
    redis.set("tallybook:requests:1", 7)

    with pytest.raises(OverLimit):
        take_request(1)

    assert redis.pttl("tallybook:requests:1") > 0


def test_many_at_once_get_no_more_than_the_limit(redis: Redis, settings: Settings) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 10
    outcomes: list[bool] = []

    def ask() -> None:
        for _ in range(5):
            try:
                outcomes.append(take_request(1) is not None)
            except OverLimit:
                outcomes.append(False)

    run_together(*[ask] * 4)

    assert (sum(outcomes), len(outcomes)) == (10, 20)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "nonsense", "redis://user:wrong@127.0.0.1:%d/0"])
def test_without_redis_the_door_is_open_and_the_log_says_so_once(
    redis: Redis, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    asked: list[str] = []
    connect = rate_limits._Counter._connection

    def counted(counter: Any) -> Any:
        asked.append("asked")
        return connect(counter)

    monkeypatch.setattr(rate_limits._Counter, "_connection", counted)
    settings.RATE_LIMIT_PER_MINUTE = 1
    settings.REDIS_URL = url % redis.connection_pool.connection_kwargs["port"] if "%d" in url else url

    with caplog.at_level(logging.WARNING, "customers.rate_limits"):
        assert [take_request(1) for _ in range(5)] == [None] * 5
        assert asked == ["asked"]
        rate_limits._counter.closed_until = 0
        assert take_request(1) is None

    assert asked == ["asked", "asked"]
    assert [entry.message.split(":")[0] for entry in caplog.records] == ["Redis is away, requests are not limited"]


def test_a_redis_that_does_not_answer_is_not_waited_for(redis: Redis, settings: Settings) -> None:
    assert rate_limits.TIMEOUT_SECONDS <= 0.1
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.RATE_LIMIT_PER_MINUTE = 1
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

        assert [take_request(1), take_request(1)] == [None, None]


# --- over HTTP -------------------------------------------------------------------------------------------------------


def test_429_with_everything_that_a_sender_needs(
    redis: Redis, settings: Settings, compute: UsageEvent, post: Post
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 2
    good, bad, over = post(URL, record(id="a")), post(URL, "no JSON"), post(URL, record(id="b"))

    assert [answer.status_code for answer in (good, bad, over)] == [201, 400, 429]
    assert [answer["RateLimit"] for answer in (good, bad, over)] == [
        '"key";r=1;t=60',
        '"key";r=0;t=60',
        '"key";r=0;t=60',
    ]
    assert {answer["RateLimit-Policy"] for answer in (good, bad, over)} == {'"key";q=2;w=60'}
    assert ("Retry-After" in good, over["Retry-After"], over["Content-Type"]) == (
        False,
        "60",
        "application/problem+json",
    )
    told = over.json()
    assert (told["title"], told["status"]) == ("Too Many Requests", 429)
    assert told["detail"].startswith("At most 2 requests a minute are taken with this key.")
    assert list(UsageRecord.objects.values_list("idempotency_key", flat=True)) == ["a"]


def test_only_posting_counts_and_only_with_the_setting(
    client: Client, settings: Settings, compute: UsageEvent, post: Post, headers: dict[str, str]
) -> None:
    assert "RateLimit" not in post(URL, record(id="a"))
    settings.RATE_LIMIT_PER_MINUTE = 1
    assert post(URL, record(id="a")).status_code == 200
    asked = client.get(f"{URL}/records?id=a", headers=headers)
    assert (asked.status_code, "RateLimit" in asked) == (200, False)


def test_other_keys_of_the_organisation_go_on_and_a_revoked_one_is_401(
    settings: Settings, compute: UsageEvent, organisation: Organisation, post: Post
) -> None:
    settings.RATE_LIMIT_PER_MINUTE = 1
    _, other = issue_api_key(organisation, "other", [Scope.INGEST])

    assert [post(URL, record(id="a")).status_code for _ in range(2)] == [200 + 1, 429]
    assert post(URL, record(id="a"), **{"x-api-key": other}).status_code == 200
    ApiKey.objects.update(revoked_at=now())
    assert post(URL, record(id="a")).status_code == 401
