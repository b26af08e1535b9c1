"""Everybody at the same time: writers, correctors, folders, builders, publishers, readers; no wrong window or read."""

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from metrics import materialization
from metrics.definitions import activate_metric, revise_metric, save_metric
from metrics.materialization import build, fold, forget_retired, rebuild, request_rebuild
from metrics.models import Metric
from metrics.periods import Window
from metrics.quantities import quantities
from metrics.questions import Question
from metrics.snapshots import folding_lock, snapshot
from tests.conftest import COMPUTE_SCHEMA, record, take_in
from tests.metrics.counting import expected_aggregates, stored_aggregates
from tests.metrics.scenes import FORMULAS, REGIONS, assert_answers, assert_settled, metrics_of_each_kind
from tests.threads import run_together
from usage.corrections import Actor, CorrectionError, correct_record, restore_records, void_records
from usage.definitions import publish_schema
from usage.models import UsageEvent, UsageRecord

ROUNDS = int(os.environ.get("CONCURRENCY_ROUNDS", "15"))
START = datetime(2025, 6, 1, tzinfo=UTC)
MONTH = Question(start=START, end=START + timedelta(days=30))
VERSIONS = max(2, ROUNDS // 5)
CUSTOMERS = ["cus_a", "cus_b", "cus_c"]
CODES = list(FORMULAS)
NO_FORMULA: dict[str, Any] = {"property": "", "expression": "", "filters": {}, "group_by": [], "percentile": None}
ACTOR = Actor(None, "corrector")
# What a sender may send changes while it is sent; all of it fits both.
OTHER_SCHEMA = {"type": "object", "properties": COMPUTE_SCHEMA["properties"], "additionalProperties": True}


class Scene:
    """One usage event, a metric of each kind and everybody who works on it."""

    def __init__(self, usage_event: UsageEvent) -> None:
        self.usage_event = usage_event
        metrics_of_each_kind(usage_event)
        self.at_work = 0
        self.lock = threading.Lock()
        self.rows = 0

    def working(self, job: Callable[[], None]) -> Callable[[], None]:
        """Count a job among those that all the others wait for."""
        self.at_work += 1

        def run() -> None:
            try:
                job()
            finally:
                with self.lock:
                    self.at_work -= 1

        return run

    def meanwhile(self, job: Callable[[random.Random], None], seed: int, pause: float = 0.0) -> Callable[[], None]:
        """Repeat a job until the others have done their work."""

        def run() -> None:
            chance = random.Random(seed)
            while self.at_work > 0:
                job(chance)
                time.sleep(pause)

        return run

    # --- who works ------------------------------------------------------------------------------------------------

    def write(self, seed: int) -> None:
        chance = random.Random(seed)
        own = f"cus_own_{seed}"
        total = Decimal(0)
        for number in range(ROUNDS):
            size = chance.choice([1, 3, 3, 120])
            records = [self.record(chance, f"{seed}-{number}-{i}") for i in range(size)]
            mine = self.record(chance, f"{seed}-{number}-own", customer=own)
            total += mine["data"]["cpu_usage_hours"]
            # Every batch carries some of the previous one again, in another order.
            chance.shuffle(records)
            assert take_in(self.usage_event, mine, *records).accepted == size + 1
            assert take_in(self.usage_event, *reversed(records)).duplicates == size
            question = Question(start=MONTH.start, end=MONTH.end, customer_ids=[own])
            (row,) = quantities(self.usage_event.organisation_id, "hours", question).rows
            assert (row.quantity, row.record_count) == (total, number + 1)

    def switch(self) -> None:
        """Put another formula in force under a code, while the one before answers."""
        chance = random.Random(31)
        for _ in range(VERSIONS):
            code = chance.choice(CODES[1:])  # the first is the writers' own
            metric = Metric.objects.get(code=code, status="active")
            others = [formula for formula in FORMULAS.values() if formula["aggregation"] != metric.aggregation]
            blank: dict[str, Any] = {
                "property": "",
                "expression": "",
                "filters": {},
                "group_by": [],
                "percentile": None,
            }
            version = revise_metric(metric, {**blank, **chance.choice(others)})
            activate_metric(version.pk)
            finish(build, version)
            forget_retired()

    def rebuild(self) -> None:
        metric = Metric.objects.get(code="hours", status="active")
        for _ in range(VERSIONS):
            assert request_rebuild(metric.pk)
            finish(rebuild, metric)

    def publish(self) -> None:
        for number in range(2 * VERSIONS):
            schema = COMPUTE_SCHEMA if number % 2 else OTHER_SCHEMA
            publish_schema(UsageEvent.objects.get(pk=self.usage_event.pk), schema, accept_violations=True)
            time.sleep(0.3)

    # --- what goes on meanwhile -----------------------------------------------------------------------------------

    def correct(self, chance: random.Random) -> None:
        shared = UsageRecord.objects.filter(customer__external_id__in=CUSTOMERS).order_by("?")
        ids = list(shared.values_list("id", flat=True)[:5])
        if not ids:
            return
        try:
            correct_record(
                ids[0],
                customer_id=chance.choice(CUSTOMERS),
                timestamp=self.moment(chance),
                data=self.data(chance),
                revision=UsageRecord.objects.get(pk=ids[0]).revision,
                reason="moved",
                actor=ACTOR,
            )
        except CorrectionError:
            pass  # somebody else corrected or voided it first: refused, which is what should happen
        act = chance.choice([void_records, restore_records])
        act(self.usage_event.pk, ids[1:], reason="deleted", actor=ACTOR)

    def fold(self, chance: random.Random) -> None:
        fold(self.usage_event.pk)

    def read(self, chance: random.Random) -> None:
        window = chance.choice([Window.TOTAL, Window.DAY, Window.HOUR])
        question = Question(start=MONTH.start + timedelta(minutes=chance.choice([0, 95])), end=MONTH.end, window=window)
        self.rows += assert_answers(self.usage_event, [chance.choice(CODES)], question)

    # --- what it is made of ---------------------------------------------------------------------------------------

    def record(self, chance: random.Random, key: str, customer: str | None = None) -> dict[str, Any]:
        return {
            "id": key,
            "customer_id": customer or chance.choice(CUSTOMERS),
            "timestamp": self.moment(chance).isoformat(),
            "data": self.data(chance),
        }

    def data(self, chance: random.Random) -> dict[str, Any]:
        region = chance.choice(REGIONS)
        # Few values, so that distinct ones are shared.
        hours = Decimal(chance.randrange(30)).scaleb(-chance.randrange(3))
        return {"cpu_usage_hours": hours} | ({"region": region} if region else {})

    def moment(self, chance: random.Random) -> datetime:
        return START + timedelta(seconds=chance.randrange(6 * 3600))


def test_nothing_is_wrong_at_any_moment(compute: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialization, "STRETCH_RECORDS", 200)
    monkeypatch.setattr(materialization, "STRETCH_BOUNDS", (200, 200))
    monkeypatch.setattr(materialization, "CLAIM_BATCHES", 3)
    scene = Scene(compute)
    run_together(
        *(scene.working(lambda seed=seed: scene.write(seed)) for seed in range(3)),  # type: ignore[misc]
        scene.working(scene.switch),
        scene.working(scene.rebuild),
        scene.working(scene.publish),
        scene.meanwhile(scene.correct, 11),
        scene.meanwhile(scene.correct, 12),
        # Who builds has to find the lock free, as beside workers that are woken twice a second.
        scene.meanwhile(scene.fold, 21, pause=0.1),
        scene.meanwhile(scene.fold, 22, pause=0.1),
        scene.meanwhile(scene.read, 61),
        scene.meanwhile(scene.read, 62),
    )
    while fold(compute.pk):
        pass

    assert_settled(compute)
    assert_answers(compute, CODES, MONTH)
    assert scene.rows > 50


def finish(deed: Callable[[int], bool], metric: Metric) -> None:
    """Repeat until it is done, as the worker does where folds leave no room for it at first."""
    while not deed(metric.pk):
        time.sleep(0.01)


def test_only_one_folds_a_usage_event_at_a_time(compute: UsageEvent) -> None:
    outcomes: list[Any] = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('tallybook.fold', %s))", [compute.pk])
        run_together(lambda: outcomes.append(fold(compute.pk)))
        cursor.execute("SELECT pg_advisory_unlock(hashtextextended('tallybook.fold', %s))", [compute.pk])
    run_together(lambda: outcomes.append(fold(compute.pk)))

    assert outcomes[0] is None
    assert outcomes[1] is not None


