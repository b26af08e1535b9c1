"""Bar 11: what a live worker takes from ingestion, and how old a batch gets before it is folded."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from django.db import connection

from tests.benchmarks.clients import connections, send_all
from tests.benchmarks.folding import take_in
from tests.benchmarks.measuring import AT_LEAST, AT_MOST, Report, percentile_95, ratio, seconds, told
from tests.benchmarks.scene import BEAT, WORKER, Scene, running, stopped, web
from usage.models import UsageEvent


def measure(report: Report, scene: Scene) -> None:
    """Ingestion over HTTP beside a live worker and beat, against the same while both are stopped, round after round.

    Each side has begun before it is timed, so that folds are under way; how old the oldest batch gets is watched on
    both sides, as that costs something too.
    """
    usage_event = scene.usage_event("live")
    scene.metric(usage_event, "live")
    first, batches, rounds = (20, 40, 5) if report.quick else (50, 100, 9)
    seconds_of: dict[bool, list[float]] = {True: [], False: []}
    ages_of: dict[bool, list[float]] = {True: [], False: []}
    with web() as (port, process), connections(port, 1, process) as ours, told("a live worker"):
        with running(WORKER) as worker, running(BEAT) as beat:
            for number in range(rounds + 1):
                for live in (True, False) if number % 2 else (False, True):
                    beginning, posts = (scene.posts(usage_event, count, 1_000) for count in (first, batches))
                    wait_until_folded(usage_event, scene)
                    with nullcontext() if live else stopped(beat, worker):
                        send_all(ours, beginning)
                        with watched(usage_event.pk) as ages:
                            took = seconds(partial(send_all, ours, posts))
                    if number:
                        seconds_of[live].append(took)
                        ages_of[live] += ages
    report.add(
        "11a", "ingestion with a live worker / without", ratio(seconds_of[False], seconds_of[True]), AT_LEAST, 0.88
    )
    report.add(
        "11b", "age of the oldest unfolded batch, 95th percentile", percentile_95(ages_of[True]), AT_MOST, 1, " s"
    )


def wait_until_folded(usage_event: UsageEvent, scene: Scene) -> None:
    """Wait for the worker: it is up when it has folded a batch."""
    take_in(scene, usage_event, 10)
    deadline = time.monotonic() + 60
    while oldest_age(usage_event.pk) and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def watched(usage_event_id: int) -> Iterator[list[float]]:
    """Note the age of the oldest unfolded batch, twenty times a second; complete at the end of the context."""
    ages: list[float] = []
    stop = threading.Event()
    watcher = threading.Thread(target=watch_ages, args=[usage_event_id, stop, ages])
    watcher.start()
    try:
        yield ages
    finally:
        stop.set()
        watcher.join()


def watch_ages(usage_event_id: int, stop: threading.Event, ages: list[float]) -> None:
    try:
        while not stop.wait(0.05):
            ages.append(oldest_age(usage_event_id))
    finally:
        connection.close()


def oldest_age(usage_event_id: int) -> float:
    """Return the age of the oldest batch that no fold has claimed, in seconds; 0 if there is none."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT coalesce(extract(epoch FROM clock_timestamp() - min(batch.received_at)), 0)
            FROM usage_pendingbatch AS pending JOIN usage_ingestbatch AS batch ON batch.id = pending.batch_id
            WHERE pending.usage_event_id = %s
            """,
            [usage_event_id],
        )
        return float(cursor.fetchone()[0])
