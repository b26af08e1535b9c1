"""Bars 1 to 6, 16 and 17: what ingestion costs beside the least that it could cost, and beside the usual way."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import psycopg
from django.db import connection
from psutil import Process

from customers.exactjson import dumps
from tests.benchmarks.clients import connections, request, send_all
from tests.benchmarks.measuring import AT_LEAST, AT_MOST, ROUNDS, Report, ratio, side_by_side
from tests.benchmarks.scene import START, Scene, allot, cpu_seconds, web
from usage import sql, storage
from usage.bodies import split_body
from usage.definitions import define
from usage.ingestion import Source, ingest
from usage.models import IngestBatch, UsageEvent

BASELINE = "tests.benchmarks.baseline.wsgi:application"
COPY = f"COPY usage_usagerecord ({sql.COPY_COLUMNS}) FROM STDIN (FORMAT binary)"


def measure(report: Report, scene: Scene) -> None:
    """Measure the bars of ingestion."""
    taken = AgainstCopy(scene)
    with web() as (port, process):
        taken.more(port, process)
        with web(BASELINE, BASELINE_CONN_MAX_AGE="3600") as (bare_port, bare):
            single_posts(report, scene, port, process, bare_port, bare)
        with web(BASELINE) as (plain_port, plain):
            against_the_usual_way(report, scene, port, process, plain_port, plain)
        half_duplicates(report, scene, port, process)
        taken.more(port, process)
    taken.tell(report)
    cost_of_receipts(report, scene)


class AgainstCopy:
    """Bars 1 to 3 and 5: short rounds and many of them, some early and some late.

    Whatever else the machine does then hits both sides alike, and no bad quarter of a minute decides alone.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.usage_event = scene.usage_event("against_copy")
        self.seconds: dict[str, dict[str, list[float]]] = {}
        self.cpu: list[float] = []
        self.reading_json: list[float] = []

    def more(self, port: int, process: Process) -> None:
        """Run half of the rounds."""
        for name, size, batches, rounds, clients in (
            ("1,000", 1_000, 2, 16, 1), ("10,000", 10_000, 1, 5, 1), ("100", 100, 10, 16, 1), ("two", 1_000, 4, 11, 2),
        ):  # fmt: skip
            taken = posts_and_copies(self.scene, self.usage_event, port, process, batches, size, rounds, clients)
            together = self.seconds.setdefault(name, {})
            for variant, seconds in taken.items():
                together[variant] = together.get(variant, []) + seconds
        with connections(port, 1, process) as open_ones:
            for _ in range(6):
                posts = self.scene.posts(self.usage_event, 20, 1_000)
                before = cpu_seconds(process)
                send_all(open_ones, posts)
                self.cpu.append((cpu_seconds(process) - before) / (len(posts) * 1_000) * 1_000_000)
                before = time.process_time()
                for post in posts:
                    json.loads(post.partition(b"\r\n\r\n")[2])
                self.reading_json.append((time.process_time() - before) / (len(posts) * 1_000) * 1_000_000)

    def tell(self, report: Report) -> None:
        """Report the medians of all rounds."""
        for number, size, bar in (("1", "1,000", 0.50), ("3a", "10,000", 0.55), ("3b", "100", 0.35)):
            taken = self.seconds[size]
            name = f"HTTP, batches of {size}, one client / COPY on one connection"
            report.add(number, name, ratio(taken["copy"], taken["http"]), AT_LEAST, bar)
        two = self.seconds["two"]
        name = "HTTP, batches of 1,000, two clients / one COPY"
        report.add("2a", name, ratio(two["copy"], two["http"]), AT_LEAST, 0.85)
        report.add("2b", "… / two COPY connections", ratio(two["two copies"], two["http"]), AT_LEAST, 0.50)
        report.figures["two COPY connections / one: what the machine gives"] = round(
            ratio(two["copy"], two["two copies"]), 2
        )
        report.add("5", "Python CPU a record, batches of 1,000", statistics.median(self.cpu), AT_MOST, 6, " µs")
        report.figures["µs of a record for json.loads alone, in the rounds of bar 5"] = round(
            statistics.median(self.reading_json), 2
        )


def posts_and_copies(
    scene: Scene,
    usage_event: UsageEvent,
    port: int,
    process: Process,
    batches: int,
    size: int,
    rounds: int,
    clients: int,
) -> dict[str, list[float]]:
    """Time the same number of batches over HTTP, by one bare COPY, and (for two clients) by two at once."""
    posts = supply(lambda: scene.posts(usage_event, batches, size), rounds + 1)
    streams = supply(lambda: scene.copies(usage_event, batches, size), (rounds + 1) * clients)
    with ExitStack() as stack:
        open_ones = stack.enter_context(connections(port, clients, process))
        copiers = [stack.enter_context(copier()) for _ in range(2)]
        variants: dict[str, Callable[[], object]] = {
            "http": lambda: send_all(open_ones, next(posts)),
            "copy": lambda: send_all(copiers[:1], next(streams)),
        }
        if clients == 2:
            variants["two copies"] = lambda: send_all(copiers, next(streams))
        return side_by_side(variants, rounds)


def supply(make: Callable[[], list[bytes]], rounds: int = ROUNDS + 1) -> Iterator[list[bytes]]:
    """Make what the rounds will send before any of them begins."""
    return iter([make() for _ in range(rounds)])


class Copier:
    """A bare COPY into the table of records, committed each time: nothing could store them faster."""

    def __init__(self, conninfo: psycopg.Connection[Any]) -> None:
        self._connection = conninfo

    def send(self, stream: bytes) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.write(stream)


