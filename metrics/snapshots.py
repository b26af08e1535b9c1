"""One snapshot for several statements, and the locks under which aggregates are written."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from metrics import sql


@contextmanager
def snapshot() -> Iterator[CursorWrapper]:
    """A transaction whose statements all see the database at one moment (REPEATABLE READ).

    It must be the outermost one: an enclosing transaction would have its own, older view, so that raises RuntimeError.
    """
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield cursor


def folding_lock(usage_event_id: int) -> AbstractContextManager[bool]:
    """Hold the right to write the aggregates of a usage event; False if somebody else holds it."""
    return _session_lock("tallybook.fold", usage_event_id)


def building_lock(metric_id: int) -> AbstractContextManager[bool]:
    """Hold the right to build a metric, so that others who would do the same need not wait; False if it is taken."""
    return _session_lock("tallybook.build", metric_id)


@contextmanager
def _session_lock(purpose: str, object_id: int) -> Iterator[bool]:
    """A session lock, taken before any snapshot: the holder's snapshot then shows all that the previous one committed.

    It is re-entrant and lives with the connection; where it cannot be given back, the connection is closed.
    """
    with connection.cursor() as cursor:
        held = sql.try_session_lock(cursor, purpose, object_id)
    try:
        yield held
    finally:
        if held:
            _release(purpose, object_id)


def _release(purpose: str, object_id: int) -> None:
    released = False
    try:
        with connection.cursor() as cursor:
            released = sql.release_session_lock(cursor, purpose, object_id)
    finally:
        if not released:
            connection.close()
