"""Structured tables: their columns, their rows, and how they follow the schema whoever is reading them."""

import hashlib
import logging
from collections.abc import Callable
from decimal import Decimal
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from customers.models import Organisation
from tests.conftest import record, take_in
from tests.threads import run_together
from usage import table_sql
from usage.corrections import Actor, void_records
from usage.definitions import archive_usage_event, create_usage_event, publish_schema, rename_usage_event
from usage.models import UsageEvent, UsageRecord
from usage.table_columns import MAX_PROPERTIES, Column, columns_of, table_name
from usage.tables import publish_all_tables, publish_pending_tables, publish_tables, tables_of


def schema_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def own_columns(*names: str) -> list[str]:
    return [column.name for column in columns_of(schema_of(**{name: {} for name in names}))[5:]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def rows(usage_event: UsageEvent, columns: str = "*") -> list[tuple[Any, ...]]:
    table = f'organisation_{usage_event.organisation_id}."{table_name(usage_event.slug)}"'
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {table} ORDER BY id")
        return cursor.fetchall()


def column_types(usage_event: UsageEvent) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            [f"organisation_{usage_event.organisation_id}", table_name(usage_event.slug)],
        )
        return cursor.fetchall()


def reader() -> psycopg.Connection[Any]:
    """Another session, as the application: it may hold what it reads."""
    where = connection.settings_dict
    return psycopg.connect(
        host=where["HOST"], port=where["PORT"], dbname=where["NAME"], user=where["USER"], password=where["PASSWORD"]
    )


# --- names and types -------------------------------------------------------------------------------------------------


def test_a_column_has_the_type_that_the_schema_names() -> None:
    schema = schema_of(
        hours={"type": "number"},
        calls={"type": ["integer", "null"]},
        both={"type": ["integer", "number"]},
        region={"type": "string", "enum": ["eu", "us"]},
        paid={"type": "boolean"},
        tags={"type": "array"},
        mixed={"type": ["string", "number"]},
        nothing={"type": "null"},
        free=True,
    )

    assert columns_of(schema) == [
        Column("customer_id", "text"),
        Column("timestamp", "timestamptz"),
        Column("received_at", "timestamptz"),
        Column("id", "bigint"),
        Column("record_id", "text"),
        Column("hours", "numeric", "hours"),
        Column("calls", "numeric", "calls"),
        Column("both", "numeric", "both"),
        Column("region", "text", "region"),
        Column("paid", "boolean", "paid"),
        Column("tags", "jsonb", "tags"),
        Column("mixed", "jsonb", "mixed"),
        Column("nothing", "jsonb", "nothing"),
        Column("free", "jsonb", "free"),
    ]


LONG = "x" * 70


@pytest.mark.parametrize(
    ("properties", "columns"),
    [
        (["region", "Region"], ["region", "Region"]),
        (["timestamp", "ID", "Customer_Id"], ["data_timestamp", "data_ID", "data_Customer_Id"]),
        (["ctid", "xmin", "tableoid"], ["data_ctid", "data_xmin", "data_tableoid"]),
        # A name that needs no change is not taken away from its property, whatever stands before it.
        (["id", "data_id"], [f"data_id_{digest('id')}", "data_id"]),
        ([LONG], [f"{'x' * 54}_{digest(LONG)}"]),
        (
            [LONG + "1", LONG + "2"],
            [f"{'x' * 54}_{digest(LONG + '1')}", f"{'x' * 54}_{digest(LONG + '2')}"],
        ),
        (["x" * 63], ["x" * 63]),
        # Bytes count, and no character is cut in two.
        (["ü" * 32], ["ü" * 27 + "_" + digest("ü" * 32)]),
        ([""], ["data_"]),
        # Somebody may even have taken the cut name.
        (
            [LONG, f"{'x' * 54}_{digest(LONG)}"],
            [f"{'x' * 54}_{digest(LONG + '+')}", f"{'x' * 54}_{digest(LONG)}"],
        ),
    ],
)
def test_every_property_has_a_column_of_its_own(properties: list[str], columns: list[str]) -> None:
    assert own_columns(*properties) == columns


def test_more_properties_than_a_view_can_have_are_left_out() -> None:
    names = [f"p{i}" for i in range(MAX_PROPERTIES + 700)]

    assert own_columns(*names) == names[:MAX_PROPERTIES]


def test_a_long_slug_is_cut_and_no_two_slugs_share_a_table() -> None:
    cut = f"{'a' * 54}_{digest('a' * 100)}"

    assert table_name("a" * 63) == "a" * 63
    assert table_name("a" * 100) == cut
    assert table_name(cut) == f"{'a' * 54}_{digest(cut)}"


# --- what a table shows ----------------------------------------------------------------------------------------------


