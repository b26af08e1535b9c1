"""Columns of records as arrays in PostgreSQL's binary format: to unnest them costs a fraction of reading JSON.

Source: array_recv in PostgreSQL's src/backend/utils/adt/arrayfuncs.c. The number of dimensions, whether there are
nulls, the element's type, length and lower bound of the dimension; then of each element the length (-1
for null) and the bytes.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import datetime

from usage.copying import microseconds

BIGINTS, TEXTS, TIMESTAMPS = 1016, 1009, 1185  # the types bigint[], text[] and timestamptz[]

_BIGINT, _TEXT, _TIMESTAMP = 20, 25, 1184
_HEAD = struct.Struct("!iiIii")
_EMPTY = struct.Struct("!iiI")
_LENGTH = struct.Struct("!i")
_NUMBER = struct.Struct("!iq")
_NULL = _LENGTH.pack(-1)


def bigints(values: Iterable[int | None]) -> bytes:
    """Return a bigint[]."""
    return _array(_BIGINT, [_NULL if value is None else _NUMBER.pack(8, value) for value in values])


def timestamps(moments: Iterable[datetime]) -> bytes:
    """Return a timestamptz[]."""
    return _array(_TIMESTAMP, [_NUMBER.pack(8, microseconds(moment)) for moment in moments])


def texts(values: Iterable[bytes | None]) -> bytes:
    """Return a text[] of what is UTF-8."""
    return _array(_TEXT, [_NULL if value is None else _LENGTH.pack(len(value)) + value for value in values])


def _array(element: int, items: Sequence[bytes]) -> bytes:
    if not items:
        return _EMPTY.pack(0, 0, element)
    return b"".join([_HEAD.pack(1, 1, element, len(items), 1), *items])
