"""Connections: one that is over is noticed by its silence broken, and only long silence is asked about."""

from collections.abc import Iterator

import psycopg
import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from config.database import base


@pytest.fixture
def kept(transactional_db: None) -> Iterator[None]:
    """A connection that another request used before."""
    connection.ensure_connection()
    vars(connections["default"]).update(health_check_enabled=True, health_check_done=False)
    yield
    connection.close()


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def never() -> bool:
    raise AssertionError("the server was asked")


def test_a_connection_that_was_used_a_moment_ago_is_not_asked(kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = connection.connection
    monkeypatch.setattr(base.base.DatabaseWrapper, "is_usable", lambda self: never())

    backend()

    assert connection.connection is before


def test_a_connection_that_was_silent_for_long_is_asked(kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SURE_SECONDS", 0.0)
    monkeypatch.setattr(base.base.DatabaseWrapper, "is_usable", lambda self: never())

    with pytest.raises(AssertionError, match="asked"):
        backend()


def test_a_connection_that_the_server_closed_is_replaced_before_it_is_used(kept: None) -> None:
    first = connection.connection.info.backend_pid
    with psycopg.connect(**{**connection.get_connection_params(), "cursor_factory": None, "context": None}) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [first])

    assert backend() != first


def test_a_closed_connection_is_not_usable(kept: None) -> None:
    connection.connection.close()

    assert not connection.is_usable()
    with CaptureQueriesContext(connection) as queries:
        backend()
    assert len(queries) == 1
