"""How long a query becomes when PostgreSQL plans it: what a name stands for is written out wherever it is used.

PostgreSQL puts the text of a WITH or a subquery in place of its name, so a column that is used twice in each of twenty
steps is there a million times, and no setting bounds the memory of a planner. So parts are counted here. One part is
one constant, operator or function; a column counts as much as what it stands for, in every clause. Where more than one
thing could be meant, all of them count: a text may be found longer than it is, never shorter.

The same number bounds arithmetic. Numbers of 64 digits get long only by multiplying many of them, and no statement can
be cut off inside one multiplication; a text that is cast to numeric may be 131,072 digits long, so it counts as many.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sqlglot import exp

from metrics.sql_scopes import (
    MAX_PARTS,
    Relation,
    Scope,
    TooLong,
    alias_of,
    column_parts,
    equalities_in,
    grouping_sets,
    may_get_long,
    name_of,
    output_name,
    renamed,
    repeats,
)
from metrics.sql_tokens import SqlError

COLUMN_PARTS = 3  # a table is a view, which guards and casts its values
TABLE_PARTS = 100  # planning one takes about as much memory as 100 operators
QUERY_PARTS = 10
LONG_NUMBER_PARTS = 100
_NO_PARTS = (exp.Identifier, exp.DataType, exp.Var)


def parts_of(query: exp.Query, tables: Mapping[str, Sequence[str]]) -> int:
    """Return how many parts the query has when every name in it is written out; raises TooLong above MAX_PARTS."""
    known = {
        name: Relation(tuple((column, COLUMN_PARTS) for column in columns), TABLE_PARTS + len(columns))
        for name, columns in tables.items()
    }
    return _relation(query, Scope(known)).parts


def _relation(query: exp.Expr, around: Scope) -> Relation:
    """Return what a query, a table or VALUES gives."""
    if isinstance(query, exp.Table):
        found = _table(query, around)
    elif isinstance(query, exp.Values):
        found = _values(query, around)
    elif isinstance(query, exp.SetOperation):
        found = _set_operation(query, around)
    elif isinstance(query, exp.Select):
        found = _select(query, around)
    elif isinstance(query, exp.Subquery):
        found = _subquery(query, around)
    else:
        raise SqlError("a SELECT was expected")
    if found.parts > MAX_PARTS:
        raise TooLong(query, found.parts)
    alias = query.args.get("alias")
    return renamed(found, alias) if isinstance(alias, exp.TableAlias) else found


def _table(table: exp.Table, around: Scope) -> Relation:
    name = name_of(table.this)
    for scope in around.around():
        if name in scope.withs:
            return scope.withs[name]
    raise SqlError(f"there is no table {name}")


def _values(values: exp.Values, around: Scope) -> Relation:
    rows = [row.expressions if isinstance(row, exp.Tuple) else [row] for row in values.expressions]
    counted = [[1 + _parts(value, around, 1) for value in row] for row in rows]
    width = max(map(len, counted), default=0)
    columns = tuple((f"column{i + 1}", max(row[i] for row in counted if i < len(row))) for i in range(width))
    return Relation(columns, QUERY_PARTS + sum(map(sum, counted)))


def _subquery(query: exp.Subquery, around: Scope) -> Relation:
    scope = _inside(query, around)
    if _is_joined(query):
        scope.sources.extend(_sources([query.this], scope))
        relation = _joined(query, scope)
    else:
        relation = _relation(query.this, scope)
        scope.sources.append(("", relation))
    parts = relation.parts + _clauses(query, scope, relation.branches, {})
    return Relation(relation.columns, parts, relation.branches, relation.equalities)


def _set_operation(query: exp.SetOperation, around: Scope) -> Relation:
    scope, operands, levels = around, [], []
    node: exp.Expr = query
    while isinstance(node, exp.SetOperation):  # a long chain leans to the left
        scope = _inside(node, scope)
        operands.append((node.expression, scope))
        levels.append((node, scope))
        node = node.this
    found = [_relation(operand, inside) for operand, inside in (*operands, (node, scope))]
    # A condition on a column is put into every branch.
    columns = tuple(
        (name, sum(each.columns[i][1] for each in found if i < len(each.columns)))
        for i, (name, _) in enumerate(found[-1].columns)
    )
    branches = sum(each.branches for each in found)
    compared = 0 if all(each.args.get("distinct") is False for each, _ in levels) else len(columns) ** 2
    equalities = sum(each.equalities for each in found)
    result = Relation(columns, len(found) + sum(each.parts for each in found) + compared, branches, equalities)
    parts = sum(_clauses(each, Scope({}, [("", result)], inside), branches, {}) for each, inside in levels)
    return Relation(columns, result.parts + parts, branches, equalities)


def _select(query: exp.Select, around: Scope) -> Relation:
    scope = _inside(query, around)
    first = query.args.get("from_")
    scope.sources.extend(_sources([*([first.this] if first else []), *_joined_by(query)], scope))
    joined = _joined(query, scope)
    columns: list[tuple[str | None, int]] = []
    for output in query.expressions:
        if output.is_star:
            table = output.args.get("table")
            columns += _all_columns(query, scope, name_of(table) if table else None)
        else:
            columns.append((output_name(output), 1 + _parts(output, scope, joined.branches)))
    outputs: dict[str, int] = {}
    for name, parts in columns:
        if name is not None:
            outputs[name] = max(outputs.get(name, 0), parts)
    total = joined.parts + sum(parts for _, parts in columns) + grouping_sets(query)
    total += QUERY_PARTS + _clauses(query, scope, joined.branches, outputs)
    return Relation(tuple(columns), total, joined.branches, joined.equalities)


def _joined(query: exp.Expr, scope: Scope) -> Relation:
    """Return all that is joined in FROM, as one."""
    relations = [relation for _, relation in scope.sources]
    branches = max((relation.branches for relation in relations), default=1)
    parts = sum(relation.parts for relation in relations)
    conditions = [query.args.get("where")]
    equalities = sum(relation.equalities for relation in relations)
    for join in _joins(query):
        if on := join.args.get("on"):
            parts += _parts(on, scope, branches)
            conditions.append(on)
        shared = [name_of(name) for name in join.args.get("using") or []]
        parts += sum(column_parts(None, name, scope, {}) for name in shared)
        equalities += len(shared)
        if join.side == "FULL":  # what is shared is made of both sides
            parts += sum(relation.parts for relation in relations)
    equalities += sum(equalities_in(condition) for condition in conditions if condition is not None)
    # Each way to join is tried in the order of each equality.
    parts += max(0, equalities**2 - sum(relation.equalities**2 for relation in relations))
    return Relation(_all_columns(query, scope, None), parts, branches, equalities)


def _is_joined(node: exp.Expr) -> bool:
    """Whether these are tables joined in parentheses, and no query."""
    if not isinstance(node, exp.Subquery):
        return False
    inner = node.this
    return isinstance(inner, exp.Table | exp.Values) or any(inner.args.get(key) for key in ("joins", "alias"))


def _joined_by(node: exp.Expr) -> list[exp.Expr]:
    return [join.this for join in node.args.get("joins") or []]


def _sources(nodes: Sequence[exp.Expr], scope: Scope) -> list[tuple[str, Relation]]:
    """Return what is in FROM by its alias; through parentheses without an alias, names are seen."""
    found = []
    for node in nodes:
        if _is_joined(node) and not node.args.get("alias"):
            found += _sources([node.this], scope)
        else:
            found.append((alias_of(node), _relation(node, scope)))
        if not isinstance(node, exp.Select):
            found += _sources(_joined_by(node), scope)
    return found


def _joins(query: exp.Expr) -> Iterator[exp.Join]:
    """Yield the joins of a query's FROM, those in parentheses too."""
    first = query.args.get("from_")
    nodes = [first.this] if first else [query.this] if _is_joined(query) else []
    for join in query.args.get("joins") or []:
        yield join
        nodes.append(join.this)
    for node in nodes:
        if isinstance(node, exp.Table | exp.Values) or _is_joined(node) or node.args.get("joins"):
            yield from _joins(node)


