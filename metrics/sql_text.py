"""The SQL of a metric: read, and allowed or refused with the place of the mistake. Nothing is run here.

First the words are looked at (`metrics.sql_tokens`): every function by its name, every operator, every word that has no
place in a query that only reads. Then sqlglot's tree: one query, its parts, its tables and columns. What runs later is
the author's own text, placeholders replaced, not something written anew from the tree.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp, parse
from sqlglot.errors import ParseError, TokenError

from metrics.sql_allowed import (
    NODES,
    REFUSED_NODES,
    REFUSED_WORDS,
    RESERVED_WORDS,
    SYSTEM_COLUMNS,
    TYPES,
)
from metrics.sql_scopes import TooLong, name_of
from metrics.sql_size import parts_of
from metrics.sql_tokens import (
    MAX_CHARACTERS,
    NOTHING,
    SqlError,
    Token,
    error_at,
    normal_text,
    placeholder_of,
    tokens_of,
    without_comments,
)
from metrics.sql_words import check_aliases, check_words, function_refusal

CUSTOMER, QUANTITY = "customer_id", "quantity"
MAX_DIMENSIONS = 5
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")

__all__ = ["CheckedSql", "SqlError", "check_sql", "written_name"]


@dataclass(frozen=True, slots=True)
class CheckedSql:
    """A text that may run: `runnable` has $1, $2, … for `parameters` and no comments; positions are the author's.

    `outputs` are the names of its columns in their order, `dimensions` those beside customer_id and quantity.
    `tables` and `columns` are what it reads.
    """

    text: str
    runnable: str
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    tables: frozenset[str]
    columns: frozenset[str]

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(name for name in self.outputs if name not in (CUSTOMER, QUANTITY))


def written_name(name: str) -> str:
    """Return how a table or a column is written in SQL: bare where that is possible, else in double quotes."""
    if _PLAIN_NAME.fullmatch(name) and name not in REFUSED_WORDS and name not in RESERVED_WORDS:
        return name
    return '"{}"'.format(name.replace('"', '""'))


def check_sql(text: str, tables: Mapping[str, Sequence[str]]) -> CheckedSql:
    """Return the text as it may run on the given tables (name to column names); raises SqlError with the place.

    It must be one SELECT (WITH and set operations too) of these tables and of allowed functions, which gives the
    columns customer_id, quantity and at most MAX_DIMENSIONS more.
    """
    text = normal_text(text)
    tokens = tokens_of(text)
    unsure = check_words(text, tokens, tables)
    parameters = tuple(dict.fromkeys(placeholder_of(token) for token in tokens if token.kind == "placeholder"))
    numbers = {
        token.start: f"${parameters.index(placeholder_of(token)) + 1}"
        for token in tokens
        if token.kind == "placeholder"
    }
    runnable = without_comments(text, tokens, numbers)
    # Before a text in parentheses, sqlglot takes -> for a function without a name; and of 1e3+1 it makes one number.
    # Only the tree sees these.
    replaced = {token.start: "||" for token in tokens if token.text in ("->", "->>")}
    replaced |= {token.start: "1" for token in tokens if token.kind == "number" and "e" in token.text.lower()}
    try:
        query = _parsed(without_comments(text, tokens, numbers | replaced), unsure)
        check_aliases(text, query, unsure)
        reading = _check_tree(text, query, tables)
        outputs = _outputs(text, query)
        parts_of(query, tables)
    except TooLong as error:
        raise _error(text, error.node, error.message) from None
    except RecursionError:
        raise SqlError("this is nested too deeply") from None
    return CheckedSql(text, runnable, parameters, outputs, *reading)


def _parsed(runnable: str, unsure: list[Token]) -> exp.Query:
    try:
        statements = parse(runnable, read="postgres", error_message_context=MAX_CHARACTERS)
    except ParseError as error:
        if unsure:
            raise error_at(runnable, unsure[0].start, function_refusal(unsure[0], NOTHING)) from None
        found = error.errors[0]
        position, came = len(found["start_context"] or ""), found["highlight"] or ""
        description = str(found["description"] or "")
        if description.startswith("Expecting"):
            message = f"{description.removeprefix('Expecting').strip()} was expected, got '{came}'"
        elif description.startswith("Required"):
            message = f"something is missing near '{came}'"
        else:
            message = f"'{came}' was not expected here"
        raise error_at(runnable, position, message) from None
    except TokenError:
        raise SqlError("this cannot be read as SQL") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise SqlError("one SELECT was expected")
    return statements[0]


def _check_tree(
    text: str, query: exp.Query, tables: Mapping[str, Sequence[str]]
) -> tuple[frozenset[str], frozenset[str]]:
    """Check every part of the query; return the tables and the columns that it reads."""
    named = {name_of(cte.args["alias"].this) for cte in query.find_all(exp.CTE)}
    used = set()
    for node in query.walk():
        _check_node(text, node)
        if isinstance(node, exp.Table):
            name = name_of(node.this)
            if name in tables:
                used.add(name)
            elif name not in named:
                raise _error(text, node, f"one of the tables was expected ({_listed(tables)}), got {name}")
    own = {column for table in used for column in tables[table]}
    mentioned = _check_columns(text, query, used | named, own)
    if any(isinstance(star.parent, exp.Select | exp.Column) for star in query.find_all(exp.Star)):
        mentioned |= own
    return frozenset(used), frozenset(mentioned & own)


def _check_node(text: str, node: exp.Expr) -> None:
    if isinstance(node, REFUSED_NODES) or not isinstance(node, NODES):
        raise _error(text, node, f"{_kind(node)} is not allowed")
    match node:
        case exp.With() if node.args.get("recursive"):
            raise _error(text, node, REFUSED_WORDS["recursive"].format(word="recursive"))
        case exp.Table() if not isinstance(node.this, exp.Identifier):
            raise _error(text, node, "a table was expected after FROM, not a function")
        case exp.Table() if node.args.get("db") or node.args.get("catalog"):
            raise _error(text, node, "tables are named without a schema")
        case exp.Table() if node.args.get("only") or node.args.get("sample") or node.args.get("rows_from"):
            raise _error(text, node, "a table was expected by its name alone")
        case exp.Join() if node.args.get("method"):
            raise _error(text, node, "NATURAL is not allowed: tables get columns; write USING (…)")
        case exp.DataType() if node.this not in TYPES or node.args.get("nested"):
            raise _error(text, node, f"the type {node.sql('postgres').lower()} is not allowed")
        case exp.Select() if node.args.get("into") or node.args.get("locks"):
            raise _error(text, node, "a metric only reads")
        case exp.Identifier() if name_of(node) in SYSTEM_COLUMNS:
            raise _error(text, node, f"the system column {name_of(node)} is not allowed")
        case _:
            pass


def _check_columns(text: str, query: exp.Query, relations: set[str], own: set[str]) -> set[str]:
    """Refuse names that neither a table nor the text itself defines; return those that are mentioned.

    In which part of the query a name may be used is left to PostgreSQL.
    """
    defined, aliases = set(own), set(relations)
    for values in query.find_all(exp.Values):
        defined |= {f"column{i + 1}" for row in values.expressions for i in range(len(row.expressions))}
    for node in query.find_all(exp.Alias, exp.TableAlias):
        if isinstance(node, exp.Alias):
            defined.add(name_of(node.args["alias"]))
        else:
            defined |= {name_of(column) for column in node.args.get("columns") or []}
            if node.this:
                aliases.add(name_of(node.this))
    mentioned = set()
    for column in query.find_all(exp.Column):
        table = column.args.get("table")
        if column.args.get("db") or (table and name_of(table) not in aliases):
            raise _error(
                text, column, f"a table of this query was expected before the dot, got {column.sql('postgres')}"
            )
        if isinstance(column.this, exp.Star):
            continue
        name = name_of(column.this)
        if name not in defined:
            raise _error(text, column, f"there is no column {name}; the tables used have {_listed(own)}")
        mentioned.add(name)
    for join in query.find_all(exp.Join):
        mentioned |= {name_of(name) for name in join.args.get("using") or [] if isinstance(name, exp.Identifier)}
    return mentioned


def _outputs(text: str, query: exp.Query) -> tuple[str, ...]:
    """Return the names of the result's columns: those of the first SELECT, where there are several."""
    selects = list(_selects(query))
    for select in selects:
        for output in select.expressions:
            if output.is_star:
                raise _error(text, output, f"columns by their names were expected, {CUSTOMER} and {QUANTITY}, not *")
    names: list[str] = []
    for output in selects[0].expressions:
        name = _output_name(output)
        if name is None:
            raise _error(text, output, f"each column needs a name: … AS {QUANTITY}")
        if name in names:
            raise _error(text, output, f"the column {name} is there twice")
        names.append(name)
    for name in (CUSTOMER, QUANTITY):
        if name not in names:
            raise _error(text, selects[0], f"a column {name} was expected, got {', '.join(names) or 'none'}")
    if len(names) - 2 > MAX_DIMENSIONS:
        expected = f"at most {MAX_DIMENSIONS} columns beside {CUSTOMER} and {QUANTITY} were expected"
        raise _error(text, selects[0], f"{expected}, got {', '.join(names)}")
    return tuple(names)


def _selects(query: exp.Expr) -> Iterator[exp.Select]:
    if isinstance(query, exp.SetOperation):
        yield from _selects(query.this)
        yield from _selects(query.expression)
    elif isinstance(query, exp.Subquery):
        yield from _selects(query.this)
    elif isinstance(query, exp.Select):
        yield query
    else:
        raise SqlError("a SELECT was expected")


def _output_name(output: exp.Expr) -> str | None:
    match output:
        case exp.Alias():
            return name_of(output.args["alias"])
        case exp.Column():
            return name_of(output.this)
        case exp.Cast() | exp.Paren():
            return _output_name(output.this)
        case _:
            return None


def _error(text: str, node: exp.Expr, message: str) -> SqlError:
    """Return the error at the first name of this part of the query."""
    places = [int(name.meta["start"]) for name in node.find_all(exp.Identifier) if "start" in name.meta]
    return error_at(text, min(places), message) if places else SqlError(message)


def _kind(node: exp.Expr) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__).lower()


def _listed(names: Mapping[str, object] | set[str], most: int = 30) -> str:
    listed = [written_name(name) for name in sorted(names)]
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "") or "none is there"
