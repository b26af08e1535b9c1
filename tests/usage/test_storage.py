"""Storing under concurrency: requests that wait for each other, overlap, deadlock or lose their snapshot."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg.errors
import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from customers.resolution import resolve_customers
from tests.conftest import beaten_to_it, record, take_in
from tests.threads import run_together
from usage import sql, storage
from usage.candidates import BatchHead, Candidates, Stored
from usage.corrections import Actor, correct_record
from usage.ingestion import IngestResult
from usage.models import IngestBatch, PendingBatch, UsageEvent, UsageRecord


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], Any]], "Future[Any]"]]:
    """Run a job in another thread, with a connection of its own; returns its future."""
    with ThreadPoolExecutor(4) as pool:

        def run(job: Callable[[], Any]) -> Any:
            try:
                return job()
            finally:
                connection.close()

        yield lambda job: pool.submit(run, job)


def until_somebody_waits() -> None:
    """Return as soon as a session waits for a lock; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction the view would never change
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def known_customer(usage_event: UsageEvent) -> None:
    """Let nobody wait for a customer that is being created."""
    resolve_customers(usage_event.organisation_id, ["cus_1"])


def keys() -> list[str | None]:
    return sorted(UsageRecord.objects.values_list("idempotency_key", flat=True), key=str)


def counts(result: IngestResult) -> tuple[int, int, int, int]:
    return result.accepted, result.duplicates, result.conflicts, result.rejected


def check_receipts() -> None:
    """Every receipt counts what is there, and just the batches that stored something wait for the fold."""
    stored = list(IngestBatch.objects.values_list("id", "accepted"))
    assert stored == [(batch_id, UsageRecord.objects.filter(batch_id=batch_id).count()) for batch_id, _ in stored]
    pending = set(PendingBatch.objects.values_list("batch_id", flat=True))
    assert pending == {batch_id for batch_id, accepted in stored if accepted}


@pytest.mark.parametrize("replaying", [False, True])
@pytest.mark.parametrize("count", [1, 250])
@pytest.mark.parametrize(
    ("hours", "commits", "expected"),
    [(1, True, "duplicates"), (2, True, "conflicts"), (1, False, "accepted"), (2, False, "accepted")],
)
def test_a_request_that_waits_on_an_uncommitted_equal_one(
    compute: UsageEvent, elsewhere: Any, replaying: bool, count: int, hours: int, commits: bool, expected: str
) -> None:
    known_customer(compute)
    others = [record(id=f"other-{i:03}") for i in range(count - 1)]
    if replaying:
        storage._replaying[compute.pk] = time.monotonic() + 60

    with pytest.raises(ZeroDivisionError) if not commits else transaction.atomic():
        with transaction.atomic():
            take_in(compute, record(id="same", hours=1))
            waiting = elsewhere(lambda: take_in(compute, *others, record(id="same", hours=hours)))
            until_somebody_waits()
            assert not waiting.done()
            if not commits:
                raise ZeroDivisionError
    result = waiting.result(timeout=20)

    wanted = {"accepted": count - 1, "duplicates": 0, "conflicts": 0, "rejected": 0}
    wanted[expected] += 1
    assert counts(result) == tuple(wanted.values())
    assert UsageRecord.objects.get(idempotency_key="same").data == {"cpu_usage_hours": 1 if commits else hours}
    assert keys() == sorted([item["id"] for item in others] + ["same"])
    check_receipts()


@pytest.mark.parametrize("size", [20, 140])
def test_overlapping_batches_in_different_order_never_fail_and_store_each_id_once(
    compute: UsageEvent, size: int
) -> None:
    pool = [f"key-{number:03}" for number in range(size * 2)]
    results: list[IngestResult] = []

    def sender(seed: int) -> Callable[[], None]:
        chance = random.Random(seed)

        def send() -> None:
            for _ in range(4):
                chosen = chance.sample(pool, size)
                results.append(take_in(compute, *(record(f"cus_{key[-1]}", id=key) for key in chosen)))

        return send

    run_together(*(sender(seed) for seed in range(8)))

    assert len(results) == 32
    assert all(result.accepted + result.duplicates == size for result in results)
    assert all(result.conflicts == result.rejected == 0 for result in results)
    assert sum(result.accepted for result in results) == UsageRecord.objects.count()
    assert len(set(keys())) == UsageRecord.objects.count()
    check_receipts()


def test_senders_of_contradicting_batches_agree_on_one_content_for_each_id(compute: UsageEvent) -> None:
    pool = [f"key-{number:02}" for number in range(30)]
    results: list[IngestResult] = []

    def sender(hours: int) -> Callable[[], None]:
        def send() -> None:
            shuffled = random.Random(hours).sample(pool, len(pool))
            results.append(take_in(compute, *(record(id=key, hours=hours) for key in shuffled)))

        return send

    run_together(*(sender(hours) for hours in range(1, 9)))

    assert sum(result.accepted for result in results) == 30
    assert sum(result.conflicts for result in results) == 7 * 30
    assert sum(result.duplicates + result.rejected for result in results) == 0
    assert keys() == pool


