"""What the SQL of a metric may be made of: functions, types, words, parts of a statement. All else is refused."""

from sqlglot import exp


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Aggregates that hold every value in memory (array_agg, string_agg, json_agg) are left out, and so is whatever makes
# long texts from short ones (repeat, lpad, replace, format), long numbers from short ones (power, exp, factorial: a
# calculation with these does not look whether it is to be cut off) or rows from nothing (generate_series, unnest).
FUNCTIONS = _words(
    """
    sum count avg min max stddev stddev_pop stddev_samp variance var_pop var_samp bool_and bool_or every
    percentile_cont percentile_disc mode
    abs ceil ceiling floor round trunc mod div sign sqrt ln log greatest least width_bucket
    coalesce nullif
    lower upper length char_length character_length octet_length trim btrim ltrim rtrim left right substring substr
    position strpos split_part starts_with concat to_char
    date_trunc date_part date_bin extract age
    jsonb_typeof jsonb_array_length
    row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
    """
)
LONG_NUMBERS = "it makes very long numbers of short ones; write x * x"
HINTS = {
    "now": "a quantity must not depend on when it is asked for; use {{start_date}} and {{end_date}}",
    "generate_series": "it makes rows without end; a metric reads the organisation's tables only",
    "unnest": "it makes rows from nothing; a metric reads the organisation's tables only",
    "random": "a quantity must be the same each time",
    **dict.fromkeys(("power", "pow", "exp", "factorial"), LONG_NUMBERS),
}

# May stand before a parenthesis without being a function.
WORDS_BEFORE_PARENTHESIS = _words(
    """
    all and any as between by case cast distinct else except exists filter from grouping group having ilike in
    intersect is join like limit materialized not offset on or over rollup cube sets select some then union using
    values when where within
    """
)
TYPE_WORDS = _words("numeric decimal varchar timestamp timestamptz interval")

TYPES = frozenset(
    {
        exp.DataType.Type.BIGINT,
        exp.DataType.Type.BOOLEAN,
        exp.DataType.Type.DATE,
        exp.DataType.Type.DECIMAL,
        exp.DataType.Type.INT,
        exp.DataType.Type.INTERVAL,
        exp.DataType.Type.JSONB,
        exp.DataType.Type.SMALLINT,
        exp.DataType.Type.TEXT,
        exp.DataType.Type.TIMESTAMP,
        exp.DataType.Type.TIMESTAMPTZ,
        exp.DataType.Type.VARCHAR,
    }
)

_ONLY_READS = "a metric only reads; {word} is not allowed"
_CLOCK = "{word} is not allowed: a quantity must not depend on when it is asked for; use {{{{end_date}}}}"
_WHO = "{word} is not allowed: a quantity must not depend on who asks"
# Refused as bare words wherever they stand; a column of that name is written in double quotes.
REFUSED_WORDS = {
    **dict.fromkeys(
        _words(
            """
        alter analyze begin call checkpoint close cluster comment commit copy create deallocate declare delete discard
        do drop execute explain fetch grant import insert into listen load lock merge move notify prepare program
        reassign refresh reindex release reset returning revoke rollback savepoint security set show start truncate
        update vacuum
        """
        ),
        _ONLY_READS,
    ),
    **dict.fromkeys(
        _words("current_date current_time current_timestamp localtime localtimestamp"),
        _CLOCK,
    ),
    **dict.fromkeys(
        _words("current_catalog current_role current_schema current_user session_user system_user user"), _WHO
    ),
    **dict.fromkeys(("recursive", "search", "cycle"), "{word} is not allowed: a query that calls itself may never end"),
    **dict.fromkeys(
        ("lateral", "tablesample", "ordinality", "xmltable", "json_table", "array", "similar", "collate"),
        "{word} is not allowed",
    ),
    "table": "table is not allowed; write SELECT … FROM the table",
    "only": "only is not allowed; write the table's name alone",
}

NODES: tuple[type[exp.Expr], ...] = (
    # Queries and their parts.
    exp.Select, exp.Union, exp.Except, exp.Intersect, exp.Subquery, exp.With, exp.CTE, exp.From, exp.Join, exp.Table,
    exp.TableAlias, exp.Where, exp.Group, exp.GroupingSets, exp.Rollup, exp.Cube, exp.Having, exp.Order, exp.Ordered,
    exp.Distinct, exp.Limit, exp.Offset, exp.Fetch, exp.LimitOptions, exp.Values, exp.Tuple, exp.Alias, exp.Aliases,
    # Values.
    exp.Column, exp.Identifier, exp.Star, exp.Literal, exp.Boolean, exp.Null, exp.Parameter, exp.Var, exp.Paren,
    exp.Interval, exp.IntervalSpan, exp.DataType, exp.DataTypeParam,
    # Operators; functions are known by their names.
    exp.Binary, exp.Unary, exp.Predicate, exp.Between, exp.In, exp.Any, exp.All, exp.AtTimeZone, exp.Func,
    exp.Filter, exp.Window, exp.WindowSpec, exp.WithinGroup,
)  # fmt: skip
REFUSED_NODES: tuple[type[exp.Expr], ...] = (
    exp.Unnest, exp.Lateral, exp.TableSample, exp.Into, exp.Lock, exp.Collate, exp.SimilarTo, exp.RegexpLike,
    exp.Array, exp.Dot, exp.Bracket, exp.DDL, exp.DML, exp.Command, exp.UserDefinedFunction,
)  # fmt: skip
SYSTEM_COLUMNS = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"))

# PostgreSQL's reserved words, which are names only in double quotes.
RESERVED_WORDS = _words(
    """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
    column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
    from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
    localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
    returning right select session_user similar some symmetric system_user table tablesample then to trailing true
    union unique user using variadic verbose when where window with between values coalesce extract interval least
    greatest nullif position substring trim row exists setof xmltable
    """
)
