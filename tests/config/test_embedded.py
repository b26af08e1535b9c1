"""The embedded servers: what they let in, what they keep, what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import psutil
import psycopg
import pytest

from config.accounts import Account, ServerError
from config.children import StopSignals, alive, left_running
from config.embedded_postgres import PROGRAMS, Postgres
from config.embedded_valkey import Valkey, answers

EMBEDDED = [sys.executable, "-m", "config.embedded"]
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def postgres(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL that has not been started; it is stopped in the end if it was."""
    home = folder / "postgres"
    server = Postgres(home, folder / "postgres.log", Account.for_servers(home), durable=False)
    yield server
    server.stop()


def run_embedded(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EMBEDDED, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@contextmanager
def started_embedded(environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start it beside the test; whatever becomes of the test, it ends."""
    with subprocess.Popen([*EMBEDDED, *command], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE) as embedded:
        try:
            yield embedded
        except BaseException:
            embedded.terminate()
            raise


def test_command_finds_both_servers_and_its_role_is_no_superuser(bare_environment: dict[str, str]) -> None:
    asked = dedent("""
        import os, environ, psycopg, redis
        url = os.environ["DATABASE_URL"]
        with psycopg.connect(url) as connection:
            for question in (
                "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = user",
                "SELECT current_setting('server_version_num')::int / 10000, current_setting('jit')",
                "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'tallybook'",
            ):
                print(*connection.execute(question).fetchone())
        parsed = environ.Env.db_url_config(url)
        print(parsed["USER"], parsed["NAME"], parsed["PORT"], parsed["OPTIONS"]["host"] in url.replace("%2F", "/"))
        print(redis.Redis.from_url(os.environ["REDIS_URL"]).ping())
    """)
    finished = run_embedded(bare_environment, sys.executable, "-c", asked)
    assert finished.stdout.splitlines() == [
        "False True True",
        "18 off",
        "tallybook",
        "tallybook tallybook 5432 True",
        "True",
    ]
    assert finished.stderr == ""
    assert finished.returncode == 0


def test_nothing_is_left_behind(bare_environment: dict[str, str], folder: Path) -> None:
    finished = run_embedded(bare_environment, "sh", "-c", "sleep 1000 & exit 0")
    assert finished.returncode == 0
    assert list(folder.iterdir()) == []
    assert [process for process in psutil.process_iter() if str(folder) in " ".join(command_line(process))] == []


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("kill -KILL $$", 137), ("true", 0)])
def test_exit_code_is_the_commands(bare_environment: dict[str, str], command: str, code: int) -> None:
    assert run_embedded(bare_environment, "sh", "-c", command).returncode == code


def test_servers_that_the_environment_names_are_not_started(bare_environment: dict[str, str], folder: Path) -> None:
    named = bare_environment | {"DATABASE_URL": "postgres://elsewhere/d", "REDIS_URL": "redis://elsewhere"}
    finished = run_embedded(named, "sh", "-c", 'echo $DATABASE_URL $REDIS_URL; ls -A "$TMPDIR"/*')
    assert finished.stdout.split() == ["postgres://elsewhere/d", "redis://elsewhere", "static"]


def test_signal_that_comes_twice_reaches_the_command_once(bare_environment: dict[str, str], folder: Path) -> None:
    counting = dedent("""
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: print("term", flush=True))
        print("ready", flush=True)
        time.sleep(0.5); time.sleep(0.5); time.sleep(0.5); time.sleep(0.5)
    """)
    with started_embedded(bare_environment, sys.executable, "-c", counting) as embedded:
        assert embedded.stdout
        assert embedded.stdout.readline() == b"ready\n"
        embedded.terminate()
        time.sleep(0.2)
        embedded.terminate()
        assert embedded.stdout.read() == b"term\n"
    assert embedded.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_servers_end_when_their_parent_is_killed(bare_environment: dict[str, str], folder: Path) -> None:
    waiting = "import time; print('ready', flush=True); time.sleep(60)"
    with started_embedded(bare_environment, sys.executable, "-c", waiting) as embedded:
        assert embedded.stdout
        assert embedded.stdout.readline() == b"ready\n"
        children = psutil.Process(embedded.pid).children()
        assert len(children) == 3
        embedded.kill()
    deadline = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [child.name() for child in children if alive(child)] == []


def test_second_start_has_the_data_of_the_first(postgres: Postgres) -> None:
    first = postgres.start(StopSignals())
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    postgres.stop()
    second = postgres.start(StopSignals())
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(7,)]
    assert first == second


def test_every_role_needs_its_password_and_the_folders_are_private(postgres: Postgres) -> None:
    url = postgres.start(StopSignals())
    for user in ("postgres", "tallybook"):
        with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no password supplied"):
            psycopg.connect(url, user=user, password="guess")
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in postgres.home.iterdir()} == {
        "application-password": "0o600",
        "data": "0o700",
        "socket": "0o700",
        "superuser-password": "0o600",
    }


def test_server_of_a_killed_run_is_stopped_and_replaced(postgres: Postgres, capsys: pytest.CaptureFixture[str]) -> None:
    postgres.start(StopSignals())
    left = postgres.process
    assert left
    postgres.process = None  # as a run that was killed would leave it
    url = postgres.start(StopSignals())
    assert left.wait(10) == 0
    assert capsys.readouterr().out == f"stopping postgres (process {left.pid}), which a killed run left behind\n"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_lock_file_of_a_crash_is_no_obstacle_when_its_number_is_somebody_elses(postgres: Postgres) -> None:
    postgres.start(StopSignals())
    assert postgres.process
    lock_file = postgres.data / "postmaster.pid"
    of_the_crash = lock_file.read_text()
    postgres.process.kill()
    postgres.process.wait()
    with subprocess.Popen(["sleep", "1000"], user=postgres.account.uid if os.geteuid() == 0 else None) as stranger:
        lock_file.write_text(of_the_crash.replace(str(postgres.process.pid), str(stranger.pid), 1))
        postgres.start(StopSignals())
        assert stranger.poll() is None
        stranger.kill()


def test_interrupted_initdb_leaves_nothing_half_done(postgres: Postgres) -> None:
    unfinished = postgres.account.make_private_folder(postgres.home) / "data.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    postgres.start(StopSignals())
    assert not unfinished.exists()


def test_long_path_gets_its_socket_elsewhere(folder: Path) -> None:
    home = folder / ("deep" * 20) / "postgres"
    server = Postgres(home, folder / "postgres.log", Account.for_servers(home), durable=False)
    home.parent.mkdir()
    try:
        with psycopg.connect(server.start(StopSignals())) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        elsewhere = server.socket_folder
        assert not elsewhere.is_relative_to(folder)
    finally:
        server.stop()
    assert not elsewhere.exists()


def test_server_that_cannot_start_says_where_to_look(postgres: Postgres) -> None:
    postgres.start(StopSignals())
    postgres.stop()
    (postgres.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(ServerError, match=rf"PostgreSQL did not start; see the end of {postgres.log}"):
        postgres.start(StopSignals())


def test_valkey_wants_its_password_and_shows_it_to_nobody(folder: Path) -> None:
    home = folder / "valkey"
    server = Valkey(home, folder / "valkey.log", Account.for_servers(home), durable=False)
    try:
        url = server.start(StopSignals())
        assert answers(url)
        password = url.split("@")[0].rpartition(":")[2]
        assert not answers(url.replace(password, "guess"))
        assert server.process
        assert password not in " ".join(psutil.Process(server.process.pid).cmdline())
        assert [process.pid for process in left_running("valkey-server", home)] == [server.process.pid]
    finally:
        server.stop()
    assert server.process.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change what is others'")
def test_servers_of_root_run_as_somebody_else_and_only_passage_is_granted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    account = Account.for_servers(closed / "home")
    home = account.make_private_folder(closed / "home")
    assert account.uid not in (0, None)
    assert home.stat().st_uid == account.uid
    assert closed.stat().st_mode & 0o777 == 0o701
    assert capsys.readouterr().out == (
        f"chmod o+x {closed}: the servers run as {account.name} and must be able to pass through\n"
    )
    assert Account.for_servers(home) == account


def test_programs_are_those_of_the_wheels() -> None:
    assert subprocess.run([PROGRAMS / "postgres", "--version"], capture_output=True).stdout.startswith(
        b"postgres (PostgreSQL) 18."
    )


def test_hangup_is_ignored_where_it_was_ignored_before() -> None:
    before = {signum: signal.getsignal(signum) for signum in StopSignals.SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals = StopSignals().listen()
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is signal.SIGTERM
    finally:
        for signum, action in before.items():
            signal.signal(signum, action)
