"""Reading records by filter: pages that cost the same however many records there are, and exports as a stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection
from psycopg import IsolationLevel

from usage import record_sql as sql
from usage.models import UsageEvent
from usage.record_filters import Place, RecordFilter
from usage.record_sql import RecordRow


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Records, newest first, and the places of the pages beside; None where there is none."""

    rows: list[RecordRow]
    next: Place | None
    previous: Place | None


def list_records(asked: RecordFilter, *, place: Place | None = None, page_size: int = 100) -> RecordPage:
    """Return a page of the records asked for, by timestamp or, with a range of received_at, by arrival."""
    backwards = place is not None and place.backwards
    with connection.cursor() as cursor:
        rows = sql.read_page(cursor, asked, place, page_size + 1, backwards=backwards)
    more, rows = len(rows) > page_size, rows[:page_size]
    if backwards:
        rows.reverse()
    first = Place(rows[0].moment, rows[0].id, backwards=True) if rows else None
    last = Place(rows[-1].moment, rows[-1].id) if rows else None
    return RecordPage(
        rows=rows,
        next=last if more or backwards else None,
        previous=first if (more if backwards else place is not None) else None,
    )


def find_record(organisation_id: int, record_id: int) -> RecordRow | None:
    """Return the organisation's record of that id, or None."""
    with connection.cursor() as cursor:
        return sql.read_one(cursor, organisation_id, record_id)


def stream_records(asked: RecordFilter) -> Iterator[RecordRow]:
    """Yield all records asked for, oldest first, usage event by usage event, as they are in one snapshot.

    Memory holds a few hundred rows, however many there are. Closing the generator ends the snapshot.
    """
    usage_events = UsageEvent.objects.filter(organisation_id=asked.organisation_id).order_by("slug")
    if asked.usage_event_id is not None:
        usage_events = usage_events.filter(pk=asked.usage_event_id)
    ids = list(usage_events.values_list("pk", flat=True))
    with _snapshot() as own:
        for usage_event_id in ids:
            with own.chunked_cursor() as cursor:
                yield from sql.read_all(cursor, asked, usage_event_id)


@contextmanager
def _snapshot() -> Iterator[Any]:
    """A connection of its own: the stream outlives the view, and whatever else the thread does must not touch it."""
    own: Any = connection.copy()
    own.inc_thread_sharing()
    try:
        own.connect()
        own.connection.isolation_level = IsolationLevel.REPEATABLE_READ
        own.connection.read_only = True
        own.set_autocommit(False)
        yield own
    finally:
        own.close()
