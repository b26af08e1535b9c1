"""Roles that may read an organisation's structured tables and nothing else: one for SQL metrics, others for BI tools.

Each logs in by itself: a session that became such a role with SET ROLE could walk out of it again. The name carries the
database's, because roles belong to the whole server. Roles are made on a connection of its own and committed at once.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection as application

from customers.models import Organisation
from usage import reader_sql
from usage.table_sql import schema_name

NAME_BYTES = 63
DATABASE_BYTES = 20
CONNECT_SECONDS = 5
SQL_METRIC_CONNECTIONS = 10
BI_CONNECTIONS = 10
TEMPORARY_FILES = "1GB"
# Of a connection's options, those that say where the server is and how it is spoken to.
_TRANSPORT = re.compile(r"ssl.*|gss.*|channel_binding|krb.*|require_auth|target_session_attrs|keepalives.*|hostaddr")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")

# Defaults: a session may change them, within what the server allows. What must hold, SQL metrics set for themselves.
_DEFAULTS = {
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "5min",
    "lock_timeout": "5s",
    "work_mem": "16MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_METRIC_DEFAULTS = {**_DEFAULTS, "statement_timeout": "1min", "idle_session_timeout": "5min"}
_BI_DEFAULTS = {**_DEFAULTS, "statement_timeout": "15min"}


class ReadersRefused(Exception):
    """The database server did not let us make, change or use a role that reads; the text says why."""


class LabelRefused(ValueError):
    """The label cannot name a BI login, or names none or another one already; the text says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """All that a program needs to read an organisation's tables. The password is nowhere else but with PostgreSQL."""

    host: str
    port: str
    database: str
    user: str
    password: str
    schema: str


def metric_role(organisation_id: int) -> str:
    """Return the name of the role that runs the organisation's SQL metrics."""
    name = f"{_database_prefix()}_org_{organisation_id}"
    if len(name) > NAME_BYTES:
        raise ValueError(f"a name of at most {NAME_BYTES} bytes was expected for a role, got {name}")
    return name


def connect_reader(organisation: Organisation) -> psycopg.Connection[Any]:
    """Return a new connection as the role of the organisation's SQL metrics, making the role where it is missing.

    Raises ReadersRefused.
    """
    role = metric_role(organisation.pk)
    try:
        session = _connect(user=role, password=_derived_password(role))
    except psycopg.OperationalError as error:
        if "too many connections" in str(error):
            raise ReadersRefused(
                "too many SQL metrics are being calculated at this moment; please try again"
            ) from error
        # The role is missing, or its password was derived from another secret key; or it is something else, and stays.
        prepare_reader(organisation)
    else:
        if reader_sql.may_read(session, schema_name(organisation.pk)):
            return session
        # Roles outlive a database: this one was made for another database of the same name.
        session.close()
        prepare_reader(organisation)
    try:
        return _connect(user=role, password=_derived_password(role))
    except psycopg.OperationalError as error:
        raise ReadersRefused(f"nobody can log in as {role}, the role of SQL metrics: {_first_line(error)}") from error


def prepare_reader(organisation: Organisation) -> None:
    """Make or mend the role of the organisation's SQL metrics. Raises ReadersRefused."""
    role = metric_role(organisation.pk)
    with _as_application() as connection:
        login = (role, _derived_password(role))
        _put_reader(connection, organisation, login, SQL_METRIC_CONNECTIONS, _METRIC_DEFAULTS)


def issue_bi_login(organisation: Organisation, label: str) -> Login:
    """Make a login that reads the organisation's tables; its password is known to nobody but the one it is given to.

    Raises LabelRefused (1 to 20 letters a-z, digits and dashes; not in use) and ReadersRefused.
    """
    role = _bi_role(organisation, label)
    password = secrets.token_urlsafe(24)
    with _as_application() as connection:
        if reader_sql.role_exists(connection, role):
            raise LabelRefused(f"label: one that is not in use was expected, got '{label}'; revoke that one first")
        _put_reader(connection, organisation, (role, password), BI_CONNECTIONS, _BI_DEFAULTS)
    where = application.settings_dict
    return Login(
        host=where["HOST"] or "localhost",
        port=str(where["PORT"] or 5432),
        database=where["NAME"],
        user=role,
        password=password,
        schema=schema_name(organisation.pk),
    )


def bi_labels(organisation: Organisation) -> list[str]:
    """Return the labels of the organisation's BI logins."""
    prefix = f"{metric_role(organisation.pk)}_bi_"
    with _as_application() as connection:
        return [role.removeprefix(prefix) for role in reader_sql.roles_like(connection, prefix)]


def revoke_bi_login(organisation: Organisation, label: str) -> None:
    """End a BI login: its sessions end, it is gone. Raises LabelRefused and ReadersRefused."""
    role = _bi_role(organisation, label)
    with _as_application() as connection:
        if not reader_sql.role_exists(connection, role):
            raise LabelRefused(f"label: one that is in use was expected, got '{label}'")
    drop_reader(role)


def drop_reader(role: str) -> None:
    """Drop a role that reads, with its sessions and all that it was granted. Raises ReadersRefused."""
    with _as_application() as connection:
        reader_sql.lock_out(connection, role)
    with _as_application() as connection:
        reader_sql.end_sessions(connection, role)
        reader_sql.drop_role(connection, role)


def _put_reader(
    connection: psycopg.Connection[Any],
    organisation: Organisation,
    login: tuple[str, str],
    limit: int,
    defaults: dict[str, str],
) -> None:
    role, password = login
    reader_sql.put_role(connection, role, password, limit, defaults)
    reader_sql.grant_tables(connection, role, schema_name(organisation.pk))
    try:
        with connection.transaction():
            reader_sql.limit_temporary_files(connection, role, TEMPORARY_FILES)
    except psycopg.errors.InsufficientPrivilege:
        pass  # only a superuser may let us; docs/sql.md says how


def _bi_role(organisation: Organisation, label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise LabelRefused(f"label: 1 to 20 letters a-z, digits and inner dashes were expected, got '{label}'")
    return f"{metric_role(organisation.pk)}_bi_{label}"


def _database_prefix() -> str:
    database = str(application.settings_dict["NAME"])
    if len(database.encode()) <= DATABASE_BYTES:
        return database
    digest = hashlib.sha256(database.encode()).hexdigest()[:8]
    return f"{database.encode()[: DATABASE_BYTES - 9].decode(errors='ignore')}_{digest}"


def _derived_password(role: str) -> str:
    return hmac.new(settings.SECRET_KEY.encode(), f"reader {role}".encode(), hashlib.sha256).hexdigest()


@contextmanager
def _as_application() -> Iterator[psycopg.Connection[Any]]:
    """A transaction of its own as the application's role, alone among those that change roles."""
    where = application.settings_dict
    try:
        with _connect(user=where["USER"], password=where["PASSWORD"]) as connection:
            reader_sql.hold_roles(connection)
            yield connection
    except psycopg.Error as error:
        raise ReadersRefused(f"the database does not let us manage roles that read: {_first_line(error)}") from error


def _connect(user: str, password: str) -> psycopg.Connection[Any]:
    where = application.settings_dict
    options = {name: value for name, value in where["OPTIONS"].items() if _TRANSPORT.fullmatch(name)}
    return psycopg.connect(
        host=where["HOST"] or None,
        port=where["PORT"] or None,
        dbname=where["NAME"],
        user=user,
        password=password,
        connect_timeout=CONNECT_SECONDS,
        application_name="tallybook sql",
        **options,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