# --- moments that come about seldom, brought about ----------------------------------------------------------------


def late_metric(usage_event: UsageEvent) -> Metric:
    """A metric that is to be built."""
    draft = Metric(
        organisation=usage_event.organisation,
        usage_event=usage_event,
        code="late",
        name="Late",
        aggregation="sum",
        property="cpu_usage_hours",
    )
    return activate_metric(save_metric(draft).pk)


def one_stretch(metric: Metric, records: int) -> str:
    return materialization._in_snapshot(lambda cursor: materialization._build_once(cursor, metric.pk, records))


def wait_until_somebody_waits() -> None:
    """Return when a session of this database waits for another one's lock; fails after 20 s."""
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        for _ in range(4000):
            waiting = other.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
            if waiting is not None:
                return
            time.sleep(0.005)
    raise AssertionError("nobody waits for a lock")


def test_the_window_at_the_built_position_is_left_to_the_build(compute: UsageEvent) -> None:
    take_in(compute, record(timestamp="2025-06-17T14:10:00Z"), record(timestamp="2025-06-17T15:10:00Z"))
    metric = late_metric(compute)
    assert one_stretch(metric, 0) == "on"
    metric.refresh_from_db()
    assert metric.built_window_start == datetime(2025, 6, 17, 15, tzinfo=UTC)

    # A batch and a mark, both of the very window at which the build goes on.
    take_in(compute, record(timestamp="2025-06-17T15:20:00Z"), record(timestamp="2025-06-17T15:30:00Z"))
    void_records(compute.pk, [UsageRecord.objects.latest("id").pk], reason="reason", actor=ACTOR)
    fold(compute.pk)

    assert [hour for _, hour in stored_aggregates(metric)] == [datetime(2025, 6, 17, 14, tzinfo=UTC)]
    assert build(metric.pk)
    assert stored_aggregates(metric) == expected_aggregates(metric)
    assert len(stored_aggregates(metric)) == 2


