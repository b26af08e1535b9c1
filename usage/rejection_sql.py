"""Every statement on the quarantine: a name, what it does, the index it relies on."""

from datetime import date, datetime

from django.db.backends.utils import CursorWrapper


def count_again(
    cursor: CursorWrapper, usage_event_id: int, times: dict[bytes, int], seen_at: datetime
) -> dict[bytes, int]:
    """Count open entries that came again, and return their ids by fingerprint.

    Unique index (usage_event, fingerprint) where open. Locked in the order of the index, like the inserts.
    """
    cursor.execute(
        """
        WITH again AS (
            SELECT entry.id, entry.fingerprint, seen.times
            FROM unnest(%(fingerprints)s::bytea[], %(times)s::int[]) AS seen (fingerprint, times)
            JOIN usage_rejectedrecord AS entry USING (fingerprint)
            WHERE entry.usage_event_id = %(usage_event_id)s AND entry.status = 'open'
            ORDER BY entry.fingerprint FOR UPDATE OF entry
        )
        UPDATE usage_rejectedrecord AS entry
        SET times = entry.times + again.times, last_seen_at = %(seen_at)s
        FROM again
        WHERE entry.id = again.id AND entry.usage_event_id = %(usage_event_id)s AND entry.status = 'open'
        RETURNING entry.fingerprint, entry.id
        """,
        {
            "usage_event_id": usage_event_id,
            "fingerprints": list(times),
            "times": list(times.values()),
            "seen_at": seen_at,
        },
    )
    return {bytes(fingerprint): entry_id for fingerprint, entry_id in cursor.fetchall()}


def take_room(cursor: CursorWrapper, organisation_id: int, day: date, wanted: int, cap: int) -> int:
    """Take room for new entries of a day, and return how many fit; the others are counted as dropped. Primary key."""
    if not wanted:
        return 0
    key: list[int | date] = [organisation_id, day]
    cursor.execute(
        "INSERT INTO usage_quarantineday (organisation_id, day, kept, dropped) VALUES (%s, %s, 0, 0)"
        " ON CONFLICT DO NOTHING",
        key,
    )
    cursor.execute("SELECT kept FROM usage_quarantineday WHERE organisation_id = %s AND day = %s FOR UPDATE", key)
    (kept,) = cursor.fetchone()
    room = max(0, min(wanted, cap - kept))
    cursor.execute(
        "UPDATE usage_quarantineday SET kept = kept + %s, dropped = dropped + %s"
        " WHERE organisation_id = %s AND day = %s",
        [room, wanted - room, *key],
    )
    return room


def insert_rejected(
    cursor: CursorWrapper, usage_event_id: int, batch_id: int, seen_at: datetime, rows: str
) -> dict[bytes, int]:
    """Insert entries, in the order of their fingerprints, and return their ids by fingerprint.

    An equal one that another transaction inserted meanwhile is counted. Unique index (usage_event, fingerprint) where
    open.
    """
    cursor.execute(
        """
        INSERT INTO usage_rejectedrecord AS entry
            (usage_event_id, batch_id, fingerprint, times, idempotency_key, code, pointer, message, payload, status,
             first_seen_at, last_seen_at, closing_reason, closed_by_name)
        SELECT %(usage_event_id)s, %(batch_id)s, decode(row.fingerprint, 'hex'), row.times, row.idempotency_key,
               row.code, row.pointer, row.message, row.payload, 'open', %(seen_at)s, %(seen_at)s, '', ''
        FROM json_to_recordset(%(rows)s::json) AS row (fingerprint text, times int, idempotency_key text, code text,
                                                       pointer text, message text, payload text)
        ON CONFLICT (usage_event_id, fingerprint) WHERE status = 'open'
        DO UPDATE SET times = entry.times + excluded.times, last_seen_at = excluded.last_seen_at
        RETURNING fingerprint, id
        """,
        {"usage_event_id": usage_event_id, "batch_id": batch_id, "seen_at": seen_at, "rows": rows},
    )
    return {bytes(fingerprint): entry_id for fingerprint, entry_id in cursor.fetchall()}


def change_causes(cursor: CursorWrapper, usage_event_id: int, rows: str, seen_at: datetime) -> None:
    """Give open entries the cause, and where it was mended the payload, that they have now. Primary key."""
    cursor.execute(
        """
        UPDATE usage_rejectedrecord AS entry
        SET fingerprint = decode(row.fingerprint, 'hex'), idempotency_key = row.idempotency_key, code = row.code,
            pointer = row.pointer, message = row.message, payload = row.payload, last_seen_at = %(seen_at)s
        FROM json_to_recordset(%(rows)s::json) AS row (id bigint, fingerprint text, idempotency_key text, code text,
                                                       pointer text, message text, payload text)
        WHERE entry.id = row.id AND entry.usage_event_id = %(usage_event_id)s AND entry.status = 'open'
        """,
        {"usage_event_id": usage_event_id, "rows": rows, "seen_at": seen_at},
    )


def close_delivered(
    cursor: CursorWrapper, usage_event_id: int, batch_id: int, keys: list[str], closed_at: datetime
) -> None:
    """Close the open entries of records that have now been stored. Index (usage_event, idempotency_key) where open."""
    cursor.execute(
        """
        UPDATE usage_rejectedrecord
        SET status = 'delivered', closed_at = %(closed_at)s, closing_batch_id = %(batch_id)s
        WHERE usage_event_id = %(usage_event_id)s AND status = 'open' AND idempotency_key = ANY (%(keys)s)
        """,
        {"usage_event_id": usage_event_id, "batch_id": batch_id, "keys": keys, "closed_at": closed_at},
    )
