"""Arrays in binary format: PostgreSQL reads back what was packed."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg.pq import Format

from usage import arrays

MOMENTS = [datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pack", "oid", "values", "expected"),
    [
        (arrays.bigints, arrays.BIGINTS, [1, None, -(2**63), 2**63 - 1], [1, None, -(2**63), 2**63 - 1]),
        (arrays.timestamps, arrays.TIMESTAMPS, MOMENTS, MOMENTS),
        (arrays.texts, arrays.TEXTS, ['é{},"\\'.encode(), b"", None, b"NULL"], ['é{},"\\', "", None, "NULL"]),
        *((pack, oid, [], []) for pack, oid in ((arrays.bigints, arrays.BIGINTS), (arrays.texts, arrays.TEXTS))),
    ],
)
def test_what_was_packed_is_read_back(pack: Callable[..., bytes], oid: int, values: Any, expected: Any) -> None:
    connection.ensure_connection()
    result = connection.connection.pgconn.exec_params(b"SELECT $1", [pack(values)], [oid], [Format.BINARY])

    loaded = psycopg.adapt.Transformer(connection.connection)
    loaded.set_pgresult(result)
    assert loaded.load_row(0, tuple) == (expected,)
