"""Every statement on records that the ORM would not write as well: a name, what it does, the index it relies on."""

from datetime import datetime
from typing import Any

from django.db.backends.utils import CursorWrapper

from usage.schema_sql import SCHEMA_LOCK

COPY_COLUMNS = (
    "id, usage_event_id, customer_id, timestamp, idempotency_key, data, batch_id, schema_version, received_at, revision"
)


def announce(cursor: CursorWrapper, act: str) -> None:
    """Tell the trigger on records which act is about to change them; holds until the transaction ends."""
    cursor.execute("SELECT set_config('tallybook.act', %s, true)", [act])


def open_batch(
    cursor: CursorWrapper, batch: dict[str, Any], records: int
) -> tuple[int, datetime, bool, list[int]] | None:
    """Write the batch row, tell whether its usage event has identities in quarantine, and allot ids in the order sent.

    First waits for who is publishing a schema, and lets nobody publish one until the transaction ends. This statement
    does not see what was published while it waited: the next one has to look (`is_revision`, `insert_fresh`).
    The row is written only if the usage event is live and unchanged since the records were checked, customers'
    aliases are too, and the API key (if any) is live and may post: else None. Primary keys only.
    """
    cursor.execute(
        f"""
        WITH batch AS (
            INSERT INTO usage_ingestbatch (usage_event_id, source, api_key_id, user_id, upload_id,
                                           accepted, duplicates, conflicts, rejected, received_at)
            SELECT usage_event.id, %(source)s, %(api_key_id)s, %(user_id)s, %(upload_id)s::bigint,
                   %(accepted)s, %(duplicates)s, 0, %(rejected)s, clock_timestamp()
            FROM (SELECT pg_advisory_xact_lock_shared({SCHEMA_LOCK})) AS shared
            CROSS JOIN usage_usageevent AS usage_event
            JOIN customers_organisation AS organisation ON organisation.id = usage_event.organisation_id
            WHERE usage_event.id = %(usage_event_id)s
              AND usage_event.archived_at IS NULL
              AND usage_event.revision = %(definition_revision)s
              AND organisation.aliases_revision = %(aliases_revision)s
              AND (%(api_key_id)s::bigint IS NULL OR EXISTS (
                  SELECT FROM customers_apikey AS key
                  WHERE key.id = %(api_key_id)s AND key.organisation_id = usage_event.organisation_id
                    AND key.revoked_at IS NULL AND 'ingest' = ANY (key.scopes)
                    AND (key.expires_at IS NULL OR key.expires_at > clock_timestamp())))
            RETURNING id, usage_event_id, received_at
        ), pending AS (
            INSERT INTO usage_pendingbatch (batch_id, usage_event_id)
            SELECT id, usage_event_id FROM batch WHERE %(accepted)s > 0
        )
        SELECT id, received_at,
               EXISTS (SELECT FROM usage_rejectedrecord AS waiting
                       WHERE waiting.usage_event_id = %(usage_event_id)s AND waiting.status = 'open'
                         AND waiting.idempotency_key IS NOT NULL),
               ARRAY (SELECT nextval('usage_usagerecord_id_seq') FROM generate_series(1, %(records)s))
        FROM batch
        """,
        {**batch, "records": records},
    )
    row: tuple[int, datetime, bool, list[int]] | None = cursor.fetchone()
    return row


def store_fresh(cursor: CursorWrapper, batch: dict[str, Any], rows: str) -> tuple[int, datetime] | None:
    """Write a batch and its records, believed to be new, in one statement, which commits where no transaction is open.

    Returns the batch's id and when it was received. None, and nothing is written, where open_batch would write none,
    or where the usage event has identities in quarantine. A known identity raises IntegrityError. Ids follow `index`,
    rows go in by the order of their keys.
    """
    cursor.execute(
        """
        SELECT batch, stored_at FROM tallybook_store_fresh(
            %(usage_event_id)s, %(definition_revision)s, %(aliases_revision)s, %(schema_version)s, %(source)s,
            %(api_key_id)s, %(user_id)s, %(upload_id)s, %(duplicates)s, %(rows)s::json)
        """,
        {**batch, "rows": rows},
    )
    batch_id, received_at = cursor.fetchone()
    return None if batch_id is None else (batch_id, received_at)


