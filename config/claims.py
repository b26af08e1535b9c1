"""What a run needs for itself alone: its folder and its port."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.children import StopSignals, tell


class CannotRun(Exception):
    """Something is wrong before or while running; the text is for the person at the console."""


@contextmanager
def claimed_folder(var: Path) -> Iterator[bool]:
    """Hold `var/run.lock`, which the kernel frees however we end; raise CannotRun if another run holds it.

    Yields whether the run before us was killed: one that ends in order leaves the file empty.
    """
    with (var / "run.lock").open("a+") as lock:
        lock.seek(0)
        earlier = lock.read().strip()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotRun(f"Tallybook is already running in this folder (process {earlier}).") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield bool(earlier)
        finally:
            lock.truncate(0)


def claimed_port(host: str, signals: StopSignals, patience: float) -> int:
    """Return PORT (default 8000), waiting for whoever has it still; raise CannotRun if it cannot be ours."""
    text = os.environ.get("PORT") or "8000"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise CannotRun(f"PORT is {text!r}; a number from 1 to 65535 was expected.")
    deadline = time.monotonic() + patience
    if patience and is_taken(host, int(text)):
        tell(f"waiting for port {text}: the web server of a run that was killed may still be ending")
    while is_taken(host, int(text)):
        if time.monotonic() >= deadline:
            raise CannotRun(f"Port {text} is taken by another program. Stop it, or choose a port: make run PORT=8001")
        time.sleep(0.5)
        signals.check()
    return int(text)


def is_taken(host: str, port: int) -> bool:
    """Return whether somebody listens there already; raise CannotRun if this account may not."""
    try:
        # A program on the other address of `localhost` would get the requests that our own address promises to answer.
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        pass
    else:
        return True
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError as error:
            raise CannotRun(f"This account may not open port {port}; choose one above 1023.") from error
        except OSError:
            return True
    return False
