"""The statements about roles that may read an organisation's structured tables; DDL, which takes no parameters.

Roles belong to the whole server, not to a database. The application makes them with CREATEROLE, without being a
superuser; that needs a little more since PostgreSQL 16, and a little less than it before.
"""

from collections.abc import Mapping
from typing import Any

from psycopg import Connection, sql

ATTRIBUTES = "LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"


def hold_roles(connection: Connection[Any]) -> None:
    """Be the only one who changes roles here, to the end of the transaction; do not wait for long."""
    connection.execute("SET LOCAL lock_timeout = '10s'")
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('tallybook.readers', 0))")


def role_exists(connection: Connection[Any], role: str) -> bool:
    """Tell whether the server has a role of that name."""
    return connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount == 1


def put_role(connection: Connection[Any], role: str, password: str, limit: int, defaults: Mapping[str, str]) -> None:
    """Make a role that may log in, or set the password and the defaults of one that is there.

    The password travels as a verifier, so that no log of statements shows it.
    """
    name = sql.Identifier(role)
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode()).decode()
    if not role_exists(connection, role):
        connection.execute(sql.SQL("CREATE ROLE {} " + ATTRIBUTES).format(name))
    connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}").format(
            name, sql.Literal(limit), sql.Literal(verifier)
        )
    )
    for setting, value in defaults.items():
        connection.execute(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
        )


def limit_temporary_files(connection: Connection[Any], role: str, size: str) -> None:
    """Limit what a statement may put on disk while it sorts; needs GRANT SET ON PARAMETER from a superuser."""
    connection.execute(
        sql.SQL("ALTER ROLE {} SET temp_file_limit = {}").format(sql.Identifier(role), sql.Literal(size))
    )


def may_read(connection: Connection[Any], schema: str) -> bool:
    """Tell whether the session's role has the use of a schema, or there is none."""
    found = connection.execute(
        "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s", [schema]
    ).fetchone()
    connection.rollback()  # what follows begins its own transaction
    return found is None or bool(found[0])


def grant_tables(connection: Connection[Any], role: str, schema: str) -> None:
    """Let the role read every table of the schema, those of later too, and nothing else."""
    names = {"role": sql.Identifier(role), "schema": sql.Identifier(schema)}
    for statement in (
        "CREATE SCHEMA IF NOT EXISTS {schema}",
        "GRANT USAGE ON SCHEMA {schema} TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}",
        "ALTER ROLE {role} SET search_path = {schema}, pg_catalog",
    ):
        connection.execute(sql.SQL(statement).format(**names))


def roles_like(connection: Connection[Any], prefix: str) -> list[str]:
    """Return the names of the roles that begin so."""
    found = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY 1", [prefix])
    return [name for (name,) in found]


def lock_out(connection: Connection[Any], role: str) -> None:
    """Let nobody log in as the role any more."""
    connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))


def end_sessions(connection: Connection[Any], role: str) -> None:
    """End the sessions of the role. Who made a role may not do that, but who is a member of it."""
    connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(role)))
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])


def drop_role(connection: Connection[Any], role: str) -> None:
    """Take away all that the role was granted in this database, and drop it; after end_sessions."""
    name = sql.Identifier(role)
    connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
    connection.execute(sql.SQL("DROP ROLE {}").format(name))
