"""The folder and the port of a run."""

import os
import socket
from pathlib import Path

import pytest

from config.children import StopSignals
from config.claims import CannotRun, claimed_folder, claimed_port


def test_folder_is_for_one_run_at_a_time(folder: Path) -> None:
    with claimed_folder(folder) as after_crash:
        assert after_crash is False
        with (
            pytest.raises(CannotRun, match=rf"already running in this folder \(process {os.getpid()}\)"),
            claimed_folder(folder),
        ):
            pass
    with claimed_folder(folder) as after_crash:
        assert after_crash is False


def test_folder_remembers_a_run_that_was_killed(folder: Path) -> None:
    (folder / "run.lock").write_text("12345")
    with claimed_folder(folder) as after_crash:
        assert after_crash is True


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "80 "])
def test_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(CannotRun, match="a number from 1 to 65535 was expected"):
        claimed_port("127.0.0.1", StopSignals(), patience=0)


def test_port_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        port = somebody.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        somebody.listen()
        with pytest.raises(CannotRun, match=rf"Port {port} is taken"):
            claimed_port("127.0.0.1", StopSignals(), patience=0)
    assert claimed_port("127.0.0.1", StopSignals(), patience=0) == port
