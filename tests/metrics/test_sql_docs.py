"""The worked example of docs/sql.md gives what the page prints, and the page names what is allowed."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from metrics.models import Metric
from metrics.questions import Question
from metrics.sandbox import check_sql_metric, sql_quantities
from metrics.sql_allowed import FUNCTIONS
from tests.conftest import take_in
from tests.roles import drop_readers
from usage.models import UsageEvent

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "sql.md").read_text()


@pytest.fixture(autouse=True)
def no_role_outlives_the_test(transactional_db: None) -> Iterator[None]:
    yield
    drop_readers()


def tables() -> list[list[list[str]]]:
    """Return the tables of the page, each row as the texts of its cells, the heading first."""
    found = re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "---" not in line]
        for table in found
    ]


def test_the_worked_example_gives_what_is_printed(compute: UsageEvent) -> None:
    [statement] = re.findall(r"^```sql\n(WITH .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    [records] = [rows[1:] for rows in tables() if rows[0][:2] == ["customer_id", "timestamp"]]
    [printed] = [rows[1:] for rows in tables() if rows[0] == ["customer_id", "quantity"]]
    for customer, timestamp, region, hours in records:
        data = {"cpu_usage_hours": Decimal(hours), **({"region": region} if region else {})}
        take_in(compute, {"customer_id": customer, "timestamp": timestamp, "data": data})
    metric = Metric(organisation=compute.organisation, sql=statement, sql_window="day")

    check_sql_metric(metric)
    answer = sql_quantities(metric, Question(datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)))

    assert [(row.customer_id, row.quantity) for row in answer.rows] == [
        (customer, Decimal(quantity)) for customer, quantity in printed
    ]
    assert len(printed) == 2


def test_a_function_that_the_page_names_is_allowed() -> None:
    [allowed] = re.findall(r"\*\*What is allowed\*\*(.*?)\n\n", PAGE, re.DOTALL)
    words = {word for code in re.findall(r"`([^`]*)`", allowed) for word in re.findall(r"[a-z_0-9]+", code)}

    assert words - FUNCTIONS == set()
    assert len(words) > 40
