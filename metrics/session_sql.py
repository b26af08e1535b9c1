"""Statements about a session and its transaction: its moment, its limits, and the locks it holds."""

from datetime import datetime

import psycopg.errors
from django.db import OperationalError
from django.db.backends.utils import CursorWrapper

# Milliseconds that a statement may take, until the transaction ends; compiling it would take longer than running it.
LIMIT_TIME = "SELECT set_config('statement_timeout', %s, true), set_config('jit', 'off', true)"
# Until the transaction ends: group in memory, and go through an index. New batches are unknown to the planner's
# statistics: it takes them for one record, and would sort them on disk; or for many, and would read the whole table.
UNKNOWN_TO_STATISTICS = (
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true),"
    " set_config('work_mem', '64MB', true)"
)


def moment(cursor: CursorWrapper) -> datetime:
    """Return when the transaction began: the moment of a snapshot, the same however often it is asked for."""
    cursor.execute("SELECT transaction_timestamp()")
    (time,) = cursor.fetchone()
    assert isinstance(time, datetime)
    return time


def try_session_lock(cursor: CursorWrapper, purpose: str, object_id: int) -> bool:
    """Take the session's advisory lock for a purpose on an object, or tell that it is taken."""
    cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, %s))", [purpose, object_id])
    return bool(cursor.fetchone()[0])


def wait_for_session_lock(cursor: CursorWrapper, purpose: str, object_id: int, seconds: float) -> bool:
    """Take the session's advisory lock for a purpose on an object, in turn; False if that takes longer than this."""
    cursor.execute("SELECT set_config('lock_timeout', %s, false)", [str(round(seconds * 1000))])
    try:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, %s))", [purpose, object_id])
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            return False
        raise
    finally:
        cursor.execute("RESET lock_timeout")
    return True


def release_session_lock(cursor: CursorWrapper, purpose: str, object_id: int) -> bool:
    """Give the session's advisory lock back; False if this session did not hold it."""
    cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, %s))", [purpose, object_id])
    return bool(cursor.fetchone()[0])
