"""Child processes: each in a session of its own, tied to our life, signalled once, stopped in order."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec a child may do little more than call it.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def tell(text: str) -> None:
    """Print a line at once. A console that is gone must not keep us from stopping what we started."""
    try:
        print(text, flush=True)
    except OSError:
        pass


class Interrupted(Exception):
    """Somebody asked us to stop while we were waiting for something."""


class StopSignals:
    """Notes SIGINT, SIGTERM and SIGHUP instead of dying of them; waits look here by `check()`.

    A signal often comes twice, from make and from the terminal's process group: within a second it counts as one.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.pass_on_to: subprocess.Popen[bytes] | None = None
        self._last_seen: dict[int, float] = {}

    def listen(self) -> "StopSignals":
        for signum in self.SIGNALS:
            # Under nohup a closed terminal is no reason to stop.
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._note)
        return self

    def ignore(self) -> None:
        """For the last moments, when all is stopped and a late signal must not change the exit code."""
        for signum in self.SIGNALS:
            signal.signal(signum, signal.SIG_IGN)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        before, now = self._last_seen.get(signum, -1.0), time.monotonic()
        self._last_seen[signum] = now
        self.received = self.received or signal.Signals(signum)
        if self.pass_on_to and now - before > 1:
            self.pass_on_to.send_signal(signum)

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self.received:
            raise Interrupted(self.received.name)


def start(
    command: Sequence[str | Path],
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: int | None = None,
    group: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that a Ctrl-C reaches us alone and we pass on what should be.

    On Linux the kernel sends it `stop_signal` should we be killed. Call this from the main thread: the kernel means
    the thread that started the child.
    """
    ours = os.getpid()

    def tie_to_parent() -> None:
        if LIBC is not None:
            LIBC.prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
            if os.getppid() != ours:  # killed before the line above
                os._exit(1)

    return subprocess.Popen(
        [os.fspath(part) for part in command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=env,
        start_new_session=True,
        preexec_fn=tie_to_parent,  # runs after the change of account, which would undo it
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )


def stop(child: subprocess.Popen[bytes], stop_signal: signal.Signals, patience: float) -> int:
    """Ask once, wait `patience` seconds, then kill the child and what it started. Return its exit code."""
    if child.poll() is None:
        child.send_signal(stop_signal)
    return wait_or_kill(child, patience)


def wait_or_kill(child: subprocess.Popen[bytes], patience: float) -> int:
    """Wait for a child that was asked to stop; after `patience` seconds kill it and everything in its session."""
    try:
        return child.wait(patience)
    except subprocess.TimeoutExpired:
        tell(f"process {child.pid} did not stop within {patience:.0f} s and is killed")
        kill_session(child.pid)
        return child.wait()


def kill_session(session: int) -> None:
    """Kill every process of a session; a child leads one, and what it started stays in it unless it left."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                process.kill()
        except (ProcessLookupError, PermissionError, psutil.Error):
            pass  # gone meanwhile, or not ours


def wait_until(
    ready: Callable[[], bool], child: subprocess.Popen[bytes], patience: float, signals: StopSignals
) -> bool:
    """Return True once `ready()` is, False if the child ended or time ran out first; raise Interrupted on a signal."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        signals.check()
        if child.poll() is not None:
            return False
        if ready():
            return True
        time.sleep(0.03)
    return False


def left_running(program: str, directory: Path) -> list[psutil.Process]:
    """Return the running processes of `program` that were started on `directory`, so by an earlier run.

    The command line is looked at, not the working directory: in a container even root may not see the latter.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == program and str(directory) in process.cmdline():
                found.append(process)
        except psutil.Error:
            pass  # gone meanwhile, or somebody else's
    return found


def stop_left_running(processes: list[psutil.Process], stop_signal: signal.Signals, patience: float) -> None:
    """Ask an earlier run's servers to stop; kill those that are still there after `patience` seconds."""
    for process in processes:
        tell(f"stopping {process.name()} (process {process.pid}), which a killed run left behind")
        process.send_signal(stop_signal)
    deadline = time.monotonic() + patience
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in filter(alive, processes):
        process.kill()


def alive(process: psutil.Process) -> bool:
    """Return whether it still runs; a dead one that nobody reaps, as in a container without an init, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
