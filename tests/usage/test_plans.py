"""Plans for a usage event that is newer than the planner's statistics: as good as for an old one."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db import connection, transaction

from customers.models import Customer
from metrics.models import Metric
from metrics.sql import rebuild_windows
from tests.conftest import active_metric, record, submission, take_in
from usage.definitions import create_usage_event
from usage.envelopes import read_records
from usage.models import UsageEvent
from usage.schemas import DataSchema
from usage.storage import known_records

HOUR = datetime(2025, 6, 1, tzinfo=UTC)
LONG = "x" * 200  # long keys make a deep index, which looks dear beside the others


@pytest.fixture
def newer(compute: UsageEvent) -> Metric:
    """A metric of a usage event that came after the statistics were gathered, and has 2,000 records since."""
    take_in(compute, *(record(f"cus_{number}") for number in range(100)))
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO usage_usagerecord (id, usage_event_id, customer_id, timestamp, idempotency_key, data, batch_id,
                                           schema_version, received_at, revision)
            SELECT nextval('usage_usagerecord_id_seq'), %s, customer.id, %s + n * interval '1 minute',
                   %s || md5(customer.id || '-' || n), '{}', 0, 1, now(), 1
            FROM customers_customer AS customer, generate_series(1, 1000) AS n
            """,
            [compute.pk, HOUR, LONG],
        )
        cursor.execute("ANALYZE")
    usage_event = create_usage_event(compute.organisation, name="New", slug="new", schema={"type": "object"})
    metric = active_metric(usage_event, code="new", aggregation="count")
    take_in(usage_event, *(sent(number) for number in range(2_000)))
    return metric


def sent(number: int) -> dict[str, object]:
    return {
        "id": f"{LONG}{number}",
        "customer_id": f"cus_{number % 100}",
        "timestamp": f"2025-06-01T00:{number % 60:02d}:00Z",
        "data": {"n": number},
    }


def records_looked_at(work: Callable[[], object]) -> int:
    """How many records a piece of work fetches, whether it has use for them or not."""

    def fetched() -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'usage_usagerecord'"
            )
            return int(cursor.fetchone()[0])

    with transaction.atomic():
        before = fetched()
        work()
        return fetched() - before


def test_only_records_that_were_asked_for_are_looked_at(newer: Metric) -> None:
    records, _ = read_records(submission(*map(sent, range(100))), DataSchema({"type": "object"}))
    customers = dict(Customer.objects.values_list("external_id", "pk"))
    known: list[dict[int, bool]] = []

    by_identity = records_looked_at(lambda: known.append(known_records(newer.usage_event_id or 0, records, customers)))
    with connection.cursor() as cursor:
        by_window = records_looked_at(lambda: rebuild_windows(cursor, newer, [(customers["cus_7"], HOUR)]))

    assert known == [dict.fromkeys(range(100), True)]
    assert (by_identity, by_window) == (100, 20)
