"""The scene of the benchmark: an organisation, usage events, records that are ready to be sent, large tables."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from django.db import connection

from config.embedded_valkey import free_port
from customers.exactjson import dumps
from customers.keys import issue_api_key
from customers.models import Customer, Organisation, Scope
from metrics.definitions import activate_metric, save_metric
from metrics.materialization import build
from metrics.models import Metric
from tests.benchmarks.baseline.views import SCHEMA
from tests.benchmarks.clients import WORKERS, Connection, request
from tests.benchmarks.measuring import told
from usage.copying import CopyColumns, copy_bytes
from usage.definitions import create_usage_event
from usage.models import UsageEvent

CUSTOMERS = 2_000
START = datetime(2025, 6, 1, tzinfo=UTC)
DAYS = 30
BETWEEN = timedelta(milliseconds=40)  # two records: 100,000 of them make a little more than an hour
DAY = timedelta(days=1) // BETWEEN
REGIONS = ("eu-central", "us-east", "ap-south")
_CELERY = [sys.executable, "-m", "celery", "--quiet", "--app", "config"]
WORKER = [*_CELERY, "worker", "--queues", "fold,celery", "--pool", "threads", "--concurrency", "4", "--loglevel",
          "WARNING", "--without-gossip", "--without-mingle"]  # fmt: skip
BEAT = [*_CELERY, "beat", "--scheduler", "config.beat:MemoryScheduler", "--loglevel", "WARNING"]
_numbers = itertools.count(1)


def key(number: int) -> str:
    """Return an identity as UUIDv7 gives them: ordered by time, then random."""
    tail = f"{random.getrandbits(80):020x}"
    return f"{number:08x}-{tail[:4]}-7{tail[4:7]}-8{tail[7:10]}-{tail[8:20]}"


@dataclass
class Scene:
    """What the measurements share."""

    organisation: Organisation
    headers: dict[str, str]
    customer_ids: dict[str, int]

    @classmethod
    def set(cls) -> "Scene":
        """Make the organisation, its key, and its customers."""
        organisation = Organisation.objects.create(name="Benchmark", timezone="UTC")
        _, secret = issue_api_key(organisation, "benchmark", list(Scope))
        Customer.objects.bulk_create(
            Customer(organisation=organisation, external_id=f"cus_{n:05d}") for n in range(CUSTOMERS)
        )
        ids = dict(Customer.objects.filter(organisation=organisation).values_list("external_id", "pk"))
        return cls(organisation, {"organisation": str(organisation.key), "x-api-key": secret}, ids)

    def usage_event(self, slug: str) -> UsageEvent:
        return create_usage_event(self.organisation, name=slug, slug=slug, schema=SCHEMA)

    def metric(self, usage_event: UsageEvent, code: str, **definition: Any) -> Metric:
        """Define a metric (a sum of `value` if nothing else is said) and build it."""
        formula = definition or {"aggregation": "sum", "property": "value"}
        metric = save_metric(
            Metric(organisation=self.organisation, usage_event=usage_event, code=code, name=code, **formula)
        )
        activate_metric(metric.pk)
        assert build(metric.pk)
        metric.refresh_from_db()
        return metric

    # --- records that are ready to be sent ----------------------------------------------------------------------------

    def records(self, count: int) -> list[dict[str, Any]]:
        """Return new records, with identities, of all customers in turn; their timestamps go on with time."""
        made = []
        for _ in range(count):
            number = next(_numbers)
            made.append(
                {
                    "id": key(number),
                    "customer_id": f"cus_{number * 7919 % CUSTOMERS:05d}",
                    "timestamp": (START + number % (DAYS * DAY) * BETWEEN).isoformat(),
                    "data": {
                        "value": number % 1000 / 8,
                        "region": REGIONS[number % 3],
                        "endpoint": f"/v1/{number % 40}",
                    },
                }
            )
        return made

    def post(self, usage_event: UsageEvent, records: list[dict[str, Any]]) -> bytes:
        """Return a request with records, one of them as a single object."""
        body = dumps(records if len(records) > 1 else records[0]).encode()
        return request(f"/usage/{usage_event.slug}", body, self.headers)

    def posts(self, usage_event: UsageEvent, batches: int, size: int) -> list[bytes]:
        return [self.post(usage_event, self.records(size)) for _ in range(batches)]

    def copies(self, usage_event: UsageEvent, batches: int, size: int) -> list[bytes]:
        """Return batches as bare COPY streams for the same table, in the order of their keys."""
        streams = []
        for _ in range(batches):
            records = self.records(size)
            columns = CopyColumns(
                allot(size),
                [self.customer_ids[record["customer_id"]] for record in records],
                [datetime.fromisoformat(record["timestamp"]) for record in records],
                [record["id"] for record in records],
                [dumps(record["data"]).encode() for record in records],
            )
            streams.append(
                copy_bytes(columns, usage_event_id=usage_event.pk, batch_id=1, schema_version=1, received_at=START)
            )
        return streams

    def history(self, slug: str, count: int) -> Metric:
        """Return a metric (the sum of `value`) over a usage event with so many records, built and up to date."""
        usage_event = self.usage_event(slug)
        with told(f"a history of {count:,} records"):
            self.fill(usage_event, count)
            return self.metric(usage_event, slug)

    # --- large tables -------------------------------------------------------------------------------------------------

    def fill(self, usage_event: UsageEvent, count: int) -> None:
        """Store a history of records, as if ingested and folded long ago; a tenth of it is one heavy customer's."""
        first = min(self.customer_ids.values())
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO usage_usagerecord (id, usage_event_id, customer_id, timestamp, idempotency_key, data,
                                               batch_id, schema_version, received_at, revision)
                SELECT nextval('usage_usagerecord_id_seq'), %(usage_event_id)s,
                       %(first)s + CASE WHEN n %% 10 = 0 THEN 0
                                        ELSE floor(%(customers)s * power(random(), 2))::int END,
                       %(start)s::timestamptz + n * (interval '30 days' / %(count)s),
                       to_hex(n) || md5(n::text),
                       jsonb_build_object('value', (n %% 1000) / 8.0, 'region', 'eu-central',
                                          'endpoint', '/v1/' || n %% 40),
                       -1 - n / 10000, 1, %(start)s, 1
                FROM generate_series(1, %(count)s) AS n
                """,
                {
                    "usage_event_id": usage_event.pk,
                    "first": first,
                    "customers": CUSTOMERS - 1,
                    "start": START,
                    "count": count,
                },
            )
            cursor.execute("ANALYZE usage_usagerecord")


def allot(count: int) -> list[int]:
    """Take record ids from the sequence."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('usage_usagerecord_id_seq') FROM generate_series(1, %s)", [count])
        return [row[0] for row in cursor.fetchall()]


