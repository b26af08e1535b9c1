"""Structured tables: one typed view per usage event, in the PostgreSQL schema of its organisation.

A table is put in place in the transaction that publishes its schema. It cannot be replaced while somebody reads it, and
who waits to replace it keeps new readers (and, here, senders) waiting too. So the wait is short, and after it the old
table stays, the schema is published all the same, and `publish_pending_tables` tries again later. The same holds
for a database that does not let us: usage is taken, the log says what is missing.
"""

import logging

from django.db import DatabaseError, connection, transaction

from customers.models import Organisation
from usage import table_sql
from usage.models import UsageEvent
from usage.table_columns import columns_of, table_name

logger = logging.getLogger(__name__)

# Grows when the same schema gives other columns or another view; `publish_pending_tables` then makes all of them anew.
LAYOUT = 1
PATIENCE_MILLISECONDS = 500


def tables_of(organisation: Organisation) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the organisation's tables by name, each with its columns as (name, PostgreSQL type)."""
    usage_events = UsageEvent.objects.filter(organisation=organisation).order_by("slug")
    return [
        (table_name(usage_event.slug), [(column.name, column.type) for column in columns_of(usage_event.schema)])
        for usage_event in usage_events
    ]


def publish_tables(usage_event: UsageEvent, *, anew: bool = False) -> bool:
    """Put the usage event's table in place as its schema says; tell whether it is. One that is stays, but for `anew`.

    In the caller's transaction, which should hold the usage event's row. What the database refuses is logged and
    left to publish_pending_tables, and harms nothing else of the transaction.
    """
    schema, table = table_sql.schema_name(usage_event.organisation_id), table_name(usage_event.slug)
    stamp = f"usage event {usage_event.pk}, schema version {usage_event.schema_version}, layout {LAYOUT}"
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            if not anew and table_sql.stamp_of(cursor, schema, table) == stamp:
                return True
            patience = table_sql.lock_timeout(cursor)
            table_sql.hold_tables(cursor, usage_event.organisation_id, PATIENCE_MILLISECONDS)
            table_sql.create_schema(cursor, schema)
            source = (usage_event.organisation_id, usage_event.pk)
            table_sql.replace_view(cursor, (schema, table), source, columns_of(usage_event.schema), stamp)
            table_sql.lock_timeout(cursor, patience)
    except DatabaseError as error:
        logger.warning("table %s.%s is not published yet: %s", schema, table, str(error).strip())
        return False
    logger.info("table %s.%s published, schema version %d", schema, table, usage_event.schema_version)
    return True


def publish_pending_tables() -> tuple[int, list[str]]:
    """Publish every table that is missing or out of date; return how many, and the names of those that still wait."""
    with connection.cursor() as cursor:
        stale = table_sql.stale_tables(cursor, LAYOUT)
    return _publish(stale, anew=False)


def publish_all_tables() -> tuple[int, list[str]]:
    """Publish every table anew; return how many, and the names of those that still wait."""
    return _publish(list(UsageEvent.objects.order_by("pk").values_list("pk", flat=True)), anew=True)


def _publish(usage_event_ids: list[int], *, anew: bool) -> tuple[int, list[str]]:
    waiting = []
    for usage_event_id in usage_event_ids:
        with transaction.atomic():
            # Nobody publishes another schema meanwhile; the older table would win.
            usage_event = UsageEvent.objects.select_for_update(no_key=True).get(pk=usage_event_id)
            if not publish_tables(usage_event, anew=anew):
                waiting.append(f"{table_sql.schema_name(usage_event.organisation_id)}.{table_name(usage_event.slug)}")
    return len(usage_event_ids) - len(waiting), waiting