def _all_columns(query: exp.Expr, scope: Scope, table: str | None) -> tuple[tuple[str | None, int], ...]:
    columns = [column for alias, relation in scope.sources if table in (None, alias) for column in relation.columns]
    if any(join.args.get("using") for join in _joins(query)):
        # The shared ones come first, and are made of both: whichever is meant by its place is no longer than all.
        sums = Counter[str | None]()
        for name, parts in columns:
            sums[name] += parts
        most = max(sums.values(), default=1)
        return tuple((name, most) for name, _ in columns)
    return tuple(columns)


def _inside(query: exp.Expr, around: Scope) -> Scope:
    """Return the scope of a query's parts, with what stands in its WITH."""
    withs: dict[str, Relation] = {}
    scope = Scope(withs, [], around)
    own = query.args.get("with_")
    for cte in own.expressions if own else []:
        alias = cte.args["alias"]
        withs[name_of(alias.this)] = renamed(_relation(cte.this, scope), alias)
    return scope


def _clauses(query: exp.Expr, scope: Scope, branches: int, outputs: Mapping[str, int]) -> int:
    """Return the parts of WHERE, GROUP BY, ORDER BY and the like: all that is neither a column nor in FROM."""
    elsewhere = ("this", "expression", "expressions", "with_", "from_", "joins", "alias")
    found = 0
    for key, value in query.args.items():
        if key not in elsewhere:
            for node in value if isinstance(value, list) else [value]:
                if isinstance(node, exp.Expr):
                    found += _parts(node, scope, branches, outputs)
    return found


def _parts(root: exp.Expr, scope: Scope, branches: int, outputs: Mapping[str, int] | None = None) -> int:
    """Return the parts of an expression in a query of so many UNION branches."""
    found = 0
    waiting = [(root, 1)]
    while waiting:
        node, times = waiting.pop()
        if isinstance(node, exp.Query | exp.Values):
            found += times * branches * _relation(node, scope).parts
            continue
        if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
            table = node.args.get("table")
            found += times * column_parts(name_of(table) if table else None, name_of(node.this), scope, outputs or {})
            continue
        if isinstance(node, _NO_PARTS):
            continue
        found += times * branches * (LONG_NUMBER_PARTS if may_get_long(node) else 1)
        for child in node.iter_expressions():
            waiting.append((child, times * repeats(node, child)))
    return found
