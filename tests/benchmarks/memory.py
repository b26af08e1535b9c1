"""Bar 19: the memory of a web process after many large batches, and of the worker while it folds a backlog."""

import time

import psutil

from tests.benchmarks.clients import connections, send_all
from tests.benchmarks.folding import take_in
from tests.benchmarks.live_worker import oldest_age
from tests.benchmarks.measuring import AT_MOST, Report, told
from tests.benchmarks.scene import BEAT, WORKER, Scene, resident_mb, running, web


def measure(report: Report, scene: Scene) -> None:
    """Measure both."""
    usage_event = scene.usage_event("memory")
    scene.metric(usage_event, "memory")
    batches = 20 if report.quick else 1_000
    posts = scene.posts(usage_event, 5, 10_000)
    # The same records again are duplicates: as much to parse and to check, and the disk stays small.
    new = [scene.posts(usage_event, 5, 10_000) for _ in range(max(1, batches // 50))]
    with web() as (port, process), connections(port, 2, process) as ours, told(f"{batches} batches of 10,000"):
        for number in range(batches // 5):
            send_all(ours, posts if number % 10 else new.pop())
        report.add(
            "19a",
            f"memory of a web process after {batches} batches of 10,000",
            resident_mb(process),
            AT_MOST,
            250,
            " MB",
        )

    backlog = 100_000 if report.quick else 1_000_000
    with told("a backlog"):
        take_in(scene, usage_event, backlog)
    most = 0.0
    with running(WORKER) as started, running(BEAT), told("the worker folds it"):
        deadline = time.monotonic() + 300
        while oldest_age(usage_event.pk) and time.monotonic() < deadline:
            most = max(most, resident_mb(psutil.Process(started.pid)))
            time.sleep(0.1)
        assert not oldest_age(usage_event.pk), "the backlog was not folded within five minutes"
    report.add("19b", f"memory of the worker while it folds {backlog:,} records", most, AT_MOST, 250, " MB")
