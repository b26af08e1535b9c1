"""Bars 7 to 10 and 12: what keeping aggregates costs, beside computing them anew, ingesting, and each other."""

import contextlib
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from django.db import connection
from psycopg import sql as psycopg_sql

from customers.exactjson import dumps
from metrics import sql
from metrics.materialization import fold
from metrics.models import Metric
from metrics.parameters import Parameters
from metrics.snapshots import snapshot
from tests.benchmarks.measuring import (
    AT_LEAST,
    AT_MOST,
    Report,
    Work,
    ratio,
    seconds,
    settle,
)
from tests.benchmarks.scene import START, Scene
from usage.bodies import split_body
from usage.definitions import define
from usage.ingestion import Source, ingest
from usage.models import IngestBatch, PendingBatch, UsageEvent
from usage.timestamps import FIRST_MOMENT

BATCH = 10_000


def measure(report: Report, scene: Scene, large: Metric, small: Metric) -> None:
    """Measure the bars of folding, on metrics over a large history (5M records) and a smaller one (1M).

    The fewer records, the more of a fold is what each customer-hour costs: a quick run folds 20,000 and does not judge
    what that comes to.
    """
    new = 20_000 if report.quick else 100_000
    sizes = f"{new:,} new records"
    on_large, *others = times(scene, [large] if report.quick else [large, small], new)
    on_small = others[0] if others else on_large

    def add(number: str, what: str, measured: float, bar: float) -> None:
        report.add(number, what, None if report.quick else measured, AT_MOST, bar)

    add("7a", f"fold of {sizes} on 5M / full recompute", on_large["fold"] / on_large["recompute"], 1 / 30)
    add("7b", f"fold of {sizes} on 1M / full recompute", on_small["fold"] / on_small["recompute"], 1 / 15)
    add("8a", "that fold / ingesting the same records", on_large["fold"] / on_large["ingest"], 0.12)
    add("8b", "that fold on 5M / on 1M", on_large["fold"] / on_small["fold"], 1.3)
    add("9", "fold for ten metrics / for one", ten_metrics(scene, new), 7)
    hot_hour(report, scene)
    two_workers(report, scene)


def times(scene: Scene, metrics: Sequence[Metric], new: int, recomputes: int = 3) -> list[dict[str, float]]:
    """Return by metric the median seconds of ingesting new records, folding them, and computing all aggregates anew."""
    usage_events = [metric.usage_event for metric in metrics if metric.usage_event]
    measured = []
    for metric, (ingests, folds) in zip(metrics, side_by_side_folds(scene, usage_events, new, 5), strict=True):
        seconds_of = {way: seconds(partial(recompute, metric, way)) for way in WAYS}
        best = min(seconds_of, key=seconds_of.__getitem__)
        anew = [seconds(partial(recompute, metric, best)) for _ in range(recomputes)]
        taken = {"ingest": ingests, "fold": folds, "recompute": anew}
        measured.append({name: statistics.median(values) for name, values in taken.items()})
    return measured


def side_by_side_folds(
    scene: Scene, usage_events: Sequence[UsageEvent], new: int, rounds: int
) -> list[tuple[list[float], list[float]]]:
    """Return the seconds of ingesting new records and of folding them, round by round, for each usage event.

    All records of a round are there before its folds, which follow each other at once, in turn forwards and backwards.
    """
    taken: list[tuple[list[float], list[float]]] = [([], []) for _ in usage_events]
    for number in range(rounds + 1):
        both = list(zip(usage_events, taken, strict=True))[:: 1 if number % 2 else -1]
        ingested = [take_in(scene, usage_event, new if number else BATCH) for usage_event, _ in both]
        folded = [seconds(partial(fold, usage_event.pk)) for usage_event, _ in both]
        if number:
            for (_, (ingests, folds)), ingest_took, fold_took in zip(both, ingested, folded, strict=True):
                ingests.append(ingest_took)
                folds.append(fold_took)
    return taken