def close_batch(cursor: CursorWrapper, batch_id: int, usage_event_id: int, counts: dict[str, int]) -> None:
    """Write the counts that were known only after the records were stored. Primary key."""
    cursor.execute(
        """
        WITH batch AS (
            UPDATE usage_ingestbatch
            SET accepted = %(accepted)s, duplicates = %(duplicates)s, conflicts = %(conflicts)s, rejected = %(rejected)s
            WHERE id = %(batch_id)s AND usage_event_id = %(usage_event_id)s
            RETURNING id, usage_event_id
        )
        INSERT INTO usage_pendingbatch (batch_id, usage_event_id)
        SELECT id, usage_event_id FROM batch WHERE %(accepted)s > 0
        """,
        {**counts, "batch_id": batch_id, "usage_event_id": usage_event_id},
    )


_ROWS = """
    json_to_recordset(%(rows)s::json)
        AS row (id bigint, customer_id bigint, "timestamp" timestamptz, key text, data jsonb)
"""

_INSERT = f"""
    INSERT INTO usage_usagerecord ({COPY_COLUMNS})
    SELECT row.id, %(usage_event_id)s, row.customer_id, row.timestamp, row.key, row.data,
           %(batch_id)s, %(schema_version)s, %(received_at)s, 1
    FROM {_ROWS}
"""


def copy_fresh(cursor: CursorWrapper, stream: bytes) -> None:
    """Copy records that are believed to be new, in binary format; a known identity raises IntegrityError."""
    # Django wraps what a cursor's execute raises, not what its copy raises.
    statement = f"COPY usage_usagerecord ({COPY_COLUMNS}) FROM STDIN (FORMAT binary)"
    with cursor.db.wrap_database_errors, cursor.copy(statement) as copy:
        copy.write(stream)


def insert_fresh(cursor: CursorWrapper, batch: dict[str, Any], rows: str) -> int:
    """Insert records that are believed to be new, in the order of `rows`; a known identity raises IntegrityError.

    Returns how many were inserted: none if the usage event is at another revision than the records were checked under.
    """
    cursor.execute(
        _INSERT + "WHERE EXISTS (SELECT FROM usage_usageevent WHERE id = %(usage_event_id)s"
        " AND revision = %(definition_revision)s)",
        {**batch, "rows": rows},
    )
    return cursor.rowcount


def insert_unknown(cursor: CursorWrapper, batch: dict[str, Any], rows: str) -> set[int]:
    """Insert the records whose identity is not stored yet, in the order of `rows`, and return their ids.

    Waits for another transaction that is storing the same identity. Unique index (usage_event, idempotency_key).
    """
    cursor.execute(
        _INSERT + "ON CONFLICT (usage_event_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING "
        "RETURNING id",
        {**batch, "rows": rows},
    )
    return {record_id for (record_id,) in cursor.fetchall()}


def known_keys(cursor: CursorWrapper, usage_event_id: int, keys: list[str]) -> set[str]:
    """Return those of the identities that are stored. Unique index (usage_event, idempotency_key)."""
    cursor.execute(
        "SELECT idempotency_key FROM usage_usagerecord WHERE usage_event_id = %s AND idempotency_key = ANY (%s)",
        [usage_event_id, keys],
    )
    return {key for (key,) in cursor.fetchall()}


def compare_with_first(cursor: CursorWrapper, usage_event_id: int, rows: str) -> dict[int, bool]:
    """Tell for each row, by its id, whether it means what was first ingested under its identity.

    What was first ingested is the oldest revision's before-image, or the record itself if nothing changed it. Must
    be a statement of its own, after the insert: the insert's snapshot does not show what it waited for.
    Unique indexes (usage_event, idempotency_key) and (usage_event, record, revision).
    """
    cursor.execute(
        f"""
        SELECT row.id,
               row.customer_id = COALESCE(first.customer_id, record.customer_id)
               AND row.timestamp = COALESCE(first.timestamp, record.timestamp)
               AND row.data = COALESCE(first.data, record.data)
        FROM {_ROWS}
        JOIN usage_usagerecord AS record
          ON record.usage_event_id = %(usage_event_id)s AND record.idempotency_key = row.key
        LEFT JOIN usage_recordrevision AS first
          ON first.usage_event_id = record.usage_event_id AND first.record_id = record.id AND first.revision = 1
        """,
        {"usage_event_id": usage_event_id, "rows": rows},
    )
    return dict(cursor.fetchall())


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
