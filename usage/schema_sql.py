"""The lock between those who store data under a schema and those who change it, and which schema is in force."""

from django.db.backends.utils import CursorWrapper

# Held, shared, from before data are stored until they are committed; alone, by who publishes a schema.
SCHEMA_LOCK = "hashtextextended('schema', %(usage_event_id)s)"


def share_schema(cursor: CursorWrapper, usage_event_id: int) -> None:
    """Wait until nobody is publishing, and let nobody publish until this transaction ends.

    What was read before may be out of date; what is read after this stays true.
    """
    cursor.execute(f"SELECT pg_advisory_xact_lock_shared({SCHEMA_LOCK})", {"usage_event_id": usage_event_id})


def own_schema(cursor: CursorWrapper, usage_event_id: int) -> None:
    """Wait until everything that is being stored is committed, and let nobody store until this transaction ends."""
    cursor.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})", {"usage_event_id": usage_event_id})