# --- processes -------------------------------------------------------------------------------------------------------


@contextmanager
def web(application: str = "config.wsgi:application", **environment: str) -> Iterator[tuple[int, psutil.Process]]:
    """Serve an application as `make run` does; gives its port and its process."""
    port = free_port()
    command = [
        sys.executable, "-m", "granian", "--interface", "wsgi", application, "--host", "127.0.0.1",
        "--port", str(port), "--workers", str(WORKERS), "--blocking-threads", "4", "--workers-kill-timeout", "10s",
        "--no-ws", "--log-level", "warning",
    ]  # fmt: skip
    with running(command, **environment) as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                Connection(port).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield port, psutil.Process(process.pid)


@contextmanager
def running(command: list[str], **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until the end of the context; with it end the processes that it started."""
    ours = {"LOG_LEVEL": "WARNING", "DJANGO_SETTINGS_MODULE": "config.settings", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, env={**os.environ, **ours, **environment}, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in psutil.wait_procs(family, timeout=5)[1]:
            child.kill()


@contextmanager
def stopped(*processes: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Have processes stand still until the end of the context."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time, user and system, of a process and its children so far."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        times = one.cpu_times()
        total += times.user + times.system
    return total


def resident_mb(process: psutil.Process) -> float:
    """Return the resident memory of the largest process among a process and its children, in MB."""
    return max(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 1_000_000
