"""Records in PostgreSQL's binary COPY format, packed by hand: ten columns of known types need no generic dumper.

Source: PostgreSQL documentation, COPY, "Binary Format"; timestamptz is microseconds since 2000-01-01 UTC, jsonb is a
version byte 1 and the text.
"""

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NULL = -1
# field count; id, usage_event_id, customer_id, timestamp, each with its length 8; the length of the key
_HEAD = struct.Struct("!hiqiqiqiqi")
# the length of the data; jsonb's version
_DATA = struct.Struct("!ib")
# batch_id (8), schema_version (4), received_at (8), revision (4)
_TAIL = struct.Struct("!iqiiiqii")


class CopyRow(NamedTuple):
    """What differs from record to record within a batch."""

    id: int
    customer_id: int
    timestamp: datetime
    key: str | None
    data: bytes


def microseconds(moment: datetime) -> int:
    """Return a moment with zone as PostgreSQL's timestamptz counts it."""
    return (moment - _EPOCH) // _MICROSECOND


def copy_bytes(
    rows: Iterable[CopyRow], *, usage_event_id: int, batch_id: int, schema_version: int, received_at: datetime
) -> bytes:
    """Return a whole COPY stream for the columns of usage.sql.COPY_COLUMNS."""
    tail = _TAIL.pack(8, batch_id, 4, schema_version, 8, microseconds(received_at), 4, 1)
    pack_head, pack_data, epoch, microsecond = _HEAD.pack, _DATA.pack, _EPOCH, _MICROSECOND
    parts = [HEADER]
    for record_id, customer_id, timestamp, key, data in rows:
        text = b"" if key is None else key.encode()
        moment = (timestamp - epoch) // microsecond
        length = _NULL if key is None else len(text)
        parts += (
            pack_head(10, 8, record_id, 8, usage_event_id, 8, customer_id, 8, moment, length),
            text,
            pack_data(len(data) + 1, 1),
            data,
            tail,
        )
    parts.append(TRAILER)
    return b"".join(parts)