def take_in(scene: Scene, usage_event: UsageEvent, count: int) -> float:
    """Ingest new records in batches of 10,000, as a request would; return the seconds."""
    definition, source = define(usage_event), Source(IngestBatch.Source.API)
    texts = [dumps(scene.records(min(BATCH, count))).encode() for _ in range(max(1, count // BATCH))]
    started = time.perf_counter()
    for text in texts:
        ingest(definition, split_body(text, max_records=BATCH), source=source)
    return time.perf_counter() - started


class _ThrownAway(Exception):
    """Rolls back what was computed."""


WAYS = {"table": ("on", "off"), "index": ("off", "on")}  # whether the planner may read the table, or go by an index


def recompute(metric: Metric, way: str) -> None:
    """Compute the aggregates of all records anew, as it would be without folds; the result is thrown away."""
    everything = psycopg_sql.SQL("true")
    with contextlib.suppress(_ThrownAway), snapshot() as cursor:
        sql.forget_stretch(cursor, metric, (0, FIRST_MOMENT), None)
        by_table, by_index = WAYS[way]
        cursor.execute(
            "SELECT set_config('enable_seqscan', %s, true), set_config('enable_indexscan', %s, true),"
            " set_config('enable_bitmapscan', %s, true)",
            [by_table, by_index, by_index],
        )
        for table in sql.stored_tables(metric):
            parameters = Parameters(usage_event_id=metric.usage_event_id, metric_id=metric.pk)
            states = sql.states_of_records(metric, table, parameters, everything)
            insert = psycopg_sql.SQL("INSERT INTO {} ({}, {}) {}")
            key = psycopg_sql.SQL(sql.AGGREGATES_KEY)
            cursor.execute(insert.format(table.name, key, table.names, states), parameters)
        raise _ThrownAway


def ten_metrics(scene: Scene, new: int) -> float:
    """Return how often the seconds of a fold for one metric go into those for ten of all kinds on one usage event."""
    one, ten = scene.usage_event("one_metric"), scene.usage_event("ten_metrics")
    scene.metric(one, "one")
    for number in range(8):
        aggregation = ("sum", "count", "avg", "max")[number % 4]
        formula = {"aggregation": aggregation, **({} if aggregation == "count" else {"property": "value"})}
        scene.metric(ten, f"of_ten_{number}", **formula)
    scene.metric(ten, "by_region", aggregation="sum", property="value", group_by=["region"])
    filters = {"all": [{"property": "region", "operator": "eq", "value": "us-east"}]}
    scene.metric(ten, "filtered", aggregation="sum", property="value", filters=filters)
    (_, folds_for_one), (_, folds_for_ten) = side_by_side_folds(scene, (one, ten), new, 9)
    return ratio(folds_for_ten, folds_for_one)


def hot_hour(report: Report, scene: Scene) -> None:
    """One customer's hour with half a million records, and a thousand more."""
    usage_event = scene.usage_event("hot_hour")
    metric = scene.metric(usage_event, "hot")
    many = 50_000 if report.quick else 500_000
    customer_id = scene.customer_ids["cus_00000"]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO usage_usagerecord (id, usage_event_id, customer_id, timestamp, data, batch_id,
                                           schema_version, received_at, revision)
            SELECT nextval('usage_usagerecord_id_seq'), %s, %s, %s + n * interval '5 milliseconds',
                   jsonb_build_object('value', n %% 1000), 0, 1, now(), 1 FROM generate_series(1, %s) AS n
            """,
            [usage_event.pk, customer_id, START, many],
        )
        cursor.execute("ANALYZE usage_usagerecord")
    with snapshot() as cursor:
        sql.rebuild_windows(cursor, metric, [(customer_id, START)])
    folds, recomputes = [], []
    for _ in range(5):
        records = scene.records(1_000)
        for number, record in enumerate(records):
            record["customer_id"] = "cus_00000"
            record["timestamp"] = (START + timedelta(milliseconds=number)).isoformat()
        submission = split_body(dumps(records).encode(), max_records=1_000)
        ingest(define(usage_event), submission, source=Source(IngestBatch.Source.API))
        folds.append(seconds(lambda: fold(usage_event.pk)))
        recomputes.append(seconds(lambda: recompute_hour(metric, customer_id)))
    measured = ratio(folds, recomputes) if not report.quick else None
    report.add("10", "an hour of 500,000, 1,000 more: fold / recompute of the hour", measured, AT_MOST, 1 / 50)


def recompute_hour(metric: Metric, customer_id: int) -> None:
    """Compute the hour anew, as a correction in it would."""
    with snapshot() as cursor:
        sql.rebuild_windows(cursor, metric, [(customer_id, START)])


def two_workers(report: Report, scene: Scene) -> None:
    """Two usage events, folded by one worker one after the other, and two more by two workers at the same time.

    The sides of a comparison follow each other at once: what a machine gives changes within seconds. Which side comes
    first alternates, and so does which pair is folded in which way. The same batches are pending anew in each round: a
    fold does not know that it counts them once more. Beside it, what the two sessions gain when they only compute.
    """
    new, rounds = (20_000, 15) if report.quick else (100_000, 31)
    usage_events = [scene.usage_event(f"worker_{number}") for number in range(4)]
    for usage_event in usage_events:
        scene.metric(usage_event, f"m_{usage_event.slug}")
        take_in(scene, usage_event, new)
    batches = list(PendingBatch.objects.filter(usage_event__in=usage_events))
    settle()
    first, second = (ThreadPoolExecutor(1) for _ in range(2))  # each keeps its connection, as a worker does
    folding, computing = [], []
    pairs = [[partial(fold, one.pk) for one in pair] for pair in (usage_events[:2], usage_events[2:])]
    for number in range(rounds + 1):
        PendingBatch.objects.bulk_create(batches, ignore_conflicts=True)
        works = pairs[:: -1 if number // 2 % 2 else 1]
        gains = [gain(first, second, side, backwards=bool(number % 2)) for side in (works, [[only_compute] * 2] * 2)]
        if number:
            folding.append(gains[0])
            computing.append(gains[1])
    for worker in (first, second):
        worker.submit(lambda: connection.close()).result()
        worker.shutdown()
    report.figures["two sessions that only compute, in the rounds of bar 12"] = round(statistics.median(computing), 2)
    report.add("12", "two usage events folded by two workers / by one", statistics.median(folding), AT_LEAST, 1.6)


def gain(first: Executor, second: Executor, works: Sequence[Sequence[Work]], *, backwards: bool) -> float:
    """Return how much faster two workers do two works than one worker does two such works one after the other.

    Before each of them both cores are at work for a while: one that has just woken may be slow for a fifth of a second.
    """
    awake = partial(only_compute, 3_000_000)
    ways = list(zip(((first, first), (first, second)), works, strict=True))
    took = []
    for workers, two_works in ways[::-1] if backwards else ways:
        do_all((first, second), (awake, awake))
        took.append(seconds(partial(do_all, workers, two_works)))
    in_turn, at_once = took[::-1] if backwards else took
    return in_turn / at_once


def do_all(workers: Sequence[Executor], works: Sequence[Work]) -> None:
    for running_one in [worker.submit(work) for worker, work in zip(workers, works, strict=True)]:
        running_one.result()


def only_compute(numbers: int = 1_000_000) -> None:
    """Keep a session at work, by itself for about as long as a fold, with nothing that it shares with others."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(n * 2.5) FROM (SELECT generate_series(1, %s) AS n) AS numbers", [numbers])