def test_a_table_shows_every_record_that_is_not_voided(compute: UsageEvent) -> None:
    take_in(
        compute,
        record("cus_1", id="a") | {"data": {"cpu_usage_hours": Decimal("5.25"), "region": "eu"}},
        record("cus_2", hours=7),
        record("cus_3", hours=9),
    )
    first, second, third = UsageRecord.objects.order_by("pk")
    void_records(compute.pk, [third.pk], reason="twice", actor=Actor(7, "Ada"))

    assert rows(compute) == [
        ("cus_1", first.timestamp, first.received_at, first.pk, "a", Decimal("5.25"), None, "eu"),
        ("cus_2", second.timestamp, second.received_at, second.pk, None, Decimal(7), None, None),
    ]
    assert column_types(compute) == [
        ("customer_id", "text"),
        ("timestamp", "timestamp with time zone"),
        ("received_at", "timestamp with time zone"),
        ("id", "bigint"),
        ("record_id", "text"),
        ("cpu_usage_hours", "numeric"),
        ("cpu_usage_hours_per_month", "numeric"),
        ("region", "text"),
    ]
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE oid = %s", [view_number(compute)])
        assert cursor.fetchone() == (["security_barrier=true"],)


KINDS = schema_of(n={"type": "number"}, t={"type": "string"}, b={"type": "boolean"}, j={}, **{'weird "%s name': {}})


def test_a_value_of_another_type_reads_as_null_and_never_as_an_error(organisation: Organisation) -> None:
    loose = schema_of(n={}, t={}, b={}, j={}, **{'weird "%s name': {}})
    event = create_usage_event(organisation, name="Loose", slug="Loose-1", schema=loose)
    values = [Decimal("1e64"), "text", True, None, [1], {"a": 1}]
    for value in values:
        data = dict.fromkeys(("n", "t", "b", "j", 'weird "%s name'), value)
        take_in(event, {"customer_id": "c", "timestamp": "2025-01-01T00:00:00Z", "data": data})
    take_in(event, {"customer_id": "c", "timestamp": "2025-01-01T00:00:00Z", "data": {}})

    publish_schema(event, KINDS, accept_violations=True)

    found = rows(event, 'n, t, b, j::text, "weird ""%s name"::text')
    big = "1" + "0" * 64
    assert found == [
        (Decimal("1e64"), None, None, big, big),
        (None, "text", None, '"text"', '"text"'),
        (None, None, True, "true", "true"),
        (None, None, None, None, None),
        (None, None, None, "[1]", "[1]"),
        (None, None, None, '{"a": 1}', '{"a": 1}'),
        (None, None, None, None, None),
    ]


def test_the_tables_of_an_organisation_are_its_own(compute: UsageEvent, organisation: Organisation) -> None:
    other = Organisation.objects.create(name="Other")
    create_usage_event(other, name="Secret", slug="secret", schema=schema_of(plan={"type": "string"}))
    archive_usage_event(compute, archived=True)

    assert [table for table, _ in tables_of(organisation)] == ["compute_hours"]
    assert dict(tables_of(other)) == {
        "secret": [
            ("customer_id", "text"),
            ("timestamp", "timestamptz"),
            ("received_at", "timestamptz"),
            ("id", "bigint"),
            ("record_id", "text"),
            ("plan", "text"),
        ]
    }
    # What an archived usage event has taken stays usage.
    assert rows(compute) == []


# --- how tables follow their schemas ---------------------------------------------------------------------------------


def test_a_published_schema_has_its_table_at_once(compute: UsageEvent) -> None:
    publish_schema(compute, schema_of(gpu={"type": "boolean"}), accept_violations=True)

    assert column_types(compute)[5:] == [("gpu", "boolean")]


def test_what_is_undone_has_changed_no_table(compute: UsageEvent) -> None:
    before = column_types(compute)

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publish_schema(compute, schema_of(gpu={"type": "boolean"}), accept_violations=True)
        raise ZeroDivisionError

    assert column_types(compute) == before


def view_number(usage_event: UsageEvent) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 'organisation_{usage_event.organisation_id}.compute_hours'::regclass::oid::bigint")
        number: int = cursor.fetchone()[0]
        return number


def test_publishing_again_does_nothing(compute: UsageEvent) -> None:
    number = view_number(compute)

    assert publish_tables(compute)
    rename_usage_event(compute, "Another name")
    assert publish_pending_tables() == (0, [])
    assert view_number(compute) == number
    assert publish_all_tables() == (1, [])
    assert view_number(compute) != number


