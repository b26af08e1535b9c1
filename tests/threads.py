"""Real threads with real connections, and every exception of theirs in the test that started them."""

import threading
from collections.abc import Callable

from django.db import connection


def run_together(*jobs: Callable[[], None]) -> None:
    """Run the jobs at the same time, each with a database connection of its own; raises the first failure."""
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

    threads = [threading.Thread(target=run, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