def test_a_step_that_collides_with_another_transaction_is_tried_again(compute: UsageEvent) -> None:
    take_in(compute, record())
    metric = late_metric(compute)
    started = threading.Event()

    def rename() -> None:
        with transaction.atomic():
            Metric.objects.filter(pk=metric.pk).update(name="Another name")
            started.set()
            wait_until_somebody_waits()

    def build_meanwhile() -> None:
        started.wait(20)
        # Waits for the row, and then may not have it: it is no longer the one of this snapshot.
        assert build(metric.pk)

    run_together(rename, build_meanwhile)

    metric.refresh_from_db()
    assert (metric.name, metric.status) == ("Another name", "active")
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_two_who_build_without_the_locks_do_not_build_the_same(compute: UsageEvent) -> None:
    """Session locks get lost with a connection; the metric's row keeps builders apart even then."""
    take_in(compute, *(record(customer=customer) for customer in "aaabbb"))
    fold(compute.pk)
    metric = late_metric(compute)
    steps: list[str] = []
    building = threading.Event()

    def first() -> None:
        with snapshot() as cursor:
            steps.append(materialization._build_once(cursor, metric.pk, 2))
            building.set()
            wait_until_somebody_waits()

    def second() -> None:
        building.wait(20)
        steps.append(one_stretch(metric, 100))

    run_together(first, second)

    assert steps == ["on", "active"]
    assert stored_aggregates(metric) == expected_aggregates(metric)


def test_a_build_is_not_starved_by_folds_that_follow_each_other(compute: UsageEvent) -> None:
    take_in(compute, *(record(customer=f"cus_{n}") for n in range(30)))
    metric = save_metric(
        Metric(organisation=compute.organisation, usage_event=compute, code="m", name="M", aggregation="count")
    )
    activate_metric(metric.pk)
    outcomes: list[bool] = []
    over = threading.Event()

    def fold_on() -> None:
        while not over.is_set():
            with folding_lock(compute.pk):
                over.wait(0.05)

    def build_once() -> None:
        try:
            outcomes.append(build(metric.pk))
        finally:
            over.set()

    run_together(fold_on, fold_on, build_once)

    assert outcomes == [True]
