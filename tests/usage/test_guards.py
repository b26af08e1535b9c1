"""Guards of the database: facts move only by announced acts, history never, and keys lead as they must."""

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from tests.conftest import record, take_in
from usage.correction_sql import announce
from usage.corrections import Actor, correct_record
from usage.definitions import create_usage_event, publish_schema
from usage.models import RecordRevision, SchemaVersion, UsageEvent, UsageRecord

ACTOR = Actor(None, "Ada")


def refused(statement: str, *parameters: Any) -> str:
    """Run a statement in a transaction of its own and return the refusal; the statement must be refused."""
    with pytest.raises(IntegrityError, match="tallybook: ") as caught, transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
    return str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    ("statement", "operation"),
    [
        ("UPDATE usage_usagerecord SET data = '{}'", "UPDATE"),
        ("UPDATE usage_usagerecord SET timestamp = now() WHERE false", "UPDATE"),
        ("DELETE FROM usage_usagerecord", "DELETE"),
        (
            "MERGE INTO usage_usagerecord r USING (SELECT 1) x ON true WHEN MATCHED THEN UPDATE SET revision = 9",
            "UPDATE",
        ),
        (
            (
                "INSERT INTO usage_usagerecord SELECT * FROM usage_usagerecord"
                " ON CONFLICT (id, usage_event_id) DO UPDATE SET revision = 9"
            ),
            "UPDATE",
        ),
    ],
)
def test_records_change_only_by_an_announced_act(compute: UsageEvent, statement: str, operation: str) -> None:
    take_in(compute, record(id="a"))
    before = list(UsageRecord.objects.values())

    assert refused(statement) == (
        f"tallybook: {operation} on usage_usagerecord is refused: correct, void or restore records through their acts"
    )

    assert list(UsageRecord.objects.values()) == before


def test_the_orm_cannot_change_records_either(compute: UsageEvent) -> None:
    take_in(compute, record(id="a"))
    stored = UsageRecord.objects.get()
    stored.data = {}

    with pytest.raises(IntegrityError, match="is refused"):
        stored.save()
    with pytest.raises(IntegrityError, match="is refused"):
        UsageRecord.objects.all().update(revision=5)
    with pytest.raises(IntegrityError, match="is refused"):
        UsageRecord.objects.filter(pk=stored.pk)._raw_delete(using="default")

    assert UsageRecord.objects.get().data == {"cpu_usage_hours": 1}


def test_an_announcement_holds_for_its_transaction_only(compute: UsageEvent) -> None:
    take_in(compute, record(id="a"))
    with transaction.atomic(), connection.cursor() as cursor:
        announce(cursor, "test")
        cursor.execute("UPDATE usage_usagerecord SET revision = revision")

    refused("UPDATE usage_usagerecord SET revision = revision")

    with pytest.raises(ZeroDivisionError), transaction.atomic(), connection.cursor() as cursor:
        announce(cursor, "test")
        raise ZeroDivisionError
    refused("UPDATE usage_usagerecord SET revision = revision")


@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize(
    "statement", ["UPDATE usage_recordrevision SET reason = ''", "DELETE FROM usage_recordrevision"]
)
def test_revisions_never_change_whoever_asks(compute: UsageEvent, statement: str, announced: bool) -> None:
    take_in(compute, record(id="a"))
    correct_record(UsageRecord.objects.get().pk, data={}, revision=1, reason="typo", actor=ACTOR)
    before = list(RecordRevision.objects.values())

    with pytest.raises(IntegrityError, match="the history of a record is kept as it is"), transaction.atomic():
        with connection.cursor() as cursor:
            if announced:
                announce(cursor, "correct_record")
            cursor.execute(statement)

    assert list(RecordRevision.objects.values()) == before
    assert len(before) == 1


