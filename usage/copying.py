"""Records in PostgreSQL's binary COPY format, packed by hand: ten columns of known types need no generic dumper.

Source: PostgreSQL documentation, COPY, "Binary Format"; timestamptz is microseconds since 2000-01-01 UTC, jsonb is a
version byte 1 and the text.
"""

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NULL = -1
# the number of columns, then the length of the id
_START = struct.pack("!hi", 10, 8)
# usage_event_id with its length; the length of what follows it
_USAGE_EVENT = struct.Struct("!iqi")
_LENGTH_OF_MOMENT = struct.pack("!i", 8)
# batch_id (8), schema_version (4), received_at (8), revision (4)
_TAIL = struct.Struct("!iqiiiqii")


class CopyColumns(NamedTuple):
    """What differs from record to record within a batch, column by column."""

    ids: list[int]
    customer_ids: list[int]
    timestamps: list[datetime]
    keys: list[str | None]
    data: list[bytes]

    def in_key_order(self) -> "CopyColumns":
        """Return the same records in the order of their keys; those without one come first."""
        keys = [key or "" for key in self.keys]
        if keys == sorted(keys):  # mostly: UUIDv7 goes with time
            return self
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return CopyColumns(
            [self.ids[place] for place in order],
            [self.customer_ids[place] for place in order],
            [self.timestamps[place] for place in order],
            [self.keys[place] for place in order],
            [self.data[place] for place in order],
        )


class _Packers(dict[int, Callable[..., bytes]]):
    """By the length of the key: what packs a row up to its data.

    That is _START, id, _USAGE_EVENT, customer_id, _LENGTH_OF_MOMENT, timestamp, the key with its length, the length of
    the data, and jsonb's version.
    """

    def __missing__(self, length: int) -> Callable[..., bytes]:
        self[length] = struct.Struct(f"!6sq16sq4sqi{max(length, 0)}sib").pack
        return self[length]


_packers = _Packers()


def microseconds(moment: datetime) -> int:
    """Return a moment with zone as PostgreSQL's timestamptz counts it."""
    return (moment - _EPOCH) // _MICROSECOND


def copy_bytes(
    columns: CopyColumns, *, usage_event_id: int, batch_id: int, schema_version: int, received_at: datetime
) -> bytes:
    """Return a whole COPY stream for the columns of usage.sql.COPY_COLUMNS."""
    ids, customer_ids, timestamps, keys, data = columns
    usage_event = _USAGE_EVENT.pack(8, usage_event_id, 8)
    tail = _TAIL.pack(8, batch_id, 4, schema_version, 8, microseconds(received_at), 4, 1)
    texts = [b"" if key is None else key.encode() for key in keys]
    lengths = [_NULL if key is None else len(text) for key, text in zip(keys, texts, strict=True)]
    sizes = [len(one) + 1 for one in data]
    since = [moment - _EPOCH for moment in timestamps]
    moments = [(time.days * 86_400 + time.seconds) * 1_000_000 + time.microseconds for time in since]
    # Each row is three parts of one long list: what is packed, the data, the tail.
    parts = [tail] * (3 * len(ids) + 1)
    parts[0] = HEADER
    parts[1::3] = [
        _packers[length](_START, record_id, usage_event, customer_id, _LENGTH_OF_MOMENT, moment, length, text, size, 1)
        for record_id, customer_id, moment, length, text, size in zip(
            ids, customer_ids, moments, lengths, texts, sizes, strict=True
        )
    ]
    parts[2::3] = data
    parts.append(TRAILER)
    return b"".join(parts)
