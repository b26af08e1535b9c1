"""Real threads with real connections, and every exception of theirs in the test that started them."""

import sys
import threading
import time
import traceback
from collections.abc import Callable

from django.db import connection

LIMIT_SECONDS = 120.0


def run_together(*jobs: Callable[[], None], seconds: float = LIMIT_SECONDS) -> None:
    """Run the jobs at the same time, each with a database connection of its own; raises the first failure.

    Jobs that are still at it after `seconds` fail the test, with the places where they hang, and lose their database
    connections: a lock that nobody gives back shall not hold up everything that comes after.
    """
    failures: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        try:
            start.wait()
            job()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shall show it
            failures.append(error)
        finally:
            connection.close()

    # As daemons: who hangs for good must not keep the process from ending either.
    threads = [threading.Thread(target=run, args=[job], daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    hanging = [thread for thread in threads if thread.is_alive()]
    places = _places(hanging)
    if hanging:
        _end_other_sessions()
        for thread in hanging:
            thread.join(0.5)
    if failures and not hanging:
        raise failures[0]
    if hanging:
        raise AssertionError(f"{len(hanging)} of {len(threads)} jobs did not end in {seconds} s:\n{places}")


def _places(threads: list[threading.Thread]) -> str:
    frames = sys._current_frames()
    return "\n".join(
        "".join(traceback.format_stack(frames[thread.ident])) for thread in threads if thread.ident in frames
    )


def _end_other_sessions() -> None:
    """Have the database take from the threads what they hold: emptying it after the test would wait for that."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )
