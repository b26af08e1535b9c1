"""Exports: every record once, digits as written, in one snapshot, a few hundred rows at a time."""

import csv
import io
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from tests.conftest import record, take_in
from usage.definitions import create_usage_event
from usage.exports import export_records
from usage.models import UsageEvent, UsageRecord
from usage.record_filters import RecordFilter
from usage.record_sql import ROWS_AT_ONCE

EXPORT = "/api/usage-records/export/"


@pytest.fixture
def stored(compute: UsageEvent) -> UsageEvent:
    take_in(
        compute,
        record("=cus", "2025-06-17T14:03:12.000001Z", Decimal("1.50"), id="+1"),
        record("cus_2", "2025-06-16T14:03:12Z", Decimal("-12345678901234567890.1230"), id="b"),
        {"customer_id": "cus_3", "timestamp": "2025-07-01T00:00:00Z", "data": {"region": '@SUM(1,2)\n"x"'}},
    )
    return compute


def body(answer: Any) -> bytes:
    assert answer.status_code == 200, answer.content
    return b"".join(answer.streaming_content)


def test_csv_has_the_schema_s_columns_and_every_digit(
    client: Client, headers: dict[str, str], stored: UsageEvent
) -> None:
    answer = client.get(f"{EXPORT}?format=csv&usage_event=compute_hours", headers=headers)

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="usage-records.csv"'
    rows = list(csv.DictReader(io.StringIO(body(answer).decode(), newline="")))
    assert list(rows[0]) == [
        *("customer_id", "timestamp", "id", "record_id"),
        *("data.cpu_usage_hours", "data.cpu_usage_hours_per_month", "data.region"),
        *("received_at", "batch", "schema_version", "revision", "voided_at", "other_data"),
    ]
    told = ("customer_id", "timestamp", "record_id", "data.cpu_usage_hours", "data.region", "voided_at", "other_data")
    assert [[row[name] for name in told] for row in rows] == [
        ["cus_2", "2025-06-16T14:03:12Z", "b", "-12345678901234567890.1230", "", "", ""],
        ["'=cus", "2025-06-17T14:03:12.000001Z", "'+1", "1.50", "", "", ""],
        ["cus_3", "2025-07-01T00:00:00Z", "", "", '\'@SUM(1,2)\n"x"', "", ""],
    ]


def test_data_outside_the_schema_is_not_lost_in_csv(
    client: Client, headers: dict[str, str], compute: UsageEvent
) -> None:
    create_usage_event(
        compute.organisation, name="Open", slug="open", schema={"type": "object", "properties": {"n": {}}}
    )
    opened = UsageEvent.objects.get(slug="open")
    take_in(
        opened, {"customer_id": "c", "timestamp": "2025-06-17T14:03:12Z", "data": {"n": [1, {"a": None}], "x": 0.10}}
    )
    take_in(opened, {"customer_id": "c", "timestamp": "2025-06-18T14:03:12Z", "data": {"n": True}})

    text = body(client.get(f"{EXPORT}?format=csv&usage_event=open", headers=headers)).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["data.n"], row["other_data"]) for row in rows] == [('[1,{"a":null}]', '{"x":0.1}'), ("true", "")]


def test_ndjson_is_the_api_s_form_of_every_record(client: Client, headers: dict[str, str], stored: UsageEvent) -> None:
    answer = client.get(f"{EXPORT}?format=ndjson&customer_id=cus_2", headers=headers)
    listed = client.get("/api/usage-records/?customer_id=cus_2", headers=headers)

    assert answer["Content-Type"] == "application/x-ndjson"
    text = body(answer)
    assert b"-12345678901234567890.1230" in text
    assert [json.loads(line) for line in text.splitlines()] == listed.json()["results"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "format"),
        ("format=xml", "format"),
        ("format=csv", "usage_event"),
        ("format=csv&usage_event=nowhere", "usage_event"),
        ("format=ndjson&page_size=3", "page_size"),
        ("format=ndjson&voided=maybe", "voided"),
    ],
)
def test_an_export_that_is_not_understood_is_refused(
    client: Client, headers: dict[str, str], stored: UsageEvent, query: str, field: str
) -> None:
    answer = client.get(f"{EXPORT}?{query}", headers=headers)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.fixture
def many(compute: UsageEvent) -> UsageEvent:
    for batch in range(4):
        take_in(compute, *(record(f"cus_{number % 7}", id=f"{batch}-{number}") for number in range(5_000)))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE usage_usagerecord, customers_customer, usage_usageevent")
    return compute


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_a_stream_is_one_snapshot_read_a_few_hundred_rows_at_a_time(many: UsageEvent, kind: str) -> None:
    chunks = export_records(RecordFilter(many.organisation_id, many.pk), kind, many)
    first = [next(chunks) for _ in range(2)]
    # The rest has not been read: what is stored now is not part of it, and no chunk is larger than its rows.
    take_in(many, record(id="late"))
    rest = list(chunks)

    lines = [chunk.count(b"\n") for chunk in [*first, *rest]]
    assert max(lines) == ROWS_AT_ONCE
    assert sum(lines) == 20_000 + (kind == "csv")
    assert b"late" not in b"".join(rest)


def test_a_reader_that_leaves_ends_the_snapshot(many: UsageEvent) -> None:
    wait_for_no_cursor()  # of an earlier test
    chunks = export_records(RecordFilter(many.organisation_id, many.pk), "ndjson")
    next(chunks)
    assert cursors() == 1
    chunks.close()  # type: ignore[attr-defined]
    wait_for_no_cursor()


def wait_for_no_cursor() -> None:
    """The server ends a session a moment after its client left."""
    deadline = time.monotonic() + 10
    while cursors():
        assert time.monotonic() < deadline, "the snapshot is still there"
        time.sleep(0.02)


def cursors() -> int:
    """How many other connections hold a transaction open in this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
            " AND backend_type = 'client backend'"
        )
        (count,) = cursor.fetchone()
    return int(count)


def test_the_command_writes_the_same(
    client: Client, headers: dict[str, str], stored: UsageEvent, tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    call_command(
        "export_records",
        *("--organisation", str(stored.organisation.key), "--format", "csv", "--output", str(target)),
        *("--filter", "usage_event=compute_hours", "--filter", "timestamp_before=2025-07-01T00:00:00Z"),
    )
    query = f"{EXPORT}?format=csv&usage_event=compute_hours&timestamp_before=2025-07-01T00:00:00Z"
    assert target.read_bytes() == body(client.get(query, headers=headers))
    assert UsageRecord.objects.count() == 3

    for arguments, message in (
        (("--organisation", "x"), "an organisation's key"),
        (("--organisation", str(stored.organisation.key), "--filter", "voided"), "name=value"),
        (("--organisation", str(stored.organisation.key), "--filter", "colour=red"), "colour"),
        (("--organisation", str(stored.organisation.key), "--filter", "usage_event=none"), "usage_event"),
    ):
        with pytest.raises(CommandError, match=message):
            call_command("export_records", *arguments, "--format", "ndjson", "--output", str(target))
