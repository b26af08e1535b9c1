"""The beat's scheduler: in memory, and stopping between two ticks.

Celery's own keeps its schedule in a file, which its signal handler writes even while it is being written; and that
handler raises SystemExit wherever the beat is, in the middle of an answer of the broker too, where it gets lost.
"""

import signal
from typing import Any

from celery.beat import Scheduler, Service
from celery.signals import beat_init


class MemoryScheduler(Scheduler):
    """The schedule is code; what a restart misses, the tasks catch up from the database."""


@beat_init.connect
def stop_between_ticks(sender: Service, **_: Any) -> None:
    """Take over from the handlers that Celery installs just before."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: sender.stop())
