"""Writers, correctors, folders, a builder and readers at the same time: no wrong window, no wrong read."""

import os
import random
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection

from metrics.definitions import activate_metric, save_metric
from metrics.materialization import build, fold
from metrics.models import Metric
from metrics.periods import Window
from metrics.quantities import Question, quantities, quantities_in
from metrics.snapshots import snapshot
from tests.conftest import active_metric, take_in
from tests.metrics.counting import expected_aggregates, expected_quantity, stored_aggregates
from tests.threads import run_together
from usage.corrections import Actor, CorrectionError, correct_record, restore_records, void_records
from usage.models import ChangedWindow, PendingBatch, UsageEvent, UsageRecord

ROUNDS = int(os.environ.get("CONCURRENCY_ROUNDS", "40"))
START = datetime(2025, 6, 1, tzinfo=UTC)
MONTH = Question(start=START, end=START + timedelta(days=30))
CUSTOMERS = ["cus_a", "cus_b", "cus_c"]
ACTOR = Actor(None, "corrector")


class Scene:
    """One usage event, two metrics and everybody who works on it."""

    def __init__(self, usage_event: UsageEvent) -> None:
        self.usage_event = usage_event
        self.metrics = [
            active_metric(usage_event, code="hours", aggregation="sum", property="cpu_usage_hours"),
            active_metric(usage_event, code="records", aggregation="count"),
        ]
        self.at_work = 0
        self.lock = threading.Lock()
        self.reads = 0

    def working(self, job: Any) -> Any:
        """Count a job among those that folders and readers wait for."""
        self.at_work += 1

        def run() -> None:
            try:
                job()
            finally:
                with self.lock:
                    self.at_work -= 1

        return run

    def write(self, seed: int) -> None:
        chance = random.Random(seed)
        own = f"cus_own_{seed}"
        total = Decimal(0)
        for number in range(ROUNDS):
            size = chance.choice([1, 3, 120])
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

    def correct(self, seed: int) -> None:
        chance = random.Random(seed)
        while self.at_work > 0:
            ids = list(
                UsageRecord.objects.filter(customer__external_id__in=CUSTOMERS)
                .order_by("?")
                .values_list("id", flat=True)[:5]
            )
            if not ids:
                continue
            record = UsageRecord.objects.get(pk=ids[0])
            try:
                correct_record(
                    ids[0],
                    customer_id=chance.choice(CUSTOMERS),
                    timestamp=self.moment(chance),
                    data={"cpu_usage_hours": Decimal(chance.randrange(10**6)).scaleb(-3)},
                    revision=record.revision,
                    reason="moved",
                    actor=ACTOR,
                )
            except CorrectionError:
                pass  # somebody else corrected or voided it first: refused, which is what should happen
            act = chance.choice([void_records, restore_records])
            act(self.usage_event.pk, ids[1:], reason="deleted", actor=ACTOR)

    def fold(self) -> None:
        while self.at_work > 0:
            fold(self.usage_event.pk)

    def build(self) -> None:
        number = 0
        while self.at_work > 0:
            number += 1
            metric = Metric(
                organisation=self.usage_event.organisation,
                usage_event=self.usage_event,
                code=f"late{number}",
                name="late",
                aggregation="sum",
                property="cpu_usage_hours",
            )
            save_metric(metric)
            activate_metric(metric.pk)
            while not build(metric.pk):
                pass
            self.metrics.append(metric)
            threading.Event().wait(0.5)

    def read(self, seed: int) -> None:
        chance = random.Random(seed)
        while self.at_work > 0:
            metric = chance.choice(self.metrics)
            window = chance.choice([Window.TOTAL, Window.DAY])
            with snapshot() as cursor:
                question = Question(start=MONTH.start, end=MONTH.end, window=window)
                answer = quantities_in(cursor, metric.organisation_id, metric.code, question)
                for row in chance.sample(answer.rows, min(len(answer.rows), 4)):
                    expected = expected_quantity(metric, row.customer_id, row.start, row.end)
                    assert (row.quantity, row.record_count) == expected
                    self.reads += 1

    def record(self, chance: random.Random, key: str, customer: str | None = None) -> dict[str, Any]:
        return {
            "id": key,
            "customer_id": customer or chance.choice(CUSTOMERS),
            "timestamp": self.moment(chance).isoformat(),
            "data": {"cpu_usage_hours": Decimal(chance.randrange(10**6)).scaleb(-3)},
        }

    def moment(self, chance: random.Random) -> datetime:
        return START + timedelta(seconds=chance.randrange(6 * 3600))


def test_nothing_is_wrong_at_any_moment(compute: UsageEvent) -> None:
    scene = Scene(compute)
    run_together(
        *(scene.working(lambda seed=seed: scene.write(seed)) for seed in range(3)),
        lambda: scene.correct(11),
        lambda: scene.correct(12),
        scene.fold,
        scene.fold,
        scene.build,
        lambda: scene.read(21),
        lambda: scene.read(22),
    )
    assert scene.reads > 50
    fold(compute.pk)

    assert not PendingBatch.objects.exists()
    assert not ChangedWindow.objects.exists()
    assert len(scene.metrics) > 2
    for metric in scene.metrics:
        assert stored_aggregates(metric) == expected_aggregates(metric)


def test_only_one_folds_a_usage_event_at_a_time(cpu_hours: Metric) -> None:
    outcomes: list[Any] = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('tallybook.fold', %s))", [cpu_hours.usage_event_id])
        run_together(lambda: outcomes.append(fold(cpu_hours.usage_event_id)))
        cursor.execute("SELECT pg_advisory_unlock(hashtextextended('tallybook.fold', %s))", [cpu_hours.usage_event_id])
    run_together(lambda: outcomes.append(fold(cpu_hours.usage_event_id)))

    assert outcomes[0] is None
    assert outcomes[1] is not None
