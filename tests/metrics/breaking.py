"""Something goes wrong before the n-th statement or commit of this process: once, and wherever that happens to be."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import psycopg
from django.db import OperationalError, connections


class Broken(Exception):
    """What no code expects."""


class Steps:
    """Counts statements and commits; before number `breaks_at` it does `harm`."""

    def __init__(self, breaks_at: int, harm: Callable[[str], None]) -> None:
        self.taken, self.breaks_at, self.harm = 0, breaks_at, harm

    @property
    def broken(self) -> bool:
        return self.taken >= self.breaks_at

    def step(self, kind: str) -> None:
        self.taken += 1
        if self.taken == self.breaks_at:
            self.harm(kind)


@contextmanager
def breaking(breaks_at: int, harm: Callable[[str], None]) -> Iterator[Steps]:
    """Count the steps on the default connection inside the block, and break there."""
    connection = connections["default"]
    steps = Steps(breaks_at, harm)
    commit = connection._commit  # type: ignore[attr-defined]

    def run(execute: Callable[..., Any], *arguments: Any) -> Any:
        steps.step("statement")
        return execute(*arguments)

    def run_commit() -> None:
        steps.step("commit")
        commit()

    with connection.execute_wrapper(run), mock.patch.object(connection, "_commit", run_commit):
        yield steps


def fail(kind: str) -> None:
    """Raise: at a statement anything, at a commit what a database would say."""
    raise Broken if kind == "statement" else OperationalError("the commit did not go through")


def lose_connection(kind: str) -> None:
    """Have the database end our session, and wait until it has."""
    connection = connections["default"]
    ours = connection.connection.info.backend_pid
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [ours])
        while other.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [ours]).fetchone() is not None:
            time.sleep(0.001)
