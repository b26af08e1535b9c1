"""Roles belong to the whole server: what a test makes must not outlive its database."""

from django.db import connection

from usage.readers import drop_reader, metric_role


def drop_readers() -> None:
    """Drop every role that reads tables of this test database."""
    prefix = metric_role(0).removesuffix("0")
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [prefix])
        roles = [role for (role,) in cursor.fetchall()]
    for role in roles:
        drop_reader(role)