@contextmanager
def copier() -> Iterator[Any]:
    parameters = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name in ("host", "port", "user", "password", "dbname")
    }
    with psycopg.connect(**parameters) as opened:
        opened.autocommit = True
        yield Copier(opened)


def single_posts(
    report: Report, scene: Scene, port: int, process: Process, baseline_port: int, baseline: Process
) -> None:
    usage_event = scene.usage_event("single_posts")
    count, rounds = 200 if report.quick else 600, 15
    posts = supply(lambda: scene.posts(usage_event, count, 1), rounds + 1)
    bare = supply(lambda: baseline_posts(scene, "/bare", count, 1), rounds + 1)
    with connections(port, 8, process) as ours, connections(baseline_port, 8, baseline) as theirs:
        taken = side_by_side(
            {"ours": lambda: send_all(ours, next(posts)), "bare": lambda: send_all(theirs, next(bare))}, rounds
        )
    report.add(
        "4", "single posts, 8 connections / bare durable view", ratio(taken["bare"], taken["ours"]), AT_LEAST, 0.60
    )


def baseline_posts(scene: Scene, path: str, batches: int, size: int) -> list[bytes]:
    """Return the same records as the baseline's views take them."""
    made = []
    for _ in range(batches):
        rows = [
            {
                "id": record["id"],
                "usage_event_id": 1,
                "customer_id": scene.customer_ids[record["customer_id"]],
                "timestamp": record["timestamp"],
                "idempotency_key": record["id"],
                "data": record["data"],
            }
            for record in scene.records(size)
        ]
        made.append(request(path, dumps(rows if size > 1 else rows[0]).encode(), {}))
    return made


def against_the_usual_way(
    report: Report, scene: Scene, port: int, process: Process, baseline_port: int, baseline: Process
) -> None:
    usage_event = scene.usage_event("the_usual_way")
    batches = 1 if report.quick else 2
    posts = supply(lambda: scene.posts(usage_event, 10 * batches, 1_000))
    per_call = supply(lambda: baseline_posts(scene, "/per-call", batches, 1_000))
    cached = supply(lambda: baseline_posts(scene, "/cached", batches, 1_000))
    with connections(port, 1, process) as ours, connections(baseline_port, 1, baseline) as theirs:
        taken = side_by_side(
            {
                "ours": lambda: send_all(ours, next(posts)),
                "per call": lambda: send_all(theirs, next(per_call)),
                "cached": lambda: send_all(theirs, next(cached)),
            },
            rounds=5,
        )
        each = [seconds / 10 for seconds in taken["ours"]]
        report.add(
            "16a",
            "plain DRF, validator per call / ours, of 1,000",
            ratio(taken["per call"], each),
            AT_LEAST,
            40,
        )
        report.add("16b", "plain DRF, cached validator / ours", ratio(taken["cached"], each), AT_LEAST, 5)
        count = 80 if report.quick else 400
        singles = supply(lambda: scene.posts(usage_event, count, 1))
        usual = supply(lambda: baseline_posts(scene, "/per-call", count, 1))
        taken = side_by_side(
            {"ours": lambda: send_all(ours, next(singles)), "usual": lambda: send_all(theirs, next(usual))}, rounds=5
        )
    report.add("16c", "plain DRF / ours, single posts", ratio(taken["usual"], taken["ours"]), AT_LEAST, 5)


def half_duplicates(report: Report, scene: Scene, port: int, process: Process) -> None:
    """Each batch holds 500 records that are known and 500 that are not, against batches of 1,000 new ones."""
    new_event, half_event = scene.usage_event("all_new"), scene.usage_event("half_known")
    batches = 5 if report.quick else 10
    fresh = supply(lambda: scene.posts(new_event, batches, 1_000))
    known = [scene.records(500) for _ in range(batches)]
    half = supply(lambda: [scene.post(half_event, [*old, *scene.records(500)]) for old in known])
    with connections(port, 1, process) as ours:
        send_all(ours, [scene.post(half_event, old) for old in known])
        taken = side_by_side({"new": lambda: send_all(ours, next(fresh)), "half": lambda: send_all(ours, next(half))})
    report.add("17", "half duplicates / all new, batches of 1,000", ratio(taken["new"], taken["half"]), AT_LEAST, 0.9)


def cost_of_receipts(report: Report, scene: Scene) -> None:
    """The same act with and without its receipt and what folds live on; nothing else differs."""
    usage_event = scene.usage_event("receipts")
    batches, rounds = 2, 41 if report.quick else 121  # a small difference: many short rounds
    definition, source = define(usage_event), Source(IngestBatch.Source.API)

    def bodies() -> list[bytes]:
        return [dumps(scene.records(1_000)).encode() for _ in range(batches)]

    def ingest_all(texts: list[bytes]) -> None:
        for text in texts:
            ingest(definition, split_body(text, max_records=1_000), source=source)

    def without_receipt(cursor: Any, batch: dict[str, Any], records: int) -> Any:
        return 1, START, False, allot(records)

    def bare(texts: list[bytes]) -> None:
        with mock.patch.object(storage.sql, "open_batch", without_receipt):
            ingest_all(texts)

    with_it, without = supply(bodies, rounds + 1), supply(bodies, rounds + 1)
    taken = side_by_side({"with": lambda: ingest_all(next(with_it)), "without": lambda: bare(next(without))}, rounds)
    cost = statistics.median(a / b - 1 for a, b in zip(taken["with"], taken["without"], strict=True))
    report.add("6", "receipts and change capture, added to ingestion", cost * 100, AT_MOST, 15, " %")
