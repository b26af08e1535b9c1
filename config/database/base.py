"""Connections to PostgreSQL that are asked whether they still stand without a question to the server.

Django asks with SELECT 1 before a request uses a connection that it kept, which costs a single record a tenth of its
time. A connection that the server closed tells so by itself: its socket has something to read.
"""

import select
import time
from typing import Any

from django.db.backends.postgresql import base

SURE_SECONDS = 10.0  # after so long a silence something between us and the server may have dropped the connection


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection as Django has it, whose health check looks at the socket first."""

    _answered_at = float("-inf")

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a new connection, which has just answered."""
        connection = super().get_new_connection(conn_params)
        self._answered_at = time.monotonic()
        return connection

    def is_usable(self) -> bool:
        """Return whether the connection stands: by its silence if it was used a moment ago, else by asking."""
        moment = time.monotonic()
        if moment - self._answered_at < SURE_SECONDS and self.connection is not None and not _spoke(self.connection):
            self._answered_at = moment
            return True
        usable = super().is_usable()
        self._answered_at = moment if usable else float("-inf")
        return usable


def _spoke(connection: Any) -> bool:
    """Whether there is something to read from a connection that nobody asked anything: mostly that it is over."""
    if connection.closed:
        return True
    watched = select.poll()
    watched.register(connection.fileno(), select.POLLIN)
    return bool(watched.poll(0))
