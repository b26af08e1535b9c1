"""The values of one statement, each under a name of its own: what a definition holds never becomes SQL text."""

from typing import Any

from psycopg import sql


class Parameters(dict[str, Any]):
    """Values by name, as `execute` takes them; `take` keeps one and returns its place in the text."""

    def take(self, value: Any) -> sql.Placeholder:
        """Keep a value and return its placeholder."""
        name = f"given_{len(self)}"
        self[name] = value
        return sql.Placeholder(name)
