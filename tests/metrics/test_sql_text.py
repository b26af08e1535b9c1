"""The SQL of a metric: what is understood, what runs of it, and what is refused at which place."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metrics.sql_text import CheckedSql, SqlError, check_sql, written_name
from metrics.sql_tokens import MAX_CHARACTERS, tokens_of, without_comments

TABLES = {
    "calls": ["customer_id", "timestamp", "received_at", "id", "record_id", "tokens", "region", "comment", "extra"],
    "other-one": ["customer_id", "timestamp", "received_at", "id", "record_id", "Weird name"],
}


def refused(text: str) -> SqlError:
    with pytest.raises(SqlError) as caught:
        check_sql(text, TABLES)
    return caught.value


# --- what is understood ----------------------------------------------------------------------------------------------


def test_placeholders_become_parameters_in_their_places() -> None:
    text = (
        "WITH x AS (SELECT customer_id, region, sum(tokens) AS q FROM calls -- a comment ' ( {{nothing}}\n"
        "  WHERE timestamp >= {{start_date}} AND timestamp < {{ end_date }} AND received_at < {{end_date}}\n"
        "  GROUP BY 1, 2)\r\n"
        "SELECT customer_id, coalesce(q, 0) AS quantity, x.region /* another; */ FROM x ;  \n"
    )

    checked = check_sql(text, TABLES)

    plain = text.replace("\r", "")
    assert checked == CheckedSql(
        text=plain,
        runnable=plain.replace("{{start_date}}", "$1            ")
        .replace("{{ end_date }}", "$2            ")
        .replace("{{end_date}}", "$2          ")
        .replace("-- a comment ' ( {{nothing}}", " " * 28)
        .replace("/* another; */", " " * 14)
        .replace(";", " "),
        parameters=("start_date", "end_date"),
        outputs=("customer_id", "quantity", "region"),
        tables=frozenset({"calls"}),
        columns=frozenset({"customer_id", "region", "tokens", "timestamp", "received_at"}),
    )
    assert checked.dimensions == ("region",)


UNDERSTOOD = {
    "set operation": "(SELECT customer_id, 1 AS quantity FROM calls) UNION ALL SELECT customer_id, id FROM calls",
    "except": "SELECT customer_id, id AS quantity FROM calls EXCEPT SELECT customer_id, id FROM calls WHERE tokens > 1",
    "no AS": "SELECT customer_id, count(*) quantity FROM calls GROUP BY 1",
    "other names": 'SELECT c.customer_id, "Weird name" AS quantity FROM "other-one" AS c',
    "case": "SELECT CUSTOMER_ID, Sum(TOKENS) AS Quantity FROM Calls GROUP BY customer_id",
    "comment is a column here": "SELECT customer_id, max(comment) AS d, 1 AS quantity FROM calls GROUP BY 1",
    "strings": "SELECT customer_id, 1 AS quantity FROM calls"
    " WHERE region IN ('; DROP TABLE x', 'it''s', '--', '/*', '$$')",
    "percent": "SELECT customer_id, tokens % 3 AS quantity FROM calls WHERE region LIKE '%s%%' AND comment LIKE '\\_'",
    "signs": "SELECT customer_id, -tokens*-1+ +2 AS quantity FROM calls WHERE tokens<-1 OR tokens=-2",
    "casts": "SELECT customer_id, tokens::numeric(10,2) AS quantity, CAST(id AS text) AS d FROM calls"
    " WHERE timestamp > timestamptz '2025-01-01' AND timestamp::date < date '2025-02-01'",
    "intervals": "SELECT customer_id, 1 AS quantity FROM calls WHERE timestamp > {{end_date}} - interval '1 day' * 7",
    "zone": "SELECT customer_id, extract(hour FROM timestamp AT TIME ZONE 'Asia/Kolkata') AS quantity FROM calls",
    "conditional": "SELECT customer_id, CASE WHEN region = 'eu' THEN 1 ELSE nullif(tokens, 0) END"
    " AS quantity FROM calls",
    "predicates": "SELECT customer_id, 1 AS quantity FROM calls WHERE tokens BETWEEN 1 AND 2 AND region IS NOT NULL"
    " AND NOT (region ILIKE 'e%' OR tokens IS DISTINCT FROM 3)",
    "subqueries": "SELECT customer_id, (SELECT max(tokens) FROM calls) AS quantity FROM calls AS a WHERE EXISTS"
    " (SELECT 1 FROM calls AS b WHERE b.id > a.id) AND id = ANY (SELECT id FROM calls)"
    " AND id IN (SELECT id FROM calls)",
    "joins": 'SELECT a.customer_id, 1 AS quantity FROM calls a JOIN calls b USING (id) LEFT JOIN "other-one" c'
    " ON c.id = a.id CROSS JOIN (SELECT max(id) AS top FROM calls) AS m WHERE m.top > 1",
    "prices": "SELECT customer_id, sum(tokens * price) AS quantity FROM calls JOIN (VALUES ('eu', 1.5), ('us', 2))"
    " AS prices (place, price) ON place = region GROUP BY customer_id",
    "aggregates": "SELECT customer_id, count(DISTINCT region) FILTER (WHERE tokens > 1) AS quantity,"
    " (percentile_cont(0.95) WITHIN GROUP (ORDER BY tokens))::numeric AS p FROM calls GROUP BY customer_id"
    " HAVING count(*) > 1 ORDER BY 1 DESC NULLS LAST LIMIT 10 OFFSET 2",
    "windows": "SELECT customer_id, sum(tokens) AS quantity FROM (SELECT customer_id, tokens, row_number() OVER"
    " (PARTITION BY customer_id ORDER BY timestamp DESC, id DESC) AS n, lag(tokens) OVER w AS l FROM calls"
    " WINDOW w AS (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) AS x WHERE n = 1"
    " GROUP BY customer_id",
    "distinct on": "SELECT DISTINCT ON (customer_id) customer_id, tokens AS quantity FROM calls"
    " ORDER BY customer_id, id",
    "grouping sets": "SELECT customer_id, region, sum(tokens) AS quantity FROM calls"
    " GROUP BY GROUPING SETS ((customer_id), (customer_id, region))",
    "json": "SELECT customer_id, (extra ->> 'a')::numeric AS quantity FROM calls"
    " WHERE jsonb_typeof(extra -> 'a') = 'number'",
    "text functions": "SELECT customer_id, length(trim(both 'x' from region)) + position('a' in region) AS quantity,"
    " substring(region from 1 for 2) AS s, left(region, 1) AS l, split_part(region, '-', 1) AS p FROM calls",
    "exponents": "SELECT customer_id, 1e3+1e-3-2E+2*.5e1 AS quantity FROM calls WHERE tokens < 1e64 AND id > 1E-64",
    "values": "SELECT v.who AS customer_id, n AS quantity FROM (VALUES ('a', 1), ('b', 2)) v(who, n)",
    "values in a WITH": 'WITH v(x) AS (VALUES (1)), w (a, "B c") AS (SELECT 1, x FROM v) SELECT customer_id,'
    ' "B c" AS quantity FROM w CROSS JOIN calls AS c(customer_id, t)',
    "values without names": "SELECT column1 AS customer_id, column2 AS quantity FROM (VALUES ('a', 1)) AS v",
    "star inside": "WITH x AS (SELECT * FROM calls), y AS MATERIALIZED (SELECT x.* FROM x) SELECT customer_id, tokens"
    " AS quantity FROM y",
}


@pytest.mark.parametrize("text", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_what_a_metric_needs_is_understood(text: str) -> None:
    checked = check_sql(text, TABLES)

    assert {"customer_id", "quantity"} <= set(checked.outputs)
    assert len(checked.runnable) == len(text)


def test_columns_that_are_read_are_known() -> None:
    assert check_sql("SELECT customer_id, count(*) AS quantity FROM calls GROUP BY 1", TABLES).columns == {
        "customer_id"
    }
    assert check_sql(UNDERSTOOD["star inside"], TABLES).columns == set(TABLES["calls"])
    assert check_sql(UNDERSTOOD["other names"], TABLES).columns == {"customer_id", "Weird name"}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("calls", "calls"),
        ("other-one", '"other-one"'),
        ("Calls", '"Calls"'),
        ("user", '"user"'),
        ("order", '"order"'),
        ("timestamp", "timestamp"),
        ('a"b', '"a""b"'),
        ("1a", '"1a"'),
        ("größe", '"größe"'),
        ("delete", '"delete"'),
        ("", '""'),
    ],
)
def test_a_name_is_quoted_where_it_must_be(name: str, written: str) -> None:
    assert written_name(name) == written
    if name:
        check_sql(f"SELECT t.customer_id, t.{written} AS quantity FROM {written} AS t", {name: ["customer_id", name]})


# --- what is refused, and where --------------------------------------------------------------------------------------

REFUSED = [
    ("", 1, 1, "a SELECT was expected, got none"),
    ("  -- nothing\n", 1, 1, "a SELECT was expected, got none"),
    ("calls", 1, 1, "a SELECT was expected, got 'calls'"),
    ("DELETE FROM calls", 1, 1, "a metric only reads; delete is not allowed"),
    ("SELECT customer_id,\n  tokens * AS quantity FROM calls", 2, 12, "something is missing near 'AS'"),
    ("SELECT customer_id, 1 AS quantity\nFRM calls", 2, 1, "'FRM' was not expected here"),
    ("SELECT customer_id, sum(tokens AS quantity FROM calls", 1, 24, "this parenthesis is never closed"),
    ("SELECT customer_id, 1) AS quantity FROM calls", 1, 22, "this parenthesis was never opened"),
    ("SELECT customer_id, 'x AS quantity FROM calls", 1, 21, "the text that begins here has no end"),
    ('SELECT customer_id, "x AS quantity FROM calls', 1, 21, "the name that begins here has no end"),
    ("SELECT customer_id /* x", 1, 20, "the comment that begins here has no end"),
    (
        "SELECT customer_id, 1 AS quantity FROM nothing",
        1,
        40,
        'one of the tables was expected (calls, "other-one"), got nothing',
    ),
    ("SELECT customer_id, 1 AS quantity FROM other-one", 1, 45, "'-' was not expected here"),
    (
        "SELECT customer_id, toekns AS quantity\nFROM calls",
        1,
        21,
        (
            'there is no column toekns; the tables used have "comment", customer_id, extra, id, received_at,'
            " record_id, region, timestamp, tokens"
        ),
    ),
    (
        "SELECT customer_id,\n\tx.tokens AS quantity FROM calls",
        2,
        2,
        "a table of this query was expected before the dot, got x.tokens",
    ),
    ("SELECT * FROM calls", 0, 0, "columns by their names were expected, customer_id and quantity, not *"),
    (
        "SELECT calls.*, 1 AS quantity FROM calls",
        1,
        8,
        "columns by their names were expected, customer_id and quantity, not *",
    ),
    ("SELECT customer_id, sum(tokens) FROM calls GROUP BY 1", 1, 25, "each column needs a name: … AS quantity"),
    ("SELECT customer_id, 1 AS amount FROM calls", 1, 8, "a column quantity was expected, got customer_id, amount"),
    ("SELECT customer_id, customer_id, 1 AS quantity FROM calls", 1, 21, "the column customer_id is there twice"),
    (
        'SELECT customer_id, 1 AS "Quantity" FROM calls',
        1,
        8,
        "a column quantity was expected, got customer_id, Quantity",
    ),
    (
        "SELECT customer_id, 1 AS quantity, 1 AS a, 1 AS b, 1 AS c, 1 AS d, 1 AS e, 1 AS f FROM calls",
        1,
        8,
        "at most 5 columns beside customer_id and quantity were expected, got customer_id, quantity, a, b, c, d, e, f",
    ),
    (
        "SELECT customer_id, 1 AS quantity FROM calls WHERE timestamp > '{{start_date}}'",
        1,
        64,
        "a placeholder was found inside quotes; write it without them, it is a value by itself",
    ),
    (
        "SELECT customer_id, 1 AS quantity FROM calls WHERE timestamp > {{start}}",
        1,
        64,
        "one of {{start_date}}, {{end_date}}, {{customer.external_id}} was expected, got {{start}}",
    ),
    (
        "SELECT customer_id, {start_date} AS quantity FROM calls",
        1,
        21,
        "a placeholder was expected ({{start_date}}, {{end_date}}, {{customer.external_id}})",
    ),
    (
        "SELECT customer_id, now() AS quantity FROM calls",
        1,
        21,
        (
            "the function now is not allowed: a quantity must not depend on when it is asked for;"
            " use {{start_date}} and {{end_date}}"
        ),
    ),
    (
        "SELECT customer_id, current_date - timestamp::date AS quantity FROM calls",
        1,
        21,
        "current_date is not allowed: a quantity must not depend on when it is asked for; use {{end_date}}",
    ),
    (
        "SELECT customer_id, 1 AS quantity FROM calls; SELECT 1",
        1,
        47,
        "one SELECT was expected; nothing may follow a semicolon",
    ),
    (
        "SELECT customer_id, 1 AS quantity FROM calls;;",
        1,
        46,
        "one SELECT was expected; nothing may follow a semicolon",
    ),
    ("SELECT customer_id; 1 AS quantity FROM calls", 1, 21, "one SELECT was expected; nothing may follow a semicolon"),
    ("SELECT customer_id, 1 AS quantity FROM größe", 1, 42, "'ö' is not allowed here"),
    ("SELECT customer_id, 1a AS quantity FROM calls", 1, 22, "a space was expected before 'a'"),
    ("SELECT customer_id, tokens @ 1 AS quantity FROM calls", 1, 28, "the operator @ is not allowed"),
    (
        "SELECT customer_id, pg_sleep(tokens) AS quantity FROM calls",
        1,
        21,
        "the function pg_sleep is not allowed",
    ),
    (
        "SELECT DISTINCT ON (id) pg_sleep(tokens) AS quantity, customer_id FROM calls",
        1,
        25,
        "the function pg_sleep is not allowed",
    ),
    ("SELECT customer_id, 1 AS quantity FROM pg_sleep(id)", 1, 40, "the function pg_sleep is not allowed"),
    ('SELECT customer_id, "sum"(id) AS quantity FROM calls', 1, 21, "functions are called by their bare names"),
    (
        "SELECT customer_id, power(tokens, 2) AS quantity FROM calls",
        1,
        21,
        "the function power is not allowed: it makes very long numbers of short ones; write x * x",
    ),
    (
        "SELECT customer_id, tokens ^ 2 AS quantity FROM calls",
        1,
        28,
        "the operator ^ is not allowed: it makes very long numbers of short ones; write x * x",
    ),
    (
        "SELECT customer_id, 1 AS quantity FROM calls NATURAL JOIN calls AS b",
        1,
        59,
        "NATURAL is not allowed: tables get columns; write USING (…)",
    ),
    ("SELECT customer_id, 1 AS quantity FROM calls WHERE region ~ 'x'", 1, 59, "the operator ~ is not allowed"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_mistake_has_its_place(text: str, line: int, column: int, message: str) -> None:
    error = refused(text)

    assert (error.line, error.column, error.message) == (line, column, message)
    assert str(error) == (f"line {line}, column {column}: {message}" if line else message)


def test_a_text_is_bounded() -> None:
    select = "SELECT customer_id, 1 AS quantity FROM calls WHERE "

    assert "at most 10000 characters" in refused(select + "x" * MAX_CHARACTERS).message
    assert "at most 2000 words" in refused(select + "+ " * 2_000).message
    assert "at most 30 deep" in refused(select + "(" * 31 + "tokens" + ")" * 31 + " > 1").message
    check_sql(select + "(" * 30 + "tokens" + ")" * 30 + " > 1", TABLES)


LONG_NUMBERS = ["1e65", "1e-65", "1E+130000", "0." + "1" * 64, "1" * 65]


@pytest.mark.parametrize(
    "number",
    [*LONG_NUMBERS, *(f"'{number}'" for number in LONG_NUMBERS), "' -1_0e0000131 '", f"'0x{'f' * 65}'", "'.1e99'"],
)
def test_a_number_is_no_longer_than_those_that_are_stored(number: str) -> None:
    error = refused(f"SELECT customer_id, {number} AS quantity FROM calls")

    assert str(error) == ("line 1, column 21: a number of at most 64 digits within 1e-64 and 1e64 was expected")


@pytest.mark.parametrize("text", ["1e64", "-", "e999", "cafe", "2025-01-01", "1e", "", "f" * 80, "1" * 64, "1.1.1"])
def test_other_texts_are_no_long_numbers(text: str) -> None:
    check_sql(f"SELECT customer_id, 1 AS quantity FROM calls WHERE region = '{text}'", TABLES)


def steps(first: str, step: str, count: int, last: str) -> str:
    """Return a query of steps, each made of the one before: a0, a1, …; `last` reads the last of them as {0}."""
    named = [f"a0 AS ({first})", *(f"a{i} AS ({step.format(f'a{i - 1}')})" for i in range(1, count + 1))]
    return f"WITH {', '.join(named)} {last.format(f'a{count}')}"


ONE = "SELECT customer_id, tokens AS x FROM calls"
TOTAL = "SELECT customer_id, sum(x) AS quantity FROM {0} GROUP BY customer_id"
# What doubles or more with each step; the last number of steps that may run.
GROWING = {
    "sum": (ONE, "SELECT customer_id, x + x AS x FROM {0}", 8),
    "subquery": (ONE, "SELECT customer_id, y + y AS x FROM (SELECT customer_id, x AS y FROM {0}) AS s", 7),
    "other case": (ONE, "SELECT CUSTOMER_ID, X + s.X AS x FROM {0} AS S", 8),
    "renamed": (
        "SELECT customer_id, tokens FROM calls",
        "SELECT * FROM (SELECT c, y + y FROM {0} v(c, y)) w(customer_id, x)",
        8,
    ),
    "star": (ONE, "SELECT customer_id, x + x AS x FROM (SELECT * FROM {0}) AS s", 8),
    "conditional": (ONE, "SELECT customer_id, CASE WHEN x > 1 THEN x END AS x FROM {0}", 8),
    "materialized": (ONE, "SELECT customer_id, x * x AS x FROM (SELECT * FROM {0} LIMIT 10) AS s", 8),
    "where": (ONE, "SELECT customer_id, x + x AS x FROM {0} WHERE x > 0", 7),
    "window": (ONE, "SELECT customer_id, sum(x) OVER (ORDER BY x) AS x FROM {0}", 8),
    "scalar": (ONE, "SELECT customer_id, (SELECT max(b.x) FROM {0} AS b WHERE b.x = c.x) AS x FROM {0} AS c", 3),
    "correlated": (ONE, "SELECT customer_id, (SELECT max(c.x + c.x)) AS x FROM {0} AS c", 7),
    "exists": (ONE, "SELECT customer_id, x FROM {0} WHERE EXISTS (SELECT 1 FROM {0} AS b)", 5),
    "in": (ONE, "SELECT customer_id, x FROM {0} AS c WHERE x IN (SELECT b.x FROM {0} AS b)", 5),
    "self join": (ONE, "SELECT a.customer_id, a.x FROM {0} AS a CROSS JOIN {0} AS b", 6),
    "using": (ONE, "SELECT customer_id, x FROM {0} AS a FULL JOIN {0} AS b USING (customer_id, x)", 3),
    "parentheses": (ONE, "SELECT a.customer_id, b.x FROM ({0} AS a JOIN {0} AS b ON a.x = b.x)", 5),
    "named parentheses": (
        ONE,
        "SELECT j.customer_id, j.x FROM ({0} AS a JOIN {0} AS b USING (customer_id, x)) AS j",
        3,
    ),
    "union": (ONE, "SELECT customer_id, x FROM {0} UNION ALL SELECT customer_id, x FROM {0}", 5),
    "values": (ONE, "SELECT customer_id, (SELECT max(z) FROM (VALUES (x), (x)) AS v (z)) AS x FROM {0}", 4),
    "row": (
        ONE,
        "SELECT customer_id, CASE WHEN s IS NULL THEN x END AS x, 1 AS s FROM (SELECT customer_id, x FROM {0}) AS s",
        6,
    ),
    "list": (ONE, "SELECT customer_id, CASE WHEN x IN (1, 2) THEN 1 END AS x FROM {0}", 7),
    "order": (ONE, "SELECT customer_id, x FROM (SELECT customer_id, x + x AS x FROM {0}) AS s ORDER BY x", 7),
}


@pytest.mark.parametrize("case", GROWING)
def test_a_text_is_as_long_as_what_postgresql_makes_of_it(case: str) -> None:
    first, step, most = GROWING[case]

    counts = [n for n in range(1, 12) if not refusal_of(steps(first, step, n, TOTAL))]
    assert counts == list(range(1, most + 1))


def test_many_steps_that_use_a_column_a_few_times_may_run() -> None:
    used = "SELECT customer_id, date_trunc('hour', timestamp) AS hour, sum(tokens) AS x FROM calls GROUP BY 1, 2"
    capped = "SELECT customer_id, hour, CASE WHEN x > 5 THEN x - 5 ELSE 0 END AS x FROM {0} WHERE x IS NOT NULL"
    ranked = "SELECT customer_id, x, rank() OVER (PARTITION BY customer_id ORDER BY x DESC) AS place FROM {0}"
    best = f"SELECT customer_id, sum(x) AS quantity FROM ({ranked}) AS ranked WHERE place < 4 GROUP BY customer_id"

    assert not refusal_of(steps(used, capped, 3, best))


def refusal_of(text: str) -> str:
    """Return how a text is refused as too long; empty if it may run."""
    try:
        check_sql(text, TABLES)
    except SqlError as error:
        if "parts long when PostgreSQL writes it out; at most 10,000 were expected" not in error.message:
            raise
        return error.message
    return ""


def test_what_is_too_long_is_told_with_its_place() -> None:
    error = refused(steps(ONE, "\nSELECT customer_id, x + x AS x FROM {0}", 16, TOTAL))

    # The tenth step is on the eleventh line.
    assert (error.line, error.column) == (11, 8)
    assert error.message == (
        "this is 16,661 parts long when PostgreSQL writes it out; at most 10,000 were expected;"
        " each use of a column of a WITH or a subquery repeats all that it is made of"
    )


@pytest.mark.parametrize(
    ("nested", "deep"), [("({}) BETWEEN false AND true", 12), ("({}) IN (id > 1, id > 2)", 12), ("NOT ({})", 29)]
)
def test_a_predicate_that_is_taken_apart_counts_its_parts(nested: str, deep: int) -> None:
    condition = "tokens > 1"
    for _ in range(deep):
        condition = nested.format(condition)

    assert bool(refusal_of(f"SELECT customer_id, 1 AS quantity FROM calls WHERE {condition}")) == (deep == 12)


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT customer_id, count(*) AS quantity FROM calls GROUP BY customer_id, CUBE ({', '.join(['id'] * 11)})",
        f"SELECT customer_id, ({'+'.join(['region::numeric'] * 101)}) AS quantity FROM calls",
        f"SELECT a.customer_id, 1 AS quantity FROM calls a JOIN calls b ON {' AND '.join(['a.id = b.id'] * 101)}",
        f"SELECT c.customer_id, 1 AS quantity FROM {', '.join(f'calls AS c{i}' for i in range(100))}, calls AS c",
        f"SELECT customer_id, id AS quantity FROM ({' UNION ALL '.join(['SELECT * FROM calls'] * 90)}) AS a",
    ],
)
def test_what_takes_long_to_plan_or_to_multiply_is_refused(text: str) -> None:
    assert refusal_of(text)


@pytest.mark.parametrize("words", ["NOT ", "- ", "+ ", "CASE WHEN ", "SELECT ", "CAST ", "x.", "IS NOT "])
def test_a_text_that_nests_without_parentheses_is_answered(words: str) -> None:
    text = "SELECT customer_id, 1 AS quantity FROM calls WHERE " + words * 900 + " tokens"

    error = refused(text)  # and does not try for ever

    assert error.message != ""


ATOMS = [
    *("SELECT", "customer_id", "quantity", "FROM", "calls", "AS", "(", ")", ",", "*", ".", "::", "1", "\n", ";"),
    *("'", "''", '"', "--", "/*", "*/", "$1", "$$", "{{start_date}}", "{{", "E'", "U&'", "\\", "é", "\u00a0", "\0"),
]


@given(st.lists(st.sampled_from(ATOMS), max_size=30).map(" ".join) | st.lists(st.sampled_from(ATOMS)).map("".join))
@settings(max_examples=300, deadline=None)
@example("SELECT")
def test_any_text_is_answered_and_what_runs_has_no_comment_and_as_many_characters(text: str) -> None:
    try:
        tokens = tokens_of(text)
    except SqlError:
        return
    runnable = without_comments(text, tokens)
    assert len(runnable) == len(text)
    outside = "".join("" if token.kind in ("string", "name") else token.text for token in tokens)
    assert "--" not in outside
    assert "/*" not in outside
    assert [(token.kind, token.text) for token in tokens_of(runnable)] == [(t.kind, t.text) for t in tokens]
    try:
        check_sql(text, TABLES)
    except SqlError:
        pass
