"""Bars 13 to 15: corrections, and what reading from aggregates saves."""

import itertools
import statistics
import time
from datetime import timedelta
from decimal import Decimal

from django.db import connection, transaction

from customers.exactjson import dumps
from metrics.materialization import fold
from metrics.models import Metric
from metrics.periods import Window
from metrics.quantities import preview, quantities
from metrics.questions import Question
from tests.benchmarks.measuring import AT_LEAST, AT_MOST, Report, ratio, seconds, side_by_side
from tests.benchmarks.scene import DAYS, START, Scene
from usage.bodies import split_body
from usage.correction_sql import announce
from usage.corrections import Actor, correct_record
from usage.definitions import define
from usage.ingestion import Source, ingest
from usage.models import IngestBatch, UsageRecord

MONTH = (START, START + timedelta(days=DAYS))
ACTOR = Actor(None, "benchmark")


def measure(report: Report, scene: Scene, large: Metric) -> None:
    """Measure the bars of reading, on a metric over a large history (5M records)."""
    from_aggregates(report, scene, large)
    pending_batches(report, scene, large)
    corrections(report, scene, large)


def by_the_hour(customer: str) -> Question:
    return Question(start=MONTH[0], end=MONTH[1], window=Window.HOUR, customer_ids=[customer])


def from_aggregates(report: Report, scene: Scene, metric: Metric) -> None:
    """A customer's month by the hour: from aggregates, and from the records themselves."""
    fold(metric.usage_event_id or 0)
    for number, name, customer, bar in (
        ("14a", "heavy", "cus_00000", 40),
        ("14b", "median", median_customer(scene, metric), 6),
    ):
        question = by_the_hour(customer)
        taken = side_by_side(
            {
                "aggregates": lambda question=question: quantities(scene.organisation.pk, metric.code, question),  # type: ignore[misc]
                "raw": lambda question=question: preview(metric, question),  # type: ignore[misc]
            }
        )
        measured = ratio(taken["raw"], taken["aggregates"]) if not report.quick else None
        report.add(number, f"month by the hour, {name} customer: records / aggregates", measured, AT_LEAST, bar)


def median_customer(scene: Scene, metric: Metric) -> str:
    """Return the customer with as many records as half of the others at most have."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT customer_id FROM usage_usagerecord WHERE usage_event_id = %s
            GROUP BY customer_id ORDER BY count(*), customer_id OFFSET %s LIMIT 1
            """,
            [metric.usage_event_id, len(scene.customer_ids) // 2],
        )
        (customer_id,) = cursor.fetchone()
    return next(name for name, pk in scene.customer_ids.items() if pk == customer_id)


def pending_batches(report: Report, scene: Scene, metric: Metric) -> None:
    """That read with a hundred batches that no fold has claimed, against none."""
    assert metric.usage_event is not None
    question = by_the_hour("cus_00000")

    def read() -> float:
        quantities(scene.organisation.pk, metric.code, question)
        return statistics.median(
            seconds(lambda: quantities(scene.organisation.pk, metric.code, question)) for _ in range(5)
        )

    none, hundred = [], []
    for _ in range(5):
        fold(metric.usage_event.pk)
        none.append(read())
        for _ in range(100):
            submission = split_body(dumps(scene.records(10)).encode(), max_records=10)
            ingest(define(metric.usage_event), submission, source=Source(IngestBatch.Source.API))
        hundred.append(read())
    report.add("15", "that read with 100 pending batches / with none", ratio(hundred, none), AT_MOST, 3)
    fold(metric.usage_event.pk)


def corrections(report: Report, scene: Scene, metric: Metric) -> None:
    """One record corrected by the act, against one bare UPDATE; and the quantity right after."""
    assert metric.usage_event is not None
    count = 20 if report.quick else 50
    customer_id = scene.customer_ids["cus_00000"]
    records = UsageRecord.objects.filter(usage_event=metric.usage_event, customer_id=customer_id).order_by("timestamp")
    ids = itertools.cycle(list(records.values_list("pk", flat=True)[: 40 * count]))
    values = itertools.count(1)

    def correct() -> None:
        for _ in range(count):
            data = {"value": Decimal(next(values)) / 4}
            correct_record(next(ids), data=data, revision=1, reason="benchmark", actor=ACTOR)

    def update() -> None:
        for _ in range(count):
            with transaction.atomic(), connection.cursor() as cursor:
                announce(cursor, "benchmark")
                data = dumps({"value": Decimal(next(values)) / 4})
                cursor.execute("UPDATE usage_usagerecord SET data = %s::jsonb WHERE id = %s", [data, next(ids)])

    taken = side_by_side({"correct": correct, "update": update})
    report.add("13a", "correction of one record / plain UPDATE", ratio(taken["correct"], taken["update"]), AT_MOST, 1.5)
    report.add("13b", "the quantity right after", right_after(scene, metric, next(ids)) * 1000, AT_MOST, 10, " ms")


def right_after(scene: Scene, metric: Metric, record_id: int) -> float:
    """Return the median seconds of reading the month after a correction that no fold has seen; it must show."""
    question = Question(start=MONTH[0], end=MONTH[1], customer_ids=["cus_00000"])
    first = UsageRecord.objects.get(pk=record_id)
    reads, before = [], None
    for number in range(9):
        fold(metric.usage_event_id or 0)
        data = {"value": Decimal(10_000 * (number + 1))}
        correct_record(record_id, data=data, revision=first.revision + number, reason="benchmark", actor=ACTOR)
        started = time.perf_counter()
        (line,) = quantities(scene.organisation.pk, metric.code, question).rows
        reads.append(time.perf_counter() - started)
        assert before is None or line.quantity == before + 10_000, (line, before)
        before = line.quantity
    return statistics.median(reads)
