"""Requests byte by byte against the real web server: chunked bodies, and senders that break off."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from customers.exactjson import dumps, loads
from tests.conftest import record
from usage.models import Upload, UsageEvent, UsageRecord

REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def port(compute: UsageEvent) -> Iterator[int]:
    """A granian that serves the test's database."""
    database = connection.settings_dict
    server_of, _, rest = os.environ["DATABASE_URL"].rpartition("/")
    _, mark, options = rest.partition("?")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "wsgi", "config.wsgi:application", "--port", str(port)]
        + ["--workers", "1", "--blocking-threads", "2", "--log-level", "warning"],
        cwd=REPOSITORY,
        env={**os.environ, "DATABASE_URL": f"{server_of}/{database['NAME']}{mark}{options}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def exchange(port: int, *parts: bytes, finish: bool = True) -> tuple[int, Any]:
    """Send the parts one after the other; returns status and JSON of the answer, (0, None) if there is none."""
    with socket.create_connection(("127.0.0.1", port), 20) as connected:
        for part in parts:
            connected.sendall(part)
        if not finish:
            return 0, None
        answer = b""
        while part := connected.recv(65_536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), loads(body)


def chunks(*parts: bytes) -> list[bytes]:
    return [b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b"")]


def test_bodies_as_they_come_over_the_wire(port: int, headers: dict[str, str]) -> None:
    fields = {**headers, "Host": "localhost", "Content-Type": "application/json", "Connection": "close"}
    start = b"POST /usage/compute_hours HTTP/1.1\r\n"
    start += "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n"
    body = dumps([record(id="a"), record(id="b")]).encode()

    status, told = exchange(port, chunked, *chunks(body[:10], body[10:90], body[90:]))
    assert (status, told.get("accepted")) == (201, 2), told
    status, told = exchange(port, chunked, *chunks(b" " * 1_000_000, *[b" " * 1_000_000] * 16))
    assert (status, told["detail"]) == (413, "a body of at most 16777216 bytes is taken")
    status, told = exchange(port, start + b"\r\n")
    assert (status, told["detail"]) == (400, "JSON was expected: Input data was truncated")
    exchange(port, chunked, *chunks(dumps([record(id="c")]).encode())[:-1], finish=False)
    exchange(port, start + b"Content-Length: 500\r\n\r\n", dumps([record(id="d")]).encode(), finish=False)
    assert exchange(port, chunked, *chunks(body))[1]["duplicates"] == 2
    assert set(UsageRecord.objects.values_list("idempotency_key", flat=True)) - {"c"} == {"a", "b"}


def test_an_upload_that_breaks_off_is_no_file(port: int, headers: dict[str, str]) -> None:
    content = b"customer_id,timestamp,cpu_usage_hours\na,2025-06-17T14:03:12Z,1\n"
    fields = {**headers, "Host": "localhost", "Content-Type": "text/csv", "Connection": "close"}
    start = b"POST /api/uploads/?usage_event=compute_hours HTTP/1.1\r\n"
    start += "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()

    with socket.create_connection(("127.0.0.1", port), 20) as connected:
        connected.sendall(start + b"Content-Length: %d\r\n\r\n" % (len(content) + 50) + content)
        connected.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connected.recv(65_536), b""))

    assert answer.partition(b"\r\n")[0].split()[1] == b"400"
    assert not Upload.objects.exists()
