"""A real PostgreSQL and a real Valkey from wheels, as child processes of ours: for `make run` and for the tests.

`python -m config.embedded COMMAND …` runs a command with temporary servers up. With `--durable` before the command,
what is committed is on disk, as measurements need. A server whose address the environment gives already (DATABASE_URL,
REDIS_URL) is not started. The settings find a SECRET_KEY and a VAR_DIR to go with them.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from config import children
from config.accounts import Account, ServerError
from config.children import Interrupted, StopSignals
from config.embedded_postgres import Postgres
from config.embedded_valkey import Valkey


class LocalServers:
    """The servers that the environment does not name; as a context, they stop at its end, Valkey first."""

    def __init__(self, folder: Path, signals: StopSignals, *, durable: bool) -> None:
        self.signals = signals
        self.environment: dict[str, str] = {}
        self._missing: dict[str, Postgres | Valkey] = {}
        for variable, kind, name in (("DATABASE_URL", Postgres, "postgres"), ("REDIS_URL", Valkey, "valkey")):
            if not os.environ.get(variable):
                home = folder / name
                self._missing[variable] = kind(home, folder / f"{name}.log", Account.for_servers(home), durable)

    @property
    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        return {server.home.name: server.process for server in self._missing.values() if server.process}

    def __enter__(self) -> "LocalServers":
        try:
            for variable, server in self._missing.items():
                self.environment[variable] = server.start(self.signals)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        for server in reversed(self._missing.values()):
            server.stop()


def run_with_temporary_servers(command: list[str], signals: StopSignals, *, durable: bool = False) -> int:
    """Run a command with servers up that forget everything afterwards; return its exit code as a shell would."""
    folder = Path(tempfile.mkdtemp(prefix="tallybook-"))
    folder.chmod(0o711)  # as root, another account must pass through; what matters is in private folders inside
    (folder / "static").mkdir()
    settings = {"SECRET_KEY": secrets.token_urlsafe(50), "VAR_DIR": str(folder), "WHITENOISE_USE_FINDERS": "true"}
    try:
        with LocalServers(folder, signals, durable=durable) as servers:
            child = children.start(command, stdin=None, env=settings | os.environ | servers.environment)
            signals.pass_on_to = child
            if signals.received:  # between the servers and the command
                child.terminate()
            code = child.wait()
            children.kill_session(child.pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def main() -> int:
    durable = sys.argv[1:2] == ["--durable"]
    command = sys.argv[2 if durable else 1 :]
    if not command:
        print("usage: python -m config.embedded [--durable] COMMAND [ARGUMENT …]", file=sys.stderr)
        return 2
    signals = StopSignals().listen()
    try:
        return run_with_temporary_servers(command, signals, durable=durable)
    except Interrupted as stopped:
        return 128 + signal.Signals[str(stopped)]
    except ServerError as reason:
        print(reason, file=sys.stderr)
        return 1
    finally:
        signals.ignore()


if __name__ == "__main__":
    sys.exit(main())
