"""The worker's connections: kept from task to task, and replaced when the server ended them."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
from django.db import connection

from metrics import tasks
from metrics.models import Metric
from tests.conftest import environment_of_the_tests, record, take_in
from usage.models import PendingBatch, UsageEvent

PATIENCE = 60


@pytest.fixture
def queue() -> Iterator[str]:
    """A queue of its own with a worker of one thread, whose sessions go by the queue's name."""
    name = f"test-{uuid.uuid4().hex}"
    command = [sys.executable, "-m", "celery", "--quiet", "--app", "config", "worker", "--queues", name]
    command += ["--pool", "threads", "--concurrency", "1", "--loglevel", "WARNING", "--without-gossip"]
    environment = environment_of_the_tests() | {"PGAPPNAME": name, "LOG_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
    worker = subprocess.Popen([*command, "--without-mingle"], env=environment, stdout=subprocess.DEVNULL)
    yield name
    worker.terminate()
    try:
        worker.wait(PATIENCE)
    finally:
        worker.kill()


def sessions(name: str) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [name])
        return [pid for (pid,) in cursor.fetchall()]


def fold_by_worker(usage_event: UsageEvent, queue: str) -> list[int]:
    """Store a record, let the worker fold it, and return its sessions after that."""
    take_in(usage_event, record())
    tasks.fold_usage_event.apply_async([usage_event.pk], queue=queue)
    deadline = time.monotonic() + PATIENCE
    while PendingBatch.objects.exists():
        assert time.monotonic() < deadline, "the worker did not fold"
        time.sleep(0.05)
    return sessions(queue)


def test_a_worker_keeps_its_session_from_task_to_task_until_the_server_ends_it(
    compute: UsageEvent, cpu_hours: Metric, queue: str
) -> None:
    first = fold_by_worker(compute, queue)
    assert len(first) == 1
    for _ in range(3):
        assert fold_by_worker(compute, queue) == first

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", first)
    second = fold_by_worker(compute, queue)

    assert len(second) == 1
    assert second != first
    assert cpu_hours.aggregates.get().record_count == 5
