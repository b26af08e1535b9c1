"""Uploads under kill -9 at every step, and two workers at once: nothing counted twice, nothing lost."""

import csv
import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings as configured
from django.db import connection
from pytest_django import Settings

from tests.threads import run_together
from usage import upload_chunks
from usage.models import IngestBatch, RejectedRecord, Upload, UsageEvent, UsageRecord
from usage.upload_files import read_errors
from usage.upload_sql import working_on
from usage.uploads import ingest_upload, stage_upload, start_upload

ROWS = 3_000
CHUNK = 500

# Runs as a worker of its own, and kills itself the second time that it comes to the named step.
WORKER = """
import os, signal, sys
import django
django.setup()
from usage import upload_chunks, upload_files, uploads
from usage.models import Upload
upload_id, step = int(sys.argv[1]), sys.argv[2]
upload_chunks.CHUNK_ROWS = 500
places = {
    "before the records": (uploads, "ingest", False),
    "after the records": (uploads, "ingest", True),
    "after the error file": (upload_files, "append_errors", True),
    "before the commit": (Upload, "save", True),
}
room, name, after = places[step]
deed, calls = getattr(room, name), []
def deadly(*args, **options):
    calls.append(1)
    if len(calls) == 2 and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    answer = deed(*args, **options)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
setattr(room, name, deadly)
uploads.ingest_upload(upload_id)
"""


@pytest.fixture(autouse=True)
def small_chunks(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.UPLOAD_DIR = tmp_path / "uploads"
    monkeypatch.setattr(upload_chunks, "CHUNK_ROWS", CHUNK)


def started(compute: UsageEvent) -> Upload:
    """An upload of 3,000 rows, each hundredth of which is refused."""
    rows = "".join(f"c{n % 7},2025-06-17T14:03:12Z,{'bad' if n % 100 == 0 else n}\n" for n in range(ROWS))
    text = ("customer_id,timestamp,cpu_usage_hours\n" + rows).encode()
    upload = stage_upload(compute, [text], file_name="x.csv", file_format="csv")
    return start_upload(upload.pk)


def worker(upload: Upload, step: str) -> int:
    here = urlsplit(os.environ["DATABASE_URL"])
    environment = {
        **os.environ,
        "DATABASE_URL": urlunsplit(here._replace(path=f"/{connection.settings_dict['NAME']}")),
        "UPLOAD_DIR": str(configured.UPLOAD_DIR),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": "x",
    }
    command = [sys.executable, "-c", WORKER, str(upload.pk), step]
    return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode


def assert_complete(upload: Upload) -> None:
    upload.refresh_from_db()
    counted = (upload.status, upload.rows_read, upload.accepted, upload.duplicates, upload.conflicts, upload.rejected)
    assert counted == ("done", ROWS, ROWS - 30, 0, 0, 30)
    assert UsageRecord.objects.count() == ROWS - 30
    assert sum(IngestBatch.objects.values_list("accepted", flat=True)) == ROWS - 30
    assert sum(RejectedRecord.objects.values_list("times", flat=True)) == 30
    text = b"".join(read_errors(upload.stored_name, upload.errors_bytes)).decode()
    lines = [int(row[0]) for row in list(csv.reader(io.StringIO(text)))[1:]]
    assert lines == list(range(2, ROWS + 2, 100))


@pytest.mark.parametrize(
    "step", ["before the records", "after the records", "after the error file", "before the commit"]
)
def test_a_worker_that_is_killed_is_followed_by_one_that_goes_on(compute: UsageEvent, step: str) -> None:
    upload = started(compute)
    assert worker(upload, step) == -signal.SIGKILL
    upload.refresh_from_db()
    assert (upload.status, upload.rows_read, UsageRecord.objects.count()) == ("ingesting", CHUNK, CHUNK - 5)

    assert ingest_upload(upload.pk) is False
    assert_complete(upload)


def test_workers_that_stop_after_each_chunk_come_to_the_same(compute: UsageEvent) -> None:
    upload = started(compute)
    times = 1
    while ingest_upload(upload.pk, seconds=0):
        times += 1
    assert times == ROWS // CHUNK + 1
    assert_complete(upload)


def test_two_workers_at_once_are_one(compute: UsageEvent) -> None:
    upload = started(compute)

    def work() -> None:
        ingest_upload(upload.pk)

    run_together(work, work)
    assert_complete(upload)


def test_while_somebody_is_at_it_nobody_else_is(compute: UsageEvent) -> None:
    upload = started(compute)
    holding, done = threading.Event(), threading.Event()
    held: list[Any] = []

    def hold() -> None:
        with working_on(upload.pk) as mine:
            held.append(mine)
            holding.set()
            done.wait(30)

    def try_it() -> None:
        holding.wait(30)
        held.append(ingest_upload(upload.pk))
        done.set()

    run_together(hold, try_it)
    upload.refresh_from_db()
    assert (held, upload.rows_read) == ([True, False], 0)
