"""The oracle: after any history of ingestion and correction, folded or not, everything equals a recount."""

import os
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from metrics.definitions import activate_metric, save_metric
from metrics.materialization import build, fold
from metrics.models import Metric
from metrics.periods import Window
from metrics.quantities import Question, quantities
from tests.conftest import active_metric, take_in
from tests.metrics.counting import expected_aggregates, expected_quantity, stored_aggregates
from usage.corrections import Actor, correct_record, restore_records, void_records
from usage.models import ChangedWindow, PendingBatch, UsageEvent, UsageRecord

SEEDS = int(os.environ.get("ORACLE_SEEDS", "25"))
FIRST_SEED = int(os.environ.get("ORACLE_FIRST_SEED", "1"))
STEPS = 25
START = datetime(2025, 3, 28, tzinfo=UTC)  # Europe changes its clocks on the 30th
HOURS = 96
CUSTOMERS = ["cus_a", "cus_b", "cus_c", "cus_d"]
ZONES = ["UTC", "Asia/Kolkata", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]
ACTOR = Actor(None, "oracle")


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_everything_equals_a_recount(compute: UsageEvent, seed: int) -> None:
    history = History(compute, random.Random(seed))
    for _ in range(STEPS):
        history.step()
        history.check_one_answer()
    history.activate_late_metric()
    fold(compute.pk)

    assert not PendingBatch.objects.exists()
    assert not ChangedWindow.objects.exists()
    for metric in history.metrics:
        assert stored_aggregates(metric) == expected_aggregates(metric)
    history.check_one_answer()


class History:
    """A random history of one usage event, from one seed."""

    def __init__(self, usage_event: UsageEvent, chance: random.Random) -> None:
        self.usage_event, self.chance = usage_event, chance
        self.sent: list[dict[str, Any]] = []
        self.metrics = [
            active_metric(usage_event, code="hours", aggregation="sum", property="cpu_usage_hours"),
            active_metric(usage_event, code="records", aggregation="count"),
        ]

    def step(self) -> None:
        deeds = [self.ingest, self.ingest, self.replay, self.correct, self.correct, self.void, self.restore, self.fold]
        self.chance.choice(deeds)()

    def ingest(self) -> None:
        size = self.chance.choice([1, 5, 40, 130])
        records = [self.record(number) for number in range(size)]
        self.sent += records
        assert take_in(self.usage_event, *records).accepted == size

    def replay(self) -> None:
        known = self.chance.sample(self.sent, min(len(self.sent), 20))
        fresh = [self.record(number) for number in range(self.chance.randrange(3))]
        mixed = [record for record in known if "id" in record] + fresh
        self.chance.shuffle(mixed)
        self.sent += fresh
        if mixed:
            result = take_in(self.usage_event, *mixed)
            assert (result.accepted, result.duplicates) == (len(fresh), len(mixed) - len(fresh))

    def correct(self) -> None:
        record = self.any_record(voided=False)
        if record is not None:
            correct_record(
                record.pk,
                customer_id=self.chance.choice([None, *CUSTOMERS, "cus_new"]),
                timestamp=self.chance.choice([None, self.moment()]),
                data={"cpu_usage_hours": self.amount(), "region": "corrected"},
                revision=record.revision,
                reason="oracle",
                actor=ACTOR,
            )

    def void(self) -> None:
        self.for_some_records(void_records, voided=False)

    def restore(self) -> None:
        self.for_some_records(restore_records, voided=True)

    def fold(self) -> None:
        assert fold(self.usage_event.pk) is not None

    def activate_late_metric(self) -> None:
        metric = Metric(
            organisation=self.usage_event.organisation,
            usage_event=self.usage_event,
            code="late",
            name="late",
            aggregation="sum",
            property="cpu_usage_hours_per_month",
        )
        save_metric(metric)
        activate_metric(metric.pk)
        assert build(metric.pk)
        self.metrics.append(metric)

    def check_one_answer(self) -> None:
        start = START + timedelta(minutes=self.chance.choice([0, 60, 61, 1_441, 2_000]))
        end = start + timedelta(minutes=self.chance.choice([1, 59, 60, 1_440, 3_007, 5_000]))
        metric = self.chance.choice(self.metrics)
        question = Question(
            start=start,
            end=end,
            window=self.chance.choice(list(Window)),
            zone=ZoneInfo(self.chance.choice(ZONES)),
            customer_ids=(),
        )
        answer = quantities(metric.organisation_id, metric.code, question)
        for row in answer.rows:
            expected = expected_quantity(metric, row.customer_id, row.start, row.end)
            assert (row.quantity, row.record_count) == expected, (question, row)
        counted = sum(row.record_count for row in answer.rows)
        assert (
            counted
            == UsageRecord.objects.filter(
                usage_event=self.usage_event, voided_at=None, timestamp__gte=start, timestamp__lt=end
            ).count()
        )

    # --- what the deeds are made of ---------------------------------------------------------------------------------

    def record(self, number: int) -> dict[str, Any]:
        data: dict[str, Any] = {"region": self.chance.choice(["eu", "us"])}
        if self.chance.random() < 0.9:
            data["cpu_usage_hours"] = self.amount()
        if self.chance.random() < 0.3:
            data["cpu_usage_hours_per_month"] = self.amount()
        record = {"customer_id": self.chance.choice(CUSTOMERS), "timestamp": self.moment().isoformat(), "data": data}
        return record | ({"id": f"{len(self.sent)}-{number}"} if self.chance.random() < 0.7 else {})

    def moment(self) -> datetime:
        # Edges of hours are where windows go wrong.
        hour = START + timedelta(hours=self.chance.randrange(HOURS))
        inside = timedelta(seconds=self.chance.random() * 3600)
        return hour + self.chance.choice([timedelta(0), timedelta(microseconds=-1), timedelta(minutes=30), inside])

    def amount(self) -> Decimal:
        return Decimal(self.chance.randrange(-(10**9), 10**12)).scaleb(-self.chance.randrange(0, 12))

    def any_record(self, *, voided: bool) -> UsageRecord | None:
        records = UsageRecord.objects.filter(usage_event=self.usage_event, voided_at__isnull=not voided).order_by("id")
        count = records.count()
        return records[self.chance.randrange(count)] if count else None

    def for_some_records(self, act: Any, *, voided: bool) -> None:
        records = UsageRecord.objects.filter(usage_event=self.usage_event, voided_at__isnull=not voided).order_by("id")
        ids = list(records.values_list("id", flat=True))
        chosen = self.chance.sample(ids, min(len(ids), self.chance.randrange(1, 8)))
        assert act(self.usage_event.pk, chosen, reason="oracle", actor=ACTOR) == len(chosen)
