"""What the names in a query stand for, and how long each is: tables, columns, WITH; and what makes a query longer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from sqlglot import exp

from metrics.sql_tokens import SqlError

MAX_PARTS = 10_000
_SHORT_NUMBERS = (exp.Literal, exp.Sum, exp.Avg, exp.Count, exp.PercentileCont)


@dataclass(frozen=True, slots=True)
class Relation:
    """What stands in FROM: its columns in their order with the parts of each, all its parts, its UNION branches, joins.

    A column without a name may be called by any, for PostgreSQL gives it one.
    """

    columns: tuple[tuple[str | None, int], ...]
    parts: int
    branches: int = 1
    equalities: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a name is looked up: what is in FROM here, what is in WITH up to here, and the query around."""

    withs: Mapping[str, Relation]
    sources: list[tuple[str, Relation]] = field(default_factory=list)
    outer: "Scope | None" = None

    def around(self) -> "Iterator[Scope]":
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer


class TooLong(SqlError):
    """The query is longer than allowed; `node` is the part of it where that was found."""

    def __init__(self, node: exp.Expr, parts: int) -> None:
        shown = f"{parts:,}" if parts < 10**9 else "more than 1,000,000,000"
        super().__init__(
            f"this is {shown} parts long when PostgreSQL writes it out; at most {MAX_PARTS:,} were expected;"
            " each use of a column of a WITH or a subquery repeats all that it is made of"
        )
        self.node = node


def equalities_in(condition: exp.Expr) -> int:
    """Return how many columns a condition compares to others for equality."""
    found = 0
    for node in condition.find_all(exp.EQ, exp.In):
        other = node.args.get("query") if isinstance(node, exp.In) else node.expression
        if other is not None and other.find(exp.Column) and node.this.find(exp.Column):
            found += max(1, len(node.this.expressions)) if isinstance(node.this, exp.Tuple) else 1
    return found


def renamed(relation: Relation, alias: exp.TableAlias) -> Relation:
    """Return a relation with the names that its alias gives the first of its columns."""
    names = [name_of(column) for column in alias.args.get("columns") or []]
    columns = [(names[i] if i < len(names) else name, parts) for i, (name, parts) in enumerate(relation.columns)]
    return Relation(tuple(columns), relation.parts, relation.branches, relation.equalities)


def grouping_sets(query: exp.Select) -> int:
    """Return how many grouping sets there are, each with its columns."""
    group = query.args.get("group")
    if group is None:
        return 0
    cubes = prod(2 ** len(cube.expressions) for cube in group.find_all(exp.Cube))
    rollups = prod(1 + len(rollup.expressions) for rollup in group.find_all(exp.Rollup))
    sets = prod(max(1, len(sets.expressions)) for sets in group.find_all(exp.GroupingSets))
    return cubes * rollups * sets * sum(1 for _ in group.find_all(exp.Column))


def repeats(node: exp.Expr, child: exp.Expr) -> int:
    """Return how often PostgreSQL writes out a part of a predicate that it takes apart into several."""
    if isinstance(node, exp.Between):
        return 4 if node.args.get("symmetric") else 2
    if isinstance(node, exp.In) and child is node.this:
        return max(1, len(node.expressions))
    return 1


def may_get_long(node: exp.Expr) -> bool:
    """Whether a text (or what may be one) becomes a number of any length."""
    if not isinstance(node, exp.Cast) or not node.to.is_type(exp.DataType.Type.DECIMAL) or node.to.expressions:
        return False
    value = node.this
    while isinstance(value, exp.Paren | exp.WithinGroup | exp.Filter | exp.Window | exp.Neg):
        value = value.this
    return not isinstance(value, _SHORT_NUMBERS)


def column_parts(table: str | None, name: str, scope: Scope, outputs: Mapping[str, int]) -> int:
    """Return the parts of a column: of all that it may be, for a USING makes one of several."""
    for each in scope.around():
        sources = [relation for alias, relation in each.sources if table in (None, alias)]
        found = [parts for relation in sources for column, parts in relation.columns if column in (None, name)]
        if found:
            return max(sum(found), outputs.get(name, 0) if table is None else 0)
    if table is None and name in outputs:
        return outputs[name]
    # A row as a whole, or something that PostgreSQL will not find either.
    return sum(parts for each in scope.around() for _, relation in each.sources for _, parts in relation.columns)


def output_name(output: exp.Expr) -> str | None:
    """Return what a column of the result is called, if the text says so."""
    if isinstance(output, exp.Alias):
        return name_of(output.args["alias"])
    return name_of(output.this) if isinstance(output, exp.Column) else None


def alias_of(source: exp.Expr) -> str:
    """Return by what name the columns of something in FROM are called; "" if it has none."""
    alias = source.args.get("alias")
    if alias is not None and alias.this:
        return name_of(alias.this)
    return name_of(source.this) if isinstance(source, exp.Table) else ""


def name_of(identifier: exp.Expr) -> str:
    """Return what PostgreSQL makes of a name: a bare one in lower case."""
    return str(identifier.this) if identifier.args.get("quoted") else str(identifier.this).lower()
