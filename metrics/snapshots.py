"""One snapshot for several statements, and the locks under which aggregates are written."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from metrics import session_sql


@contextmanager
def snapshot(*, seconds: float | None = None) -> Iterator[CursorWrapper]:
    """A transaction whose statements all see the database at one moment (REPEATABLE READ).

    With `seconds` it is for reading only, and no statement may take longer; without, it groups records in memory. It
    must be the outermost one: an enclosing transaction would have its own, older view, so that raises RuntimeError.
    """
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        if seconds is None:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; " + session_sql.UNKNOWN_TO_STATISTICS)
        else:
            begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; " + session_sql.LIMIT_TIME
            cursor.execute(begin, [str(round(seconds * 1000))])
        yield cursor


def folding_lock(usage_event_id: int, *, patience: float = 0) -> AbstractContextManager[bool]:
    """Hold the right to write the aggregates of a usage event; False if somebody else holds it.

    With patience, wait for it so many seconds. Who waits is the next: folds, which do not wait, let it pass.
    """
    return _session_lock("tallybook.fold", usage_event_id, patience)


def building_lock(metric_id: int) -> AbstractContextManager[bool]:
    """Hold the right to build a metric, so that others who would do the same need not wait; False if it is taken."""
    return _session_lock("tallybook.build", metric_id)


@contextmanager
def _session_lock(purpose: str, object_id: int, patience: float = 0) -> Iterator[bool]:
    """A session lock, taken before any snapshot: the holder's snapshot then shows all that the previous one committed.

    It is re-entrant and lives with the connection; where it cannot be given back, the connection is closed.
    """
    try:
        with connection.cursor() as cursor:
            if patience:
                held = session_sql.wait_for_session_lock(cursor, purpose, object_id, patience)
            else:
                held = session_sql.try_session_lock(cursor, purpose, object_id)
    except BaseException:
        connection.close()  # it may have been taken
        raise
    try:
        yield held
    finally:
        if held:
            _release(purpose, object_id)


def _release(purpose: str, object_id: int) -> None:
    released = False
    try:
        with connection.cursor() as cursor:
            released = session_sql.release_session_lock(cursor, purpose, object_id)
    finally:
        if not released:
            connection.close()
