"""Bars 13 to 15: corrections, and what reading from aggregates saves."""

import itertools
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db import connection, transaction

from customers.exactjson import dumps
from metrics.materialization import fold
from metrics.models import Metric
from metrics.periods import Window, window_edges
from metrics.quantities import quantities, reading_of
from metrics.questions import Question
from metrics.reading_sql import read_states
from metrics.snapshots import snapshot
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
    """A customer's month by the hour: from aggregates, and from the records themselves.

    What is timed is the statement that reads; what comes before and after it is the same for both. Each round asks
    about another customer, as different people do.
    """
    fold(metric.usage_event_id or 0)
    ranked = by_usage(metric)
    middle = len(ranked) // 2
    for number, name, customers, bar in (
        ("14a", "heavy", ranked[-1:] * 8, 40),
        ("14b", "median", ranked[middle - 10 : middle + 10], 6),
    ):
        shares = [reading_seconds(metric, customer_id) for customer_id in customers][1:]
        measured = statistics.median(raw / aggregates for aggregates, raw in shares) if not report.quick else None
        report.add(number, f"month by the hour, {name} customer: records / aggregates", measured, AT_LEAST, bar)
        report.figures[f"month by the hour, {name} customer, ms from aggregates, from records"] = [
            round(statistics.median(column) * 1000, 2) for column in zip(*shares, strict=True)
        ]


class Statements:
    """Adds up the seconds of the statements inside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._wrapper = connection.execute_wrapper(self._timed)

    def _timed(self, execute: Callable[..., Any], *statement: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute(*statement)
        finally:
            self.seconds += time.perf_counter() - started

    def __enter__(self) -> "Statements":
        self._wrapper.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._wrapper.__exit__(*raised)


def reading_seconds(metric: Metric, customer_id: int) -> tuple[float, float]:
    """Return the seconds of reading a customer's month by the hour from aggregates, and from records."""
    question = Question(start=MONTH[0], end=MONTH[1], window=Window.HOUR)
    edges = window_edges(question.start, question.end, question.window, question.zone)
    taken = []
    for from_records in (False, True):
        with snapshot(seconds=60) as cursor:
            reading = reading_of(cursor, metric, edges, from_records=from_records)
            with Statements() as statements:
                read_states(cursor, metric, reading, question, [customer_id], 10_000)
            taken.append(statements.seconds)
    return taken[0], taken[1]


def by_usage(metric: Metric) -> list[int]:
    """Return the customers of a metric, the one with the fewest records first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT customer_id FROM usage_usagerecord WHERE usage_event_id = %s GROUP BY 1 ORDER BY count(*), 1",
            [metric.usage_event_id],
        )
        return [customer_id for (customer_id,) in cursor.fetchall()]


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
    for number in range(51):
        fold(metric.usage_event_id or 0)
        data = {"value": Decimal(10_000 * (number + 1))}
        correct_record(record_id, data=data, revision=first.revision + number, reason="benchmark", actor=ACTOR)
        started = time.perf_counter()
        (line,) = quantities(scene.organisation.pk, metric.code, question).rows
        reads.append(time.perf_counter() - started)
        assert before is None or line.quantity == before + 10_000, (line, before)
        before = line.quantity
    return statistics.median(reads)


def corrected_seconds(metric: Metric, customer_id: int) -> float:
    """Return the median seconds of correcting one record."""
    records = UsageRecord.objects.filter(usage_event_id=metric.usage_event_id, customer_id=customer_id, revision=1)
    values = itertools.count(1)

    def correct(record_id: int) -> None:
        data = {"value": Decimal(next(values)) / 4}
        correct_record(record_id, data=data, revision=1, reason="benchmark", actor=ACTOR)

    ids = records.order_by("timestamp").values_list("pk", flat=True)[:20]
    return statistics.median(seconds(lambda: correct(record_id)) for record_id in list(ids))  # noqa: B023
