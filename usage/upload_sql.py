"""The lock under which an upload is worked on: one worker at a time, and it dies with its holder."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

PURPOSE = "tallybook.upload"


@contextmanager
def working_on(upload_id: int) -> Iterator[bool]:
    """Hold the right to work on an upload; False if another worker holds it.

    A session lock: it is given back when the connection ends, however that comes. Whoever cannot give it back closes
    the connection.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, %s))", [PURPOSE, upload_id])
            held = bool(cursor.fetchone()[0])
    except BaseException:
        connection.close()  # it may have been taken
        raise
    try:
        yield held
    finally:
        if held:
            _release(upload_id)


def _release(upload_id: int) -> None:
    released = False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, %s))", [PURPOSE, upload_id])
            released = bool(cursor.fetchone()[0])
    finally:
        if not released:
            connection.close()
