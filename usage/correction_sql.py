"""The statements that change records: each keeps before-images, marks the hours that it touches, and is announced."""

from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper

from customers.exactjson import dumps, loads
from usage.models import UsageRecord

_COLUMNS = [field.attname for field in UsageRecord._meta.concrete_fields]


def announce(cursor: CursorWrapper, act: str) -> None:
    """Tell the trigger on records which act is about to change them; holds until the transaction ends."""
    cursor.execute("SELECT set_config('tallybook.act', %s, true)", [act])


def read_record(cursor: CursorWrapper, record_id: int) -> tuple[UsageRecord, int, str, int] | None:
    """Return a record, and of its usage event the organisation, the slug and the revision; None if there is none.

    Primary keys.
    """
    columns = ", ".join(f'record."{name}"' for name in _COLUMNS)
    cursor.execute(
        f"""
        SELECT usage_event.organisation_id, usage_event.slug, usage_event.revision, {columns}
        FROM usage_usagerecord AS record JOIN usage_usageevent AS usage_event ON usage_event.id = record.usage_event_id
        WHERE record.id = %s
        """,
        [record_id],
    )
    row = cursor.fetchone()
    if row is None:
        return None
    values = dict(zip(_COLUMNS, row[3:], strict=True))
    values["data"] = loads(values["data"])
    return UsageRecord.from_db("default", _COLUMNS, list(values.values())), *row[:3]


def correct_record(cursor: CursorWrapper, change: dict[str, Any]) -> bool:
    """Correct a record as one statement, which commits by itself where no transaction is open.

    `change` has the keys of the record, `revision` and `definition_revision` as they were read, reason and actor, and
    of customer_id, timestamp, data and schema_version those that change. False, and nothing is changed, if the record
    or its usage event is not as it was read. Primary keys.
    """
    cursor.execute("SELECT tallybook_correct_record(%s)", [dumps(change)])
    return bool(cursor.fetchone()[0])


def revise_records(cursor: CursorWrapper, change: dict[str, Any]) -> None:
    """Keep the before-images of records that an act is about to change, of each one. Primary keys."""
    cursor.execute(
        """
        INSERT INTO usage_recordrevision (usage_event_id, record_id, revision, action, customer_id, sender_customer_id,
                                          timestamp, data, voided_at, reason, actor_id, actor_name, created_at)
        SELECT record.usage_event_id, record.id, record.revision, %(action)s, record.customer_id, customer.external_id,
               record.timestamp, record.data, record.voided_at, %(reason)s, %(actor_id)s, %(actor_name)s,
               clock_timestamp()
        FROM usage_usagerecord AS record JOIN customers_customer AS customer ON customer.id = record.customer_id
        WHERE record.usage_event_id = %(usage_event_id)s AND record.id = ANY (%(record_ids)s)
        """,
        change,
    )
    if cursor.rowcount != len(change["record_ids"]):
        raise LookupError(f"{len(change['record_ids'])} before-images were expected, {cursor.rowcount} could be kept")


def mark_windows(cursor: CursorWrapper, usage_event_id: int, record_ids: list[int]) -> None:
    """Mark the hours in which the records lie at this moment as changed. Primary key."""
    cursor.execute(
        """
        INSERT INTO usage_changedwindow (usage_event_id, customer_id, window_start)
        SELECT DISTINCT usage_event_id, customer_id, date_trunc('hour', timestamp, 'UTC')
        FROM usage_usagerecord
        WHERE usage_event_id = %s AND id = ANY (%s)
        """,
        [usage_event_id, record_ids],
    )


def set_voided(cursor: CursorWrapper, usage_event_id: int, record_ids: list[int], voided_at: datetime | None) -> None:
    """Void records, or restore them with None. Primary key."""
    cursor.execute(
        "UPDATE usage_usagerecord SET voided_at = %s, revision = revision + 1"
        " WHERE usage_event_id = %s AND id = ANY (%s)",
        [voided_at, usage_event_id, record_ids],
    )
