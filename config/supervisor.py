"""What `make run` runs: the servers, then web, worker and beat on one console, until a signal or a death stops all."""

import http.client
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

from config import children
from config.accounts import ServerError, remembered_secret
from config.children import Interrupted, StopSignals, tell
from config.claims import CannotRun, claimed_folder, claimed_port
from config.embedded import LocalServers

BASE_DIR = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
COLOURS = {"web": 36, "worker": 32, "beat": 35}
GLANCE = 0.2  # seconds between two looks at signals and deaths
AS_ROOT_ON_PURPOSE = "ignore:You're running the worker with superuser privileges"
PATIENCE = 30  # seconds for requests and tasks under way, before they are killed


class Console:
    """Prints what the children say, a whole line at a time, each after the name of who said it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._unfinished: dict[str, bytes] = {}
        self._colourful = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def listen_to(self, name: str, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout
        os.set_blocking(child.stdout.fileno(), False)
        self._selector.register(child.stdout, selectors.EVENT_READ, name)
        self._unfinished[name] = b""

    def relay(self, seconds: float) -> None:
        """Print what comes within so many seconds; return after the first of it."""
        for key, _ in self._selector.select(seconds):
            said = os.read(key.fd, 65536)
            if not said:
                self._selector.unregister(key.fileobj)
            *lines, rest = (self._unfinished[key.data] + said).split(b"\n")
            if rest and not said:
                lines, rest = [*lines, rest], b""
            self._unfinished[key.data] = rest
            for line in filter(None, (line.decode(errors="replace").rstrip() for line in lines)):
                self.say(key.data, line)

    def say(self, name: str, line: str) -> None:
        prefix = f"{name:<7}|"
        tell(
            f"\x1b[{COLOURS[name]}m{prefix}\x1b[0m {line}"
            if self._colourful and name in COLOURS
            else f"{prefix} {line}"
        )


class Tallybook:
    """The application's own processes: web, worker and beat."""

    def __init__(self, environment: dict[str, str], console: Console, signals: StopSignals) -> None:
        self.environment = environment
        self.console = console
        self.signals = signals
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def manage(self, *arguments: str) -> str:
        """Run a management command to its end and return what it printed."""
        step = children.start(
            [PYTHON, "manage.py", *arguments], cwd=BASE_DIR, env=self.environment, stdout=subprocess.PIPE
        )
        printed = b""
        assert step.stdout
        try:
            os.set_blocking(step.stdout.fileno(), False)
            while step.poll() is None:
                self.signals.check()
                printed += step.stdout.read() or b""
                time.sleep(0.03)
            printed += step.stdout.read() or b""
        finally:
            children.stop(step, signal.SIGTERM, PATIENCE)
        if step.returncode != 0:
            raise CannotRun(f"{printed.decode()}manage.py {arguments[0]} failed with exit code {step.returncode}.")
        return printed.decode()

    def start(self, name: str, *command: str) -> None:
        child = children.start(
            [PYTHON, *command],
            cwd=BASE_DIR,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.processes[name] = child
        self.console.listen_to(name, child)

    def stop(self) -> None:
        """Ask all at once, so that they end side by side; then wait for each, its last words on the console."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + PATIENCE
        while any(process.poll() is None for process in self.processes.values()) and time.monotonic() < deadline:
            self.console.relay(GLANCE)
        for name, process in self.processes.items():
            if process.poll() is None:
                tell(f"{name} did not stop within {PATIENCE} s and is killed")
            children.kill_session(process.pid)  # with it goes what a child that died may have left
            process.wait()
        self.console.relay(0)


def start_all(tallybook: Tallybook, host: str, port: int) -> None:
    tallybook.start(
        "web", "-m", "granian", "--interface", "wsgi", "config.wsgi:application", "--host", host, "--port", str(port),
        "--workers", "2", "--blocking-threads", "4", "--workers-kill-timeout", "10s",
        "--http1-header-read-timeout", "10000", "--no-ws", "--log-level", "warning",
    )  # fmt: skip
    # Threads: the work is PostgreSQL's. Stopping, processes of a pool may wait half a minute for an answer in flight.
    tallybook.start(
        "worker", "-W", AS_ROOT_ON_PURPOSE, "-m", "celery", "--quiet", "--app", "config", "worker",
        "--queues", "fold,celery", "--pool", "threads", "--concurrency", "4", "--without-gossip", "--without-mingle",
        "--loglevel", os.environ.get("LOG_LEVEL", "INFO"),
    )  # fmt: skip
    # At INFO beat reports every tick, and it ticks every second.
    tallybook.start(
        "beat", "-m", "celery", "--quiet", "--app", "config", "beat", "--scheduler", "config.beat:MemoryScheduler",
        "--loglevel", "WARNING",
    )  # fmt: skip


def watch(tallybook: Tallybook, servers: LocalServers, host: str, port: int, banner: str) -> None:
    """Relay what is said until a signal comes or a process ends; print the banner once the web answers."""
    announced = False
    while True:
        tallybook.console.relay(GLANCE)
        tallybook.signals.check()
        for name, process in (servers.processes | tallybook.processes).items():
            if process.poll() is not None:
                tell(f"{name} ended unexpectedly with exit code {process.returncode}")
                raise CannotRun(f"Everything was stopped because {name} ended.")
        if not announced and answers_http(host, port):
            announced = True
            tell(f"\n{banner.rstrip()}\n")


def answers_http(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def child_environment(servers: LocalServers, var: Path, port: int) -> dict[str, str]:
    """Return what the children see: what was set outside wins, but for the folder and the servers, which are facts."""
    defaults = {
        "SECRET_KEY": remembered_secret(var / "secret_key"),
        "SITE_URL": f"http://localhost:{port}",
        "ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
        "WHITENOISE_USE_FINDERS": "true",  # files straight from the packages; a deployment runs collectstatic
        "PYTHONUNBUFFERED": "1",
    }
    return defaults | os.environ | servers.environment | {"VAR_DIR": str(var)}


def run(signals: StopSignals) -> None:
    """Run until something stops us; whatever that is, stop web, worker and beat, then Valkey, then PostgreSQL."""
    var = Path(os.environ.get("VAR_DIR") or BASE_DIR / "var").resolve()
    (var / "static").mkdir(parents=True, exist_ok=True)  # whitenoise warns where there is none
    host = os.environ.get("HOST") or "127.0.0.1"
    console = Console()
    with claimed_folder(var) as after_crash:
        port = claimed_port(host, signals, patience=15 if after_crash else 0)
        tell("starting PostgreSQL and Valkey")
        with LocalServers(var, signals, durable=True) as servers:
            tallybook = Tallybook(child_environment(servers, var, port), console, signals)
            try:
                tell("bringing the database up to date")
                tallybook.manage("migrate", "--verbosity", "0", "--no-input")
                banner = tallybook.manage("create_demo", "--env-file", str(var / "demo.env"))
                tell("starting web, worker and beat")
                start_all(tallybook, host, port)
                watch(tallybook, servers, host, port, banner)
            finally:
                tell("stopping")
                tallybook.stop()


def main() -> int:
    signals = StopSignals().listen()
    try:
        run(signals)
    except Interrupted:
        tell("stopped")
        return 0
    except (CannotRun, ServerError) as reason:
        print(reason, file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"{error.filename} belongs to another account; run as that account or set VAR_DIR.", file=sys.stderr)
        return 1
    finally:
        signals.ignore()
    return 0


if __name__ == "__main__":
    sys.exit(main())