def test_usage_events_keep_their_address_and_schema_versions_stay(compute: UsageEvent) -> None:
    other = create_usage_event(compute.organisation, name="O", slug="other", schema={"type": "object"})
    publish_schema(other, {"type": "object", "title": "2"})

    refused("UPDATE usage_usageevent SET slug = 'x' WHERE id = %s", compute.pk)
    refused("UPDATE usage_usageevent SET organisation_id = organisation_id + 1 WHERE id = %s", compute.pk)
    refused("DELETE FROM usage_usageevent WHERE id = %s", other.pk)
    refused("UPDATE usage_schemaversion SET schema = '{}'")
    refused("DELETE FROM usage_schemaversion")

    UsageEvent.objects.filter(pk=compute.pk).update(name="Renamed", slug=compute.slug)
    assert sorted(UsageEvent.objects.values_list("slug", "name")) == [("compute_hours", "Renamed"), ("other", "O")]
    assert sorted(SchemaVersion.objects.values_list("usage_event__slug", "version")) == [
        ("compute_hours", 1),
        ("other", 1),
        ("other", 2),
    ]


INDEXES = """
    SELECT index.indexrelid::regclass::text, index.indisprimary, index.indisunique,
           pg_get_expr(index.indpred, index.indrelid),
           ARRAY (SELECT attname::text FROM unnest(index.indkey) WITH ORDINALITY AS key (attnum, position)
                  JOIN pg_attribute AS attribute
                    ON attribute.attrelid = index.indrelid AND attribute.attnum = key.attnum ORDER BY position)
    FROM pg_index AS index WHERE index.indrelid = %s::regclass
"""


def indexes_of(table: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(INDEXES, [table])
        return sorted(
            (primary, unique, tuple(columns), where) for _, primary, unique, where, columns in cursor.fetchall()
        )


@pytest.mark.django_db
def test_the_physical_keys_of_records() -> None:
    assert indexes_of("usage_usagerecord") == [
        (False, False, ("batch_id",), None),
        (False, False, ("usage_event_id", "customer_id", "timestamp"), None),
        (False, False, ("usage_event_id", "timestamp", "id"), None),
        (False, True, ("usage_event_id", "idempotency_key"), "(idempotency_key IS NOT NULL)"),
        (True, True, ("id", "usage_event_id"), None),
    ]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("table", "indexes"),
    [
        (
            "usage_ingestbatch",
            [
                (False, False, ("upload_id",), "(upload_id IS NOT NULL)"),
                (False, False, ("usage_event_id", "received_at", "id"), None),
                (True, True, ("id", "usage_event_id"), None),
            ],
        ),
        ("usage_pendingbatch", [(True, True, ("usage_event_id", "batch_id"), None)]),
        ("usage_changedwindow", [(True, True, ("usage_event_id", "customer_id", "window_start", "id"), None)]),
        (
            "usage_recordrevision",
            [
                (False, True, ("usage_event_id", "record_id", "revision"), None),
                (True, True, ("id", "usage_event_id"), None),
            ],
        ),
        (
            "metrics_metricaggregate",
            [(True, True, ("usage_event_id", "metric_id", "customer_id", "window_start", "dimensions"), None)],
        ),
    ],
)
def test_the_physical_keys_of_what_grows_beside_them(table: str, indexes: list[Any]) -> None:
    assert indexes_of(table) == indexes


@pytest.mark.django_db
def test_no_foreign_key_of_the_database_touches_what_grows() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
            " AND (conrelid = ANY (%(grow)s::regclass[]) OR confrelid = ANY (%(grow)s::regclass[]))",
            {
                "grow": [
                    *["usage_usagerecord", "usage_ingestbatch", "usage_pendingbatch", "usage_changedwindow"],
                    *["usage_recordrevision", "metrics_metricaggregate"],
                ]
            },
        )
        assert cursor.fetchall() == []


@pytest.mark.django_db
def test_identities_are_compared_byte_by_byte_and_data_is_jsonb() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, data_type, collation_name FROM information_schema.columns"
            " WHERE table_name = 'usage_usagerecord'"
            " AND column_name IN ('idempotency_key', 'data', 'id', 'customer_id') ORDER BY 1"
        )
        assert cursor.fetchall() == [
            ("customer_id", "bigint", None),
            ("data", "jsonb", None),
            ("id", "bigint", None),
            ("idempotency_key", "text", "C"),
        ]
        cursor.execute(
            "SELECT relname, reloptions FROM pg_class WHERE relname IN ('usage_pendingbatch', 'usage_changedwindow')"
        )
        assert sorted(cursor.fetchall()) == [
            ("usage_changedwindow", ["autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=1000"]),
            ("usage_pendingbatch", ["autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=1000"]),
        ]