def test_who_reads_a_table_delays_it_and_not_the_schema(compute: UsageEvent, caplog: pytest.LogCaptureFixture) -> None:
    with reader() as session:
        session.execute(f"SELECT * FROM organisation_{compute.organisation_id}.compute_hours")

        publish_schema(compute, schema_of(gpu={"type": "boolean"}), accept_violations=True)

        compute.refresh_from_db()
        assert compute.schema_version == 2
        assert [name for name, _ in column_types(compute)[5:]] == [
            "cpu_usage_hours",
            "cpu_usage_hours_per_month",
            "region",
        ]
        assert "is not published yet: canceling statement due to lock timeout" in caplog.text
        # The new schema is in force, and usage is taken, while the reader still reads.
        take_in(compute, {"customer_id": "c", "timestamp": "2025-01-01T00:00:00Z", "data": {"gpu": True}})
        assert publish_pending_tables() == (0, [f"organisation_{compute.organisation_id}.compute_hours"])

    assert publish_pending_tables() == (1, [])
    assert rows(compute, "gpu") == [(True,)]


def test_the_wait_for_a_lock_is_as_long_as_before_for_the_rest_of_the_transaction(compute: UsageEvent) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '7s'")
        publish_tables(compute, anew=True)
        assert table_sql.lock_timeout(cursor) == "7s"


def test_a_view_of_somebody_elses_on_top_keeps_the_table_and_nothing_fails(compute: UsageEvent) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE VIEW on_top AS SELECT region FROM organisation_{compute.organisation_id}.compute_hours")
    try:
        publish_schema(compute, schema_of(gpu={"type": "boolean"}), accept_violations=True)
        assert len(column_types(compute)) == 8
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP VIEW on_top")
    assert publish_pending_tables() == (1, [])


def test_a_database_that_makes_no_schemas_takes_usage_all_the_same(
    organisation: Organisation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(cursor: Any, schema: str) -> None:
        cursor.execute("CREATE SCHEMA pg_not_for_us")

    monkeypatch.setattr(table_sql, "create_schema", refused)
    caplog.set_level(logging.WARNING)

    event = create_usage_event(organisation, name="E", slug="e", schema=schema_of(n={"type": "number"}))
    result = take_in(event, {"customer_id": "c", "timestamp": "2025-01-01T00:00:00Z", "data": {"n": 1}})

    assert result.accepted == 1
    assert "is not published yet: unacceptable schema name" in caplog.text
    monkeypatch.undo()
    assert publish_pending_tables() == (1, [])
    assert rows(event, "n") == [(Decimal(1),)]


def test_two_publish_at_once(organisation: Organisation) -> None:
    def define(slug: str) -> Callable[[], None]:
        def job() -> None:
            create_usage_event(organisation, name=slug, slug=slug, schema=schema_of(n={"type": "number"}))

        return job

    run_together(*(define(f"event_{i}") for i in range(4)))

    # Who waited too long for the others leaves it for later.
    publish_pending_tables()
    assert publish_pending_tables() == (0, [])
    event = UsageEvent.objects.get(slug="event_0")

    def publish(name: str) -> Callable[[], None]:
        def job() -> None:
            publish_schema(event, schema_of(**{name: {"type": "number"}}), accept_violations=True)

        return job

    def publish_all() -> None:
        publish_all_tables()

    run_together(publish("a"), publish("b"), publish_all)

    publish_pending_tables()
    event.refresh_from_db()
    assert [name for name, _ in column_types(event)[5:]] == list(event.schema["properties"])


def test_the_command_publishes_what_is_missing(compute: UsageEvent) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP VIEW organisation_{compute.organisation_id}.compute_hours")
    out = StringIO()

    call_command("publish_tables", stdout=out)
    call_command("publish_tables", stdout=out)
    call_command("publish_tables", all=True, stdout=out)

    assert out.getvalue().splitlines() == ["1 tables published", "0 tables published", "1 tables published"]
    with reader() as session:
        session.execute(f"SELECT * FROM organisation_{compute.organisation_id}.compute_hours")
        with pytest.raises(CommandError, match=r"1 could not be published, .*: organisation_\d+\.compute_hours"):
            call_command("publish_tables", all=True, stdout=out)


def test_a_condition_on_time_and_customer_reaches_the_indexes(compute: UsageEvent) -> None:
    take_in(compute, *(record(f"cus_{i}") for i in range(50)))
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(
            f"EXPLAIN SELECT sum(cpu_usage_hours) FROM organisation_{compute.organisation_id}.compute_hours"
            " WHERE customer_id = 'cus_7' AND timestamp >= '2025-06-01' AND timestamp < '2025-07-01'"
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("RESET enable_seqscan")

    assert "Index Cond: ((organisation_id =" in plan
    assert "((external_id)::text = 'cus_7'::text)" in plan
    assert '"timestamp" >= ' in plan.split("usage_usagerecord", 1)[1].split("Filter", 1)[0]
