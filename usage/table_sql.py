"""The statements that make structured tables and the roles that may read them: DDL, which takes no parameters.

Every name is quoted as an identifier, every value as a literal.
"""

from collections.abc import Mapping, Sequence

from django.db.backends.utils import CursorWrapper
from psycopg import sql

from usage.table_columns import Column


def schema_name(organisation_id: int) -> str:
    """Return the name of the PostgreSQL schema that holds the organisation's tables."""
    return f"organisation_{organisation_id}"


def hold_tables(cursor: CursorWrapper, organisation_id: int, milliseconds: int) -> None:
    """Be the only one who changes what the organisation's schema holds; from here on, wait no longer than that.

    To the end of the transaction. Two who make one schema, or grant on it, at the same moment would fail.
    """
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(milliseconds)])
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('tallybook.tables', %s))", [organisation_id])


def lock_timeout(cursor: CursorWrapper, change_to: str | None = None) -> str:
    """Return how long a lock is waited for, and change that to the end of the transaction."""
    cursor.execute("SELECT current_setting('lock_timeout')")
    before: str = cursor.fetchone()[0]
    if change_to is not None:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [change_to])
    return before


def stamp_of(cursor: CursorWrapper, schema: str, table: str) -> str | None:
    """Return the stamp of a published table; None if there is no such table."""
    cursor.execute(
        """
        SELECT coalesce(obj_description(view.oid, 'pg_class'), '')
        FROM pg_class AS view JOIN pg_namespace AS schema ON schema.oid = view.relnamespace
        WHERE schema.nspname = %s AND view.relname = %s
        """,
        [schema, table],
    )
    row = cursor.fetchone()
    return row[0] if row else None


def create_schema(cursor: CursorWrapper, schema: str) -> None:
    """Make the organisation's schema where it is missing; nobody may look into it but who is granted that."""
    cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))


def replace_view(
    cursor: CursorWrapper, place: tuple[str, str], source: tuple[int, int], columns: Sequence[Column], stamp: str
) -> None:
    """Put a usage event's view (`source`: organisation and usage event) at its `place` (schema and table).

    Columns may come, go and change their types, so the old one is dropped; who reads it is waited for. As a barrier,
    the view shows no record of another usage event to any function or operator of who reads it. Its conditions
    on usage event, customer and time reach the indexes all the same: these comparisons are leakproof.
    """
    organisation_id, usage_event_id = source
    view = sql.Identifier(*place)
    cursor.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(view))
    cursor.execute(
        sql.SQL(
            """
            CREATE VIEW {view} WITH (security_barrier) AS
            SELECT {columns}
            FROM public.usage_usagerecord AS record
            JOIN public.customers_customer AS customer ON customer.id = record.customer_id
            WHERE record.usage_event_id = {usage_event_id} AND customer.organisation_id = {organisation_id}
              AND record.voided_at IS NULL
            """
        ).format(
            view=view,
            columns=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(_value(column), sql.Identifier(column.name)) for column in columns
            ),
            usage_event_id=sql.Literal(usage_event_id),
            organisation_id=sql.Literal(organisation_id),
        )
    )
    cursor.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(stamp)))


_FIXED: Mapping[str, sql.SQL] = {
    "customer_id": sql.SQL("customer.external_id::text"),
    "timestamp": sql.SQL("record.timestamp"),
    "received_at": sql.SQL("record.received_at"),
    "id": sql.SQL("record.id"),
    "record_id": sql.SQL("record.idempotency_key"),
}
# A value of another type, stored under an older schema, reads as null. Text is compared by code point, everywhere the
# same: two collations in one comparison would be an error, and the customer's index has this one.
_TYPED: Mapping[str, sql.SQL] = {
    "numeric": sql.SQL("CASE WHEN jsonb_typeof({value}) = 'number' THEN ({value})::numeric END"),
    "boolean": sql.SQL("CASE WHEN jsonb_typeof({value}) = 'boolean' THEN ({value})::boolean END"),
    "text": sql.SQL("CASE WHEN jsonb_typeof({value}) = 'string' THEN record.data ->> {name} END COLLATE \"C\""),
    "jsonb": sql.SQL("nullif({value}, 'null'::jsonb)"),
}


def _value(column: Column) -> sql.Composable:
    if column.property is None:
        return _FIXED[column.name]
    name = sql.SQL("{}::text").format(sql.Literal(column.property))
    value = sql.SQL("record.data -> {}").format(name)
    return _TYPED[column.type].format(value=value, name=name)


def stale_tables(cursor: CursorWrapper, layout: int) -> list[int]:
    """Return the usage events whose table is missing or shows another version of the schema, or another layout.

    Reads every usage event and every comment of the database once; meant for now and then.
    """
    cursor.execute(
        """
        SELECT usage_event.id FROM public.usage_usageevent AS usage_event
        WHERE NOT EXISTS (
            SELECT FROM pg_description AS stamp
            JOIN pg_class AS view ON view.oid = stamp.objoid
            JOIN pg_namespace AS schema ON schema.oid = view.relnamespace
            WHERE stamp.classoid = 'pg_class'::regclass AND stamp.objsubid = 0 AND view.relkind = 'v'
              AND schema.nspname = 'organisation_' || usage_event.organisation_id
              AND stamp.description = 'usage event ' || usage_event.id || ', schema version '
                                      || usage_event.schema_version || ', layout ' || %s::integer)
        ORDER BY usage_event.id
        """,
        [layout],
    )
    return [usage_event_id for (usage_event_id,) in cursor.fetchall()]
