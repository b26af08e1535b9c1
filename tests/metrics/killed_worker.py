"""A worker that kills itself: for each number that it reads it folds in a process of its own, up to that statement.

`python -m tests.metrics.killed_worker USAGE_EVENT_ID`; writes the signal that ended each process, 0 for none.
"""

import os
import signal
import sys

import django


def work(usage_event_id: int) -> None:
    """Read numbers until the input ends. What is loaded once and has no connection can be forked quickly."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            die_at(int(line), usage_event_id)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)


def die_at(number: int, usage_event_id: int) -> None:
    with breaking(number, lambda kind: os.kill(os.getpid(), signal.SIGKILL)):
        fold(usage_event_id)
    os._exit(0)


if __name__ == "__main__":
    django.setup()
    from metrics.materialization import fold
    from tests.metrics.breaking import breaking

    work(int(sys.argv[1]))
