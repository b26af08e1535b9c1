"""Binary COPY: what is copied reads back equal, and exactly as the insert path would have stored it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from customers.exactjson import dumps, loads
from tests.conftest import record, take_in
from usage import storage
from usage.copying import HEADER, TRAILER, CopyColumns, copy_bytes, microseconds
from usage.definitions import create_usage_event
from usage.models import UsageEvent, UsageRecord

SPECIAL = [
    {},
    {"n": 0},
    {"n": Decimal("-0.0")},
    {"n": Decimal("1.50")},
    {"n": Decimal("1E+64")},
    {"n": Decimal("1E-64")},
    {"n": int("9" * 64)},
    {"n": Decimal("-12345678901234567890.12345678901234567890")},
    {"s": "", "t": "\x7f\u2028\ufeff😀\U0010ffff", "q": '"\\/\b\f\n\r\t', "c": "\x01\x1f"},
    {"": {"": {"": []}}, "😀": [None, True, False, [[]], {}]},
    {"long": "x" * 100_000},
    {"b": 1, "a": 2, "aa": 3},
    {"tab\\.": "\\N", "copy": "\\.\n"},
]
KEYS = ["k", "é", "😀", " ", "\\N", "\\.", "\t\n", "k" * 255, "😀" * 255, "\ufeff", "'; DROP TABLE x; --", "\x7f", "%s"]
TIMESTAMPS = [
    "2000-01-01T00:00:00Z",
    "2100-12-31T23:59:59.999999Z",
    "2025-06-17T14:03:12.000001Z",
    "2025-03-30T02:30:00+01:00",
]

STORED = (
    "id",
    "customer__external_id",
    "timestamp",
    "idempotency_key",
    "data",
    "schema_version",
    "revision",
    "voided_at",
)


@pytest.fixture
def anything(organisation: Any) -> UsageEvent:
    return create_usage_event(organisation, name="Anything", slug="anything", schema={"type": "object"})


def special_records() -> list[dict[str, Any]]:
    records = [
        {"customer_id": f"cus {key}"[:255], "timestamp": TIMESTAMPS[i % 4], "data": SPECIAL[i], "id": key}
        for i, key in enumerate(KEYS)
    ]
    return records + [{"customer_id": "c", "timestamp": TIMESTAMPS[i % 4], "data": SPECIAL[i % 13]} for i in range(200)]


def rows(usage_event: UsageEvent) -> list[tuple[Any, ...]]:
    first = UsageRecord.objects.filter(usage_event=usage_event).order_by("id").values_list("id", flat=True)[0]
    stored = UsageRecord.objects.filter(usage_event=usage_event).order_by("id").values_list(*STORED)
    return [(row[0] - first, *row[1:4], dumps(row[4]), *row[5:]) for row in stored]


def test_what_is_copied_reads_back_equal(anything: UsageEvent) -> None:
    records = special_records()

    assert take_in(anything, *records).accepted == len(records) >= storage.COPY_FROM

    for stored, sent in zip(UsageRecord.objects.order_by("id"), records, strict=True):
        assert stored.customer.external_id == sent["customer_id"]
        assert stored.timestamp == datetime.fromisoformat(sent["timestamp"])
        assert stored.idempotency_key == sent.get("id")
        assert stored.data == sent["data"]
        assert (stored.schema_version, stored.revision, stored.voided_at) == (1, 1, None)
        assert stored.received_at == stored.batch.received_at


def test_copy_and_insert_store_the_same(anything: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    inserted = create_usage_event(anything.organisation, name="I", slug="inserted", schema={"type": "object"})
    replayed = create_usage_event(anything.organisation, name="R", slug="replayed", schema={"type": "object"})
    records = special_records()

    take_in(anything, *records)
    monkeypatch.setattr(storage, "COPY_FROM", 10_000)
    take_in(inserted, *records)
    monkeypatch.setattr(storage, "_suspect", lambda *_: True)
    take_in(replayed, *records)

    assert rows(anything) == rows(inserted) == rows(replayed)


def test_a_copy_stores_all_or_nothing(compute: UsageEvent) -> None:
    take_in(compute, record(id="known", hours=9))
    before = list(UsageRecord.objects.values_list("id", "data"))

    result = take_in(compute, *(record(id=f"k{i}") for i in range(99)), record(id="known", hours=1))

    assert (result.accepted, result.conflicts) == (99, 1)
    assert list(UsageRecord.objects.filter(idempotency_key="known").values_list("id", "data")) == before
    assert UsageRecord.objects.count() == 100


def test_the_stream_has_a_header_and_a_trailer() -> None:
    columns = {"usage_event_id": 1, "batch_id": 2, "schema_version": 1, "received_at": datetime(2025, 1, 1, tzinfo=UTC)}

    assert copy_bytes(CopyColumns([], [], [], [], []), **columns) == HEADER + TRAILER  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        (datetime(2000, 1, 1, tzinfo=UTC), 0),
        (datetime(2000, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(2100, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 3_187_295_999_999_999),
    ],
)
def test_moments_are_counted_in_microseconds_since_2000(moment: datetime, count: int) -> None:
    assert microseconds(moment) == count


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
NUMBER = st.integers(-(10**63), 10**63) | st.decimals(-(10**20), 10**20, places=10)
DATA = st.dictionaries(TEXT, NUMBER | TEXT | st.booleans() | st.none() | st.lists(NUMBER, max_size=3), max_size=4)
MOMENT = st.datetimes(datetime(2000, 1, 1), datetime(2100, 12, 31), timezones=st.just(UTC))


@pytest.mark.django_db
@given(st.lists(st.tuples(MOMENT, st.none() | TEXT, DATA), max_size=8))
def test_postgresql_reads_what_was_packed(sent: list[tuple[datetime, str | None, dict[str, Any]]]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE packed (id bigint, usage_event_id bigint, customer_id bigint,"
            " timestamp timestamptz, key text, data jsonb, batch_id bigint, version integer,"
            " received_at timestamptz, revision integer)"
            " ON COMMIT DROP"
        )
        packed = CopyColumns(
            [-i for i in range(len(sent))],
            [2**62 + i for i in range(len(sent))],
            [moment for moment, _, _ in sent],
            [key for _, key, _ in sent],
            [dumps(data).encode() for _, _, data in sent],
        )
        columns = {"usage_event_id": 7, "batch_id": 2**63 - 1, "schema_version": 3}
        with cursor.copy("COPY packed FROM STDIN (FORMAT binary)") as copy:
            copy.write(copy_bytes(packed, **columns, received_at=datetime(2025, 1, 1, tzinfo=UTC)))
        cursor.execute("SELECT id, customer_id, timestamp, key, data::text FROM packed ORDER BY id DESC")
        read = cursor.fetchall()
        cursor.execute("SELECT DISTINCT usage_event_id, batch_id, version, received_at, revision FROM packed")
        shared = cursor.fetchall()
        cursor.execute("DROP TABLE packed")
    assert [(*row[:4], loads(row[4])) for row in read] == [
        (-i, 2**62 + i, moment, key, data) for i, (moment, key, data) in enumerate(sent)
    ]
    assert shared == ([(7, 2**63 - 1, 3, datetime(2025, 1, 1, tzinfo=UTC), 1)] if sent else [])
