"""SQL metrics: run as the organisation's own role, window by window, in one snapshot; and what they may give."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.db import transaction

from customers.models import Customer, Organisation
from metrics import sandbox_runs, sandbox_sql
from metrics.models import Metric
from metrics.periods import PeriodError, Window
from metrics.quantities import preview, quantities
from metrics.questions import Question, TookTooLong, UnknownCustomer, UnknownDimension
from metrics.sandbox import check_sql_metric, run_sql_metric, sql_quantities
from metrics.snapshots import snapshot
from metrics.sql_text import CheckedSql, SqlError
from tests.conftest import take_in
from tests.roles import drop_readers
from tests.threads import run_together
from usage.definitions import create_usage_event, publish_schema
from usage.models import UsageEvent
from usage.readers import ReadersRefused

SCHEMA = {
    "type": "object",
    "properties": {"tokens": {"type": "number"}, "region": {"type": "string"}, "paid": {"type": "boolean"}},
}
TOTAL = """
SELECT customer_id, sum(tokens) AS quantity FROM calls
WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} GROUP BY customer_id
"""
BY_REGION = """
SELECT customer_id, region, paid, sum(tokens) AS quantity FROM calls
WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} GROUP BY customer_id, region, paid
"""
PEAK = TOTAL.replace("sum(", "max(")
JUNE, JULY = datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)
KOLKATA = ZoneInfo("Asia/Kolkata")


@pytest.fixture(autouse=True)
def no_role_outlives_the_test(transactional_db: None) -> Iterator[None]:
    yield
    drop_readers()


@pytest.fixture
def calls(organisation: Organisation) -> UsageEvent:
    return create_usage_event(organisation, name="Calls", slug="calls", schema=SCHEMA)


def call(customer: str, timestamp: str, **data: Any) -> dict[str, Any]:
    return {"customer_id": customer, "timestamp": timestamp, "data": data}


@pytest.fixture
def used(calls: UsageEvent) -> UsageEvent:
    """Usage of three customers, on days whose limits differ between UTC and Kolkata."""
    take_in(
        calls,
        call("b", "2025-06-01T10:00:00Z", tokens=1, region="eu", paid=True),
        call("b", "2025-06-01T20:00:00Z", tokens=Decimal("2.50"), region="us", paid=False),
        call("b", "2025-06-02T10:00:00Z", tokens=4, region="eu"),
    )
    take_in(
        calls,
        call("a", "2025-06-30T18:29:59Z", tokens=8),
        call("a", "2025-06-30T18:30:00Z", tokens=16),
        call("c", "2025-07-01T00:00:00Z", tokens=32),
    )
    return calls


def metric_of(usage_event: UsageEvent, sql: str, window: str = "day") -> Metric:
    return Metric(organisation=usage_event.organisation, code="m", name="M", sql=sql, sql_window=window)


def table(answer: Any) -> list[tuple[Any, ...]]:
    return [(row.customer_id, row.start, row.quantity, row.dimensions) for row in answer.rows]


def asked(metric: Metric, *customers: str, start: datetime = JUNE, end: datetime = JULY, **more: Any) -> Any:
    return sql_quantities(metric, Question(start, end, customer_ids=customers, **more))


def day(number: int, month: int = 6) -> datetime:
    return datetime(2025, month, number, tzinfo=UTC)


# --- running ---------------------------------------------------------------------------------------------------------


def test_the_text_is_run_once_for_each_window(used: UsageEvent) -> None:
    result = run_sql_metric(metric_of(used, BY_REGION), [day(1), day(2), day(3)])

    assert sorted((row.window, row.customer_id, row.quantity, str(row.dimensions)) for row in result.rows) == [
        (0, "b", Decimal("1"), str({"region": "eu", "paid": True})),
        (0, "b", Decimal("2.50"), str({"region": "us", "paid": False})),
        (1, "b", Decimal("4"), str({"region": "eu", "paid": None})),
    ]
    assert str(next(row.quantity for row in result.rows if row.dimensions["region"] == "us")) == "2.50"


def test_named_customers_alone_are_calculated(used: UsageEvent) -> None:
    result = run_sql_metric(metric_of(used, TOTAL), [JUNE, JULY], ["a", "nobody"])

    assert [(row.customer_id, row.quantity) for row in result.rows] == [("a", 24)]


def test_the_customer_s_placeholder_runs_the_text_for_each(used: UsageEvent) -> None:
    sql = TOTAL.replace("GROUP BY", "AND customer_id = {{customer.external_id}} GROUP BY")

    result = run_sql_metric(metric_of(used, sql), [JUNE, day(30), day(2, 7)], ["a", "c"])

    assert [(row.window, row.customer_id, row.quantity) for row in result.rows] == [(1, "a", 24), (1, "c", 32)]
    with pytest.raises(ValueError, match="customers were expected"):
        run_sql_metric(metric_of(used, sql), [JUNE, JULY])


def test_days_of_the_text_are_those_of_the_zone(used: UsageEvent) -> None:
    sql = """SELECT customer_id, (timestamp)::date AS day, sum(tokens) AS quantity FROM calls
             WHERE timestamp >= {{start_date}} AND timestamp < {{end_date}} GROUP BY 1, 2"""

    in_zone = run_sql_metric(metric_of(used, sql), [day(1), day(3)], zone=KOLKATA)

    assert sorted((row.dimensions["day"], row.quantity) for row in in_zone.rows) == [
        ("2025-06-01", 1),
        ("2025-06-02", Decimal("6.5")),
    ]


def test_every_number_keeps_its_digits(calls: UsageEvent) -> None:
    exact = Decimal("1" + "0" * 30 + ".000000000000000000000000000001")
    take_in(calls, call("a", "2025-06-01T00:00:00Z", tokens=exact), call("a", "2025-06-02T00:00:00Z", tokens=exact))

    assert asked(metric_of(calls, TOTAL), "a").rows[0].quantity == Decimal("2" + "0" * 30 + "." + "0" * 29 + "2")


# --- quantities ------------------------------------------------------------------------------------------------------


def test_a_longer_window_is_the_sum_of_its_days(used: UsageEvent) -> None:
    peaks = metric_of(used, PEAK)

    assert table(asked(peaks)) == [("b", JUNE, Decimal("6.50"), {}), ("a", JUNE, 16, {})]
    assert table(asked(peaks, zone=KOLKATA)) == [("b", JUNE, 5, {}), ("a", JUNE, 24, {})]
    assert table(asked(peaks, window=Window.DAY)) == [
        ("b", day(1), Decimal("2.50"), {}),
        ("b", day(2), 4, {}),
        ("a", day(30), 16, {}),
    ]
    assert table(asked(peaks, window=Window.WEEK)) == [
        ("b", day(1), Decimal("2.50"), {}),
        ("b", day(2), 4, {}),
        ("a", day(30), 16, {}),
    ]
    assert table(asked(metric_of(used, PEAK, "month"), end=day(1, 8), window=Window.MONTH)) == [
        ("b", JUNE, 4, {}),
        ("a", JUNE, 16, {}),
        ("c", JULY, 32, {}),
    ]


def test_a_window_shorter_than_the_metric_s_is_refused(calls: UsageEvent) -> None:
    for sql_window, window in (("day", "hour"), ("month", "hour"), ("month", "day"), ("month", "week")):
        with pytest.raises(PeriodError, match=f"windows of a {sql_window} or longer were expected, .* got {window}"):
            asked(metric_of(calls, TOTAL, sql_window), window=Window(window))


def test_dimensions_are_summed_up_unless_asked_for(used: UsageEvent) -> None:
    by_region = metric_of(used, BY_REGION)

    assert table(asked(by_region, "b")) == [("b", JUNE, Decimal("7.50"), {})]
    assert table(asked(by_region, "b", group_by=["region"])) == [
        ("b", JUNE, 5, {"region": "eu"}),
        ("b", JUNE, Decimal("2.50"), {"region": "us"}),
    ]
    assert table(asked(by_region, "b", group_by=["paid"], filter_by={"region": ["eu"]})) == [
        ("b", JUNE, 4, {"paid": None}),
        ("b", JUNE, 1, {"paid": True}),
    ]
    assert table(asked(by_region, "b", filter_by={"paid": ["false", "true"]})) == [("b", JUNE, Decimal("3.50"), {})]
    with pytest.raises(UnknownDimension, match=r"\('region', 'paid'\), got 'plan'"):
        asked(by_region, group_by=["plan"])
    with pytest.raises(UnknownDimension, match="got 'plan'"):
        asked(by_region, filter_by={"plan": ["x"]})


def test_a_total_has_a_row_for_each_named_customer(used: UsageEvent) -> None:
    assert table(asked(metric_of(used, TOTAL), "c", "a")) == [("c", JUNE, None, {}), ("a", JUNE, 24, {})]
    with pytest.raises(UnknownCustomer, match="nobody"):
        asked(metric_of(used, TOTAL), "a", "nobody")


PER_CUSTOMER = TOTAL.replace("GROUP BY", "AND customer_id = {{customer.external_id}} GROUP BY")


@pytest.mark.parametrize("sql", [TOTAL, PER_CUSTOMER], ids=["at once", "one by one"])
def test_pages_cover_everybody_once(used: UsageEvent, sql: str) -> None:
    metric, rows, pages = metric_of(used, sql), [], 0
    after: int | None = 0
    while after is not None:
        answer = asked(metric, end=day(1, 8), page_size=2, after=after)
        rows += [(row.customer_id, row.quantity) for row in answer.rows]
        after, pages = answer.next, pages + 1

    assert rows == [("b", Decimal("7.50")), ("a", 24), ("c", 32)]
    assert pages == 2


def test_a_page_of_many_windows_holds_fewer_customers(used: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metrics.sandbox.MAX_STATEMENTS", 30)

    answer = asked(metric_of(used, PER_CUSTOMER))

    assert (table(answer), answer.next) == (
        [("b", JUNE, Decimal("7.50"), {})],
        Customer.objects.get(external_id="b").pk,
    )


def test_an_active_one_and_a_preview_answer_as_any_metric_does(used: UsageEvent) -> None:
    metric = metric_of(used, TOTAL)
    question = Question(JUNE, JULY, customer_ids=["a"])
    expected: list[tuple[Any, ...]] = [("a", JUNE, 24, {})]

    assert table(preview(metric, question)) == expected
    metric.status = Metric.Status.ACTIVE
    metric.save()
    assert table(quantities(used.organisation_id, "m", question)) == expected


def test_it_sees_what_the_caller_s_snapshot_sees(used: UsageEvent) -> None:
    metric = metric_of(used, TOTAL)

    def somebody_new() -> None:
        take_in(used, call("new", "2025-06-03T00:00:00Z", tokens=1))

    with snapshot() as cursor:
        cursor.execute("SELECT count(*), transaction_timestamp() FROM usage_usagerecord")
        began = cursor.fetchone()[1]
        run_together(somebody_new)
        inside = asked(metric)
    after = asked(metric)

    assert [row.customer_id for row in inside.rows] == ["b", "a"]
    assert inside.as_of == began
    assert [row.customer_id for row in after.rows] == ["b", "a", "new"]


# --- what a text may give --------------------------------------------------------------------------------------------

REFUSED_RESULTS = [
    (
        "'x' AS customer_id, count(*) AS quantity",
        "customer_id must be the id of a customer of this organisation; got 'x'",
    ),
    ("null::text AS customer_id, count(*) AS quantity", "customer_id must be the id of a customer; got null"),
    ("customer_id, 'NaN'::numeric AS quantity", "quantity must be a finite number; got NaN for customer"),
    ("customer_id, 'Infinity'::numeric AS quantity", "quantity must be a finite number; got Infinity for customer"),
    (
        f"customer_id, {'*'.join(['1e50'] * 20)} AS quantity",
        r"quantity must be a finite number; got 1000+… for customer",
    ),
    ("customer_id, 1 AS quantity", "one row for each customer .* got several for customer 'a' \\(no other columns\\)"),
    ("customer_id, 1 AS quantity, 'x' AS d", r"got several for customer 'a' \(d = x\) in the window from 2025-06"),
]


def test_a_result_that_is_no_quantity_is_refused(used: UsageEvent) -> None:
    for columns, refusal in REFUSED_RESULTS:
        metric = metric_of(used, f"SELECT {columns} FROM calls WHERE customer_id = 'a'", "month")
        with pytest.raises(SqlError, match=refusal):
            asked(metric)


def test_a_row_of_null_is_nothing(used: UsageEvent) -> None:
    metric = metric_of(used, "SELECT DISTINCT customer_id, null::numeric AS quantity FROM calls", "month")

    assert {row.quantity for row in asked(metric).rows} == {None}


def test_long_texts_and_many_rows_are_refused(used: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 1001
    with pytest.raises(SqlError, match="d must be of at most 1000 characters; got more"):
        asked(metric_of(used, f"SELECT DISTINCT customer_id, 1 AS quantity, '{long}' AS d FROM calls", "month"))
    monkeypatch.setattr(sandbox_runs, "MAX_ROWS", 2)
    with pytest.raises(SqlError, match="at most 2 rows were expected in all"):
        asked(metric_of(used, "SELECT customer_id, id AS quantity, region FROM calls", "month"))


def test_an_error_while_it_runs_is_told_at_its_place(used: UsageEvent) -> None:
    with pytest.raises(SqlError, match="division by zero") as caught:
        asked(metric_of(used, "SELECT customer_id, sum(tokens / (tokens - tokens)) AS quantity FROM calls GROUP BY 1"))
    assert (caught.value.line, str(caught.value)) == (0, "division by zero")


def test_a_text_that_takes_too_long_is_cut_off(used: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_runs, "seconds_allowed", lambda: 0.3)
    joined = " CROSS JOIN ".join(f"calls AS c{i}" for i in range(30))

    with pytest.raises(TookTooLong, match=r"longer than 0\.3 s"):
        asked(metric_of(used, f"SELECT c0.customer_id, count(*) AS quantity FROM {joined} GROUP BY 1"))


def test_a_database_that_does_not_listen_is_left(used: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = metric_of(used, "SELECT 'b' AS customer_id, 1 AS quantity FROM pg_sleep(20)")
    unread = CheckedSql(metric.sql, metric.sql, (), ("customer_id", "quantity"), frozenset(), frozenset())
    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(sandbox_runs, "checked_sql", lambda metric: unread)
        patch.setattr(sandbox_runs, "seconds_allowed", lambda: 0.3)
        patch.setattr(sandbox_runs, "GRACE_SECONDS", 0)
        patch.setattr(sandbox_sql, "limit_time", lambda connection, seconds: None)
        with pytest.raises(TookTooLong, match=r"longer than 0\.3 s") as caught:
            run_sql_metric(metric, [JUNE, JULY])

    # It was the connection that ended, and not the statement.
    refused = caught.value.__cause__
    assert isinstance(refused, SqlError)
    assert isinstance(refused.__cause__, psycopg.OperationalError)
    assert not isinstance(refused.__cause__, psycopg.errors.QueryCanceled)
    assert threading.active_count() == before
    assert table(asked(metric_of(used, TOTAL), "a")) == [("a", JUNE, 24, {})]


def test_all_windows_together_have_the_time(used: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("metrics.sandbox_runs.time.monotonic", lambda: float(next(clock)))

    with pytest.raises(TookTooLong):
        asked(metric_of(used, TOTAL))
    assert next(clock) < 20


def test_without_a_role_it_is_said_and_nothing_else_fails(used: UsageEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(organisation: Organisation) -> None:
        raise ReadersRefused("the database does not let us manage roles that read: permission denied")

    monkeypatch.setattr(sandbox_runs, "connect_reader", refused)

    with pytest.raises(ValidationError, match="cannot be run: the database does not let us manage roles"):
        check_sql_metric(metric_of(used, TOTAL))


# --- checking --------------------------------------------------------------------------------------------------------

MISTAKES = [
    (
        "SELECT customer_id,\n  sum(region) AS quantity\nFROM calls GROUP BY 1",
        "line 2, column 3: function sum(text) does not exist",
    ),
    (
        "SELECT customer_id, count(*) AS quantity\n-- comment\nFROM calls\nWHERE tokens = 'x' GROUP BY 1",
        'line 4, column 16: invalid input syntax for type numeric: "x"',
    ),
    (
        "SELECT customer_id, tokens AS quantity FROM calls GROUP BY customer_id",
        (
            'line 1, column 21: column "calls.tokens" must appear in the GROUP BY clause'
            " or be used in an aggregate function"
        ),
    ),
    (
        "SELECT customer_id, 1 AS quantity FROM calls WHERE region",
        "line 1, column 52: argument of WHERE must be type boolean, not type text",
    ),
    (
        "SELECT id AS customer_id, 1 AS quantity FROM calls",
        "customer_id must be text, the id of a customer; got number",
    ),
    (
        "SELECT customer_id, region AS quantity FROM calls",
        "quantity must be an exact number (numeric or integer); got text",
    ),
    (
        "SELECT customer_id, percentile_cont(0.5) WITHIN GROUP (ORDER BY tokens) AS quantity FROM calls GROUP BY 1",
        "quantity must be an exact number (numeric or integer); got double precision; write (…)::numeric",
    ),
    (
        "SELECT customer_id, 1 AS quantity, timestamp AS d FROM calls",
        "d must be text, a number, a boolean or a date; got timestamptz",
    ),
    (
        "SELECT customer_id, 1 AS quantity FROM other",
        "line 1, column 40: one of the tables was expected (calls), got other",
    ),
]


def test_a_mistake_is_told_at_definition(calls: UsageEvent) -> None:
    told = []
    for sql, _ in MISTAKES:
        with pytest.raises(ValidationError) as caught:
            check_sql_metric(metric_of(calls, sql))
        told.append((sql, *caught.value.message_dict["sql"]))

    assert told == MISTAKES


def test_the_table_may_be_younger_than_the_role(calls: UsageEvent) -> None:
    check_sql_metric(metric_of(calls, TOTAL))
    create_usage_event(calls.organisation, name="Later", slug="pg_class", schema=SCHEMA)
    publish_schema(calls, {"type": "object", "properties": {"seats": {"type": "integer"}}}, accept_violations=True)

    # Its own table comes before PostgreSQL's of that name.
    check_sql_metric(metric_of(calls, "SELECT customer_id, tokens AS quantity FROM pg_class"))
    check_sql_metric(metric_of(calls, "SELECT customer_id, seats AS quantity FROM calls"))
    with pytest.raises(ValidationError, match="there is no column tokens"):
        check_sql_metric(metric_of(calls, TOTAL))


def test_it_can_be_checked_inside_a_transaction_that_will_be_undone(calls: UsageEvent) -> None:
    with transaction.atomic():
        check_sql_metric(metric_of(calls, TOTAL))  # makes the role, which stays
        transaction.set_rollback(True)

    check_sql_metric(metric_of(calls, TOTAL))
