"""Exceptions, lost connections and kill -9 before every statement: nothing half done, nothing lost, no lock kept."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from metrics import materialization
from metrics.definitions import activate_metric, save_metric
from metrics.materialization import build, fold, rebuild, request_rebuild
from metrics.models import Metric, MetricAggregate, MetricDistinctValue
from metrics.questions import Question
from tests.conftest import environment_of_the_tests, record, take_in
from tests.metrics.breaking import Broken, breaking, fail, lose_connection
from tests.metrics.scenes import FORMULAS, REGIONS, assert_answers, assert_settled, metrics_of_each_kind
from usage.corrections import Actor, correct_record, restore_records, void_records
from usage.models import UsageEvent, UsageRecord

START = datetime(2025, 6, 17, tzinfo=UTC)
JUNE = Question(start=START, end=START + timedelta(days=2))
ACTOR = Actor(None, "someone")
CODES = ["eu_hours", "amounts"]  # one table, and two
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scene(compute: UsageEvent) -> UsageEvent:
    """A usage event with some metrics and records."""
    metrics_of_each_kind(compute, CODES)
    for number in range(3):
        disturb(compute, number)
    fold(compute.pk)
    return compute


def disturb(usage_event: UsageEvent, number: int) -> None:
    """Leave two batches, a correction and a void or a restoration to be folded."""
    for part in range(2):
        moment = START + timedelta(minutes=37 * ((2 * number + part) % 9))
        take_in(
            usage_event,
            *(
                {
                    **record(customer=f"cus_{which}", timestamp=moment.isoformat(), hours=Decimal(number + which) / 2),
                    "data": {"cpu_usage_hours": Decimal(number + which) / 2}
                    | ({"region": region} if (region := REGIONS[(number + which) % 4]) else {}),
                }
                for which in range(2)
            ),
        )
    records = UsageRecord.objects.filter(usage_event=usage_event)
    moved = records.filter(voided_at=None).order_by("-id")[number % 4]
    correct_record(
        moved.pk,
        customer_id="cus_0" if number % 2 else "cus_2",
        timestamp=START + timedelta(hours=number % 5, minutes=1, seconds=number),
        revision=moved.revision,
        reason="moved",
        actor=ACTOR,
    )
    act, voided = (restore_records, False) if number % 3 == 0 else (void_records, True)
    ids = records.filter(voided_at__isnull=voided).order_by("id").values_list("pk", flat=True)[:2]
    act(usage_event.pk, list(ids), reason="reason", actor=ACTOR)


def locks() -> int:
    """Count the advisory locks that any session holds in this database, seen from a session of its own."""
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        row = other.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def at_every_step(
    usage_event: UsageEvent, prepare: Callable[[int], Any], deed: Callable[[Any], Any], harm: Callable[[str], None]
) -> int:
    """Break the deed before each of its steps in turn, and check what is left; returns how many steps it has."""
    number = 0
    while True:
        number += 1
        prepared = prepare(number)
        with breaking(number, harm) as steps:
            try:
                deed(prepared)
            except (Broken, OperationalError, InterfaceError):
                assert steps.broken
        close_old_connections()  # as a worker does after each task
        assert locks() == 0, f"a lock was kept after step {number}"
        assert_answers(usage_event, CODES, JUNE)
        deed(prepared)
        fold(usage_event.pk)
        assert_settled(usage_event)
        if not steps.broken:
            return number - 1


@pytest.mark.parametrize("harm", [fail, lose_connection])
def test_a_fold_may_break_anywhere(
    scene: UsageEvent, harm: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialization, "CLAIM_BATCHES", 1)  # two batches are two pieces
    steps = at_every_step(scene, lambda number: disturb(scene, number), lambda _: fold(scene.pk), harm)

    assert steps > 20


def test_a_build_may_break_anywhere(scene: UsageEvent) -> None:
    def half_built(number: int) -> Metric:
        for earlier in Metric.objects.filter(code="late"):
            MetricAggregate.objects.filter(metric=earlier).delete()
            MetricDistinctValue.objects.filter(metric=earlier).delete()
            earlier.delete()
        late = Metric(organisation=scene.organisation, usage_event=scene, code="late", name="Late")
        for name, value in FORMULAS["amounts"].items():
            setattr(late, name, value)
        activate_metric(save_metric(late).pk)
        assert one_stretch(materialization._build_once, late) == "on"
        disturb(scene, number)
        return late

    steps = at_every_step(scene, half_built, lambda metric: build(metric.pk), fail)

    assert steps > 20
    assert Metric.objects.get(code="late").status == "active"


def test_a_rebuild_may_break_anywhere(scene: UsageEvent) -> None:
    metric = Metric.objects.get(code="amounts")

    def half_rebuilt(number: int) -> None:
        assert request_rebuild(metric.pk)
        assert one_stretch(materialization._rebuild_once, metric) == "on"
        disturb(scene, number)

    steps = at_every_step(scene, half_rebuilt, lambda _: rebuild(metric.pk), fail)

    assert steps > 20


def one_stretch(once: Callable[..., str], metric: Metric) -> str:
    return materialization._in_snapshot(lambda cursor: once(cursor, metric.pk, 5))


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@contextmanager
def killed_worker(usage_event: UsageEvent) -> Iterator[Callable[[int], int]]:
    """Start a worker; what it yields has it fold and die before a statement, and returns the signal that ended it."""
    command = [sys.executable, "-m", "tests.metrics.killed_worker", str(usage_event.pk)]
    environment = environment_of_the_tests()
    worker = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    numbers, answers = worker.stdin, worker.stdout
    assert numbers is not None
    assert answers is not None

    def kill_at(number: int) -> int:
        numbers.write(f"{number}\n".encode())
        numbers.flush()
        return int(answers.readline())

    try:
        yield kill_at
    finally:
        numbers.close()
        worker.wait(30)
        answers.close()


def wait_for_no_lock() -> None:
    """The database notices that a client is gone when it next listens to it."""
    for _ in range(200):
        if locks() == 0:
            return
        time.sleep(0.05)
    raise AssertionError("the lock of a killed worker was kept for 10 s")


def test_a_folding_worker_may_be_killed_anywhere(scene: UsageEvent) -> None:
    number = 0
    with killed_worker(scene) as kill_at:
        while True:
            number += 1
            disturb(scene, number)
            ended_by = kill_at(number)
            wait_for_no_lock()
            assert_answers(scene, CODES, JUNE)
            fold(scene.pk)
            assert_settled(scene)
            if ended_by == 0:
                break
            assert ended_by == signal.SIGKILL

    assert number > 15
