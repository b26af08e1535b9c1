"""What `make run` runs, as a newcomer meets it: started, used, stopped, started again, and ended by a death."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest

from config.children import alive

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 120
SET_BY_RUN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SITE_URL", "ALLOWED_HOSTS", "HOST", "DJANGO_SETTINGS_MODULE")


class Run:
    """One run of the supervisor, and what can be asked of it."""

    def __init__(self, var: Path, port: int) -> None:
        self.var = var
        self.port = port
        self.said = var / "console.log"
        environment = {name: value for name, value in os.environ.items() if name not in SET_BY_RUN}
        with self.said.open("wb") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "config.supervisor"],
                cwd=REPOSITORY,
                env=environment | {"VAR_DIR": str(var), "PORT": str(port)},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + PATIENCE
        # Until the banner, not only until the first answer: then every part of it has been started.
        while f"http://localhost:{self.port}" not in self.said.read_text():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            time.sleep(0.1)

    def facts(self) -> dict[str, str]:
        """Return what sourcing demo.env gives a shell."""
        names = ("URL", "ORG_KEY", "API_KEY", "ADMIN_USER", "ADMIN_PASSWORD")
        script = '. "$0"; ' + "; ".join(f'printf "%s\\n" "${name}"' for name in names)
        printed = subprocess.run(
            ["sh", "-c", script, self.var / "demo.env"], capture_output=True, text=True, check=True
        )
        return dict(zip(names, printed.stdout.splitlines(), strict=True))

    def ask(self, path: str, posted: dict[str, Any] | None = None) -> Any:
        facts = self.facts()
        request = Request(facts["URL"] + path, data=json.dumps(posted).encode() if posted else None)
        request.add_header("organisation", facts["ORG_KEY"])
        request.add_header("x-api-key", facts["API_KEY"])
        request.add_header("Content-Type", "application/json")
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def end(self, *signals: signal.Signals) -> tuple[int, list[str]]:
        """Send the signals; return the exit code and the names of the descendants that outlived it."""
        descendants = psutil.Process(self.process.pid).children(recursive=True)
        assert {"postgres", "valkey-server"} <= {process.name() for process in descendants}
        for signum in signals:
            self.process.send_signal(signum)
            time.sleep(0.1)
        code = self.process.wait(PATIENCE)
        return code, [process.name() for process in descendants if alive(process)]


@pytest.fixture
def var() -> Iterator[Path]:
    """The folder that a run and those after it share."""
    folder = Path(tempfile.mkdtemp(prefix="tallybook-run-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def running(var: Path) -> Iterator[Run]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = Run(var, port)
    try:
        run.wait_until_it_answers()
        yield run
    finally:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(PATIENCE)


JUNE = "/api/metrics/cpu_hours/quantities/?start=2025-06-01&end=2025-07-01&customer_id=cus_of_the_test"


def test_second_start_has_the_data_of_the_first_and_neither_leaves_anything_running(var: Path) -> None:
    with running(var) as first:
        facts = first.facts()
        assert facts["URL"] == f"http://localhost:{first.port}"
        assert (var / "demo.env").stat().st_mode & 0o777 == 0o600
        record = {"customer_id": "cus_of_the_test", "timestamp": "2025-06-17T14:03:12Z", "data": {"cpu_usage_hours": 5}}
        assert first.ask("/usage/compute_hours", record)["accepted"] == 1
        assert first.ask(JUNE)["quantities"][0]["quantity"] == "5"
        # Twice, as from make and from the terminal's process group.
        assert first.end(signal.SIGINT, signal.SIGINT) == (0, [])
    with pytest.raises(URLError):
        urlopen(f"http://127.0.0.1:{first.port}/healthz", timeout=5)

    with running(var) as second:
        assert second.facts() == facts | {"URL": f"http://localhost:{second.port}"}
        assert second.ask(JUNE)["quantities"][0]["quantity"] == "5"
        assert second.end(signal.SIGTERM) == (0, [])
    console = second.said.read_text()
    assert console.endswith("\nstopped\n"), console
    assert "Traceback" not in console, console


def test_folder_has_one_run_and_the_run_ends_with_any_of_its_processes(var: Path) -> None:
    with running(var) as run:
        another = subprocess.run(
            [sys.executable, "-m", "config.supervisor"],
            cwd=REPOSITORY,
            env=os.environ | {"VAR_DIR": str(var)},
            capture_output=True,
            text=True,
        )
        assert (another.returncode, another.stderr) == (
            1,
            f"Tallybook is already running in this folder (process {run.process.pid}).\n",
        )

        children = psutil.Process(run.process.pid).children()
        next(child for child in children if "config.wsgi:application" in child.cmdline()).kill()
        assert run.process.wait(PATIENCE) == 1
        assert [child.name() for child in children if alive(child)] == []
        assert run.said.read_text().endswith("Everything was stopped because web ended.\n")