def test_new_customers_named_by_many_at_once_are_created_once(compute: UsageEvent) -> None:
    names = [f"cus_{number:02}" for number in range(40)]

    def sender(seed: int) -> Callable[[], None]:
        shuffled = random.Random(seed).sample(names, len(names))

        def send() -> None:
            for part in (shuffled[:20], shuffled[20:]):
                take_in(compute, *map(record, part))

        return send

    run_together(*(sender(seed) for seed in range(8)))

    customers = UsageRecord.objects.values_list("customer_id", "customer__external_id").distinct()
    assert sorted(external_id for _, external_id in customers) == names
    assert UsageRecord.objects.count() == 8 * 40


def failing(times: int, cause: type[psycopg.Error], then: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
    """A statement that fails so many times, with what the driver would raise, and how often it was called."""
    calls: list[int] = []

    def statement(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise OperationalError("tried again") from cause("tried again")
        return then(*arguments)

    return statement, calls


@pytest.mark.parametrize("cause", [psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure])
@pytest.mark.parametrize(
    ("name", "count"), [("store_fresh", 2), ("insert_fresh", 2), ("copy_fresh", 220), ("insert_unknown", 2)]
)
def test_a_deadlock_or_serialization_failure_is_tried_again(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch, cause: type[psycopg.Error], name: str, count: int
) -> None:
    if name == "insert_unknown":
        monkeypatch.setattr(storage, "_store_new", beaten_to_it)
    if name == "insert_fresh":
        monkeypatch.setattr(storage, "_store_at_once", lambda *_: None)
    statement, calls = failing(2, cause, getattr(sql, name))
    monkeypatch.setattr(sql, name, statement)
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)

    result = take_in(compute, *(record(id=f"k{i:03}") for i in range(count)))

    assert len(calls) == 3
    assert counts(result) == (count, 0, 0, 0)
    assert UsageRecord.objects.count() == count
    assert IngestBatch.objects.count() == 1
    check_receipts()


def test_after_five_attempts_the_failure_is_the_answer_and_nothing_is_stored(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement, calls = failing(99, psycopg.errors.DeadlockDetected, sql.store_fresh)
    monkeypatch.setattr(sql, "store_fresh", statement)
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)

    with pytest.raises(OperationalError):
        take_in(compute, record(id="a"))

    assert len(calls) == storage.ATTEMPTS == 5
    assert not UsageRecord.objects.exists()
    assert not IngestBatch.objects.exists()
    assert not PendingBatch.objects.exists()


@pytest.mark.parametrize("error", [psycopg.errors.AdminShutdown, psycopg.errors.QueryCanceled])
def test_any_other_failure_is_not_tried_again(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
) -> None:
    statement, calls = failing(1, error, sql.store_fresh)
    monkeypatch.setattr(sql, "store_fresh", statement)

    with pytest.raises(OperationalError):
        take_in(compute, record(id="a"))

    assert len(calls) == 1
    assert not IngestBatch.objects.exists()


def test_a_broken_rule_that_is_no_known_identity_is_a_fault_and_not_a_duplicate(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise IntegrityError("not null") from psycopg.errors.NotNullViolation("not null")

    monkeypatch.setattr(sql, "store_fresh", broken)

    with pytest.raises(IntegrityError, match="not null"):
        take_in(compute, record(id="a"))

    assert not IngestBatch.objects.exists()


def test_the_victim_of_a_real_deadlock_is_carried_through(
    compute: UsageEvent, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_customer(compute)
    attempts: list[int] = []
    store = storage._store

    def counted(head: BatchHead, candidates: Candidates) -> Stored:
        attempts.append(threading.get_ident())
        return store(head, candidates)

    monkeypatch.setattr(storage, "_store", counted)

    with transaction.atomic():
        take_in(compute, record(id="b", hours=1))
        victim = elsewhere(lambda: take_in(compute, record(id="a", hours=1), record(id="b", hours=2)))
        until_somebody_waits()
        take_in(compute, record(id="a", hours=1))  # waits for the other's "a", while the other waits for our "b"
    result = victim.result(timeout=20)

    assert len([thread for thread in attempts if thread != threading.get_ident()]) == 2
    assert counts(result) == (0, 1, 1, 0)
    assert keys() == ["a", "b"]
    check_receipts()


def test_a_known_identity_makes_the_next_batches_careful_for_a_minute_and_no_longer(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(compute, record(id="a"))
    assert compute.pk not in storage._replaying

    take_in(compute, record(id="a"))
    until = storage._replaying[compute.pk]
    assert 59 < until - time.monotonic() <= 60

    def never(*_: Any) -> None:
        raise AssertionError("it was looked first")

    with monkeypatch.context() as quick:
        quick.setattr(sql, "compare_with_first", never)
        with pytest.raises(AssertionError, match="looked first"):
            take_in(compute, record(id="b"))
        storage._replaying[compute.pk] = time.monotonic() - 1
        assert take_in(compute, record(id="b")).accepted == 1


def test_a_duplicate_of_a_record_that_is_being_corrected_is_compared_with_what_came_first(
    compute: UsageEvent, elsewhere: Any
) -> None:
    take_in(compute, record(id="a", hours=1))
    stored = UsageRecord.objects.get()

    with transaction.atomic():
        correct_record(stored.pk, data={"cpu_usage_hours": 5}, revision=1, reason="r", actor=Actor(None, "Ada"))
        during = elsewhere(lambda: take_in(compute, record(id="a", hours=1)))
        until_somebody_waits()
    after = take_in(compute, record(id="a", hours=1))
    corrected = take_in(compute, record(id="a", hours=5))

    assert counts(during.result(timeout=20)) == counts(after) == (0, 1, 0, 0)
    assert counts(corrected) == (0, 0, 1, 0)


# --- batches of which a part is known --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["looked", "beaten"])
@pytest.mark.parametrize("count", [3, 250])
def test_what_is_new_is_stored_beside_what_is_known(
    compute: UsageEvent, monkeypatch: pytest.MonkeyPatch, way: str, count: int
) -> None:
    """By looking first, and, where somebody is quicker between the look and the insert, by the database's word."""
    take_in(compute, *(record(hours=1, id=f"k{i:03}") for i in range(count)))
    if way == "beaten":
        monkeypatch.setattr(storage, "_store_new", beaten_to_it)
    known = [record(hours=1 + (i == 1), id=f"k{i:03}") for i in range(count)]  # the second with other content
    new = [record(hours=5, id=f"n{i:03}") for i in range(count)]

    result = take_in(compute, *known, *new, known[0], known[1], new[0], record(hours=7))

    assert counts(result) == (count + 1, count + 1, 2, 0)
    assert [(problem.index, problem.code) for problem in result.problems] == [
        (1, "conflict"),
        (2 * count + 1, "conflict"),
    ]
    assert UsageRecord.objects.count() == 2 * count + 1
    check_receipts()


def test_the_ids_of_what_is_new_follow_the_order_sent(compute: UsageEvent) -> None:
    take_in(compute, record(id="m"))
    take_in(compute, *(record(id=key) for key in "zmayb"))

    assert list(UsageRecord.objects.order_by("id").values_list("idempotency_key", flat=True)) == list("mzayb")


def test_a_corrected_record_is_compared_with_what_came_first_however_many_revisions_it_has(compute: UsageEvent) -> None:
    take_in(compute, *(record(hours=1, id=key) for key in "ab"))
    stored = UsageRecord.objects.get(idempotency_key="a")
    for revision in (1, 2, 3):
        data = {"cpu_usage_hours": 1 + revision}
        correct_record(stored.pk, data=data, revision=revision, reason="test", actor=Actor(None, "test"))

    assert counts(take_in(compute, record(hours=1, id="a"), record(hours=1, id="b"))) == (0, 2, 0, 0)
    assert counts(take_in(compute, record(hours=4, id="a"), record(hours=4, id="b"))) == (0, 0, 2, 0)


def kept_statements() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE name LIKE 'tallybook%'")
        return [name for (name,) in cursor.fetchall()]


def test_a_session_keeps_the_statement_of_small_batches(compute: UsageEvent) -> None:
    connection.close()
    assert kept_statements() == []

    for number in range(3):
        take_in(compute, record(id=f"r{number}"))

    assert kept_statements() == ["tallybook_store_fresh"]
    assert connection.connection in sql._prepared  # or it would be told each time
    assert keys() == ["r0", "r1", "r2"]


def test_a_session_that_does_not_know_the_statement_is_sent_it_in_full(compute: UsageEvent) -> None:
    """As behind a pooler, which hands out another session than the one that was told."""
    take_in(compute, record(id="told"))
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")

    assert counts(take_in(compute, record(id="forgotten"))) == (1, 0, 0, 0)
    assert counts(take_in(compute, record(id="forgotten"))) == (0, 1, 0, 0)
    assert keys() == ["forgotten", "told"]


def test_a_name_that_the_session_knows_already_is_used(compute: UsageEvent) -> None:
    """As behind a pooler, which hands one session to several of us."""
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute(f"PREPARE tallybook_store_fresh (json) AS {sql.STORE_FRESH.decode()}")

    assert counts(take_in(compute, record(id="a"))) == (1, 0, 0, 0)
    assert keys() == ["a"]
