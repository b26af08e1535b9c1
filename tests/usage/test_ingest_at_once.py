"""Equal and overlapping requests at the same moment: stored once, and everybody gets an honest answer."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from customers.exactjson import dumps
from tests.conftest import record
from tests.threads import run_together
from usage.models import IngestBatch, RejectedRecord, UsageEvent, UsageRecord

URL = "/usage/compute_hours"
AT_ONCE = 6


def posted(headers: dict[str, str], body: Any, answers: list[Any]) -> Callable[[], None]:
    def post() -> None:
        answers.append(Client().post(URL, dumps(body), content_type="application/json", headers=headers))

    return post


@pytest.mark.parametrize("count", [1, 3, 250])
@pytest.mark.parametrize("named", ["id", "key"])
def test_equal_requests_at_once_store_once(
    compute: UsageEvent, headers: dict[str, str], count: int, named: str
) -> None:
    batch = [record(f"cus_{number}", **({"id": f"r{number}"} if named == "id" else {})) for number in range(count)]
    more = {"Idempotency-Key": "one"} if named == "key" else {}
    answers: list[Any] = []

    run_together(*[posted({**headers, **more}, batch if count > 1 else batch[0], answers)] * AT_ONCE)

    assert sorted(answer.status_code for answer in answers) == [200] * (AT_ONCE - 1) + [201]
    assert sorted(answer.json()["accepted"] for answer in answers) == [0] * (AT_ONCE - 1) + [count]
    assert sum(answer.json()["duplicates"] for answer in answers) == count * (AT_ONCE - 1)
    assert UsageRecord.objects.count() == count
    assert IngestBatch.objects.count() == AT_ONCE


def test_equal_requests_without_an_identity_are_new_each(compute: UsageEvent, headers: dict[str, str]) -> None:
    answers: list[Any] = []

    run_together(*[posted(headers, [record(), record()], answers)] * AT_ONCE)

    assert [answer.status_code for answer in answers] == [201] * AT_ONCE
    assert UsageRecord.objects.count() == 2 * AT_ONCE


@pytest.mark.parametrize("prefer", ["handling=lenient", "handling=strict"])
def test_contradicting_requests_at_once_have_one_winner(
    compute: UsageEvent, headers: dict[str, str], prefer: str
) -> None:
    answers: list[Any] = []

    run_together(
        *(posted({**headers, "Prefer": prefer}, record(id="a", hours=hours), answers) for hours in range(AT_ONCE))
    )

    refused = 422 if prefer == "handling=strict" else 409
    assert sorted(answer.status_code for answer in answers) == sorted([201] + [refused] * (AT_ONCE - 1))
    assert sum(answer.json()["conflicts"] for answer in answers) == AT_ONCE - 1
    assert UsageRecord.objects.count() == 1


@pytest.mark.parametrize("size", [40, 160])
def test_overlapping_batches_in_different_order_all_come_through(
    compute: UsageEvent, headers: dict[str, str], size: int
) -> None:
    pool = [record(f"cus_{number % 17}", id=f"r{number}") for number in range(size * 2)]
    pool += [record(hours="5", id=f"bad{number}") for number in range(10)]
    batches = [random.Random(seed).sample(pool, size) for seed in range(AT_ONCE)]
    answers: list[Any] = []

    run_together(*(posted(headers, batch, answers) for batch in batches))

    assert {answer.status_code for answer in answers} <= {201, 207}
    good = {item["id"] for batch in batches for item in batch if not item["id"].startswith("bad")}
    told = [answer.json() for answer in answers]
    assert set(UsageRecord.objects.values_list("idempotency_key", flat=True)) == good
    assert sum(answer["accepted"] for answer in told) == len(good) == UsageRecord.objects.count()
    assert all(answer["accepted"] + answer["duplicates"] + answer["rejected"] == size for answer in told)
    seen = Counter(item["id"] for batch in batches for item in batch if item["id"].startswith("bad"))
    assert dict(RejectedRecord.objects.values_list("idempotency_key", "times")) == dict(seen)
