"""SQL metrics: checked when they are defined, calculated when they are asked for."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, localcontext

from django.core.exceptions import ValidationError

from customers.models import Customer
from metrics.asked_customers import named_customers
from metrics.exactly import trimmed
from metrics.models import Metric
from metrics.periods import PeriodError, Window, window_edges
from metrics.questions import Answer, Quantity, Question
from metrics.sandbox_runs import PER_CUSTOMER, SqlResult, SqlRow, checked_sql, describe_sql, run_sql_metric
from metrics.sql_text import CUSTOMER, CheckedSql, SqlError

MAX_STATEMENTS = 2_000
DIGITS = 3_000  # more than any sum of quantities has: nothing is rounded
_LENGTHS = (Window.HOUR, Window.DAY, Window.WEEK, Window.MONTH, Window.TOTAL)

__all__ = ["SqlResult", "SqlRow", "check_sql_metric", "run_sql_metric", "sql_quantities"]


def check_sql_metric(metric: Metric) -> None:
    """Raise ValidationError for `sql` if the text may not run, or PostgreSQL does not understand it. Nothing is run."""
    try:
        describe_sql(metric.organisation, checked_sql(metric))
    except SqlError as error:
        raise ValidationError({"sql": str(error)}) from error


def sql_quantities(metric: Metric, question: Question) -> Answer:
    """Return the quantities of a SQL metric, stored or not, calculated now.

    The period is cut into the days or months of the zone (`sql_window`), cut off by the period's own ends; the text is
    run for each of them by itself, and a longer window is the sum of its days or months. Columns that are not asked
    for in `group_by` are summed up. Null is nothing: a sum of nulls is null. `record_count` and `value_count` are 0,
    for nobody knows what the text counted. Raises PeriodError, UnknownCustomer, UnknownDimension, TookTooLong, and
    SqlError for what the text does wrong, a customer_id among that which the organisation does not have.
    """
    checked = checked_sql(metric)
    question.check_dimensions(checked.dimensions)
    window = Window(metric.sql_window)
    if _LENGTHS.index(question.window) < _LENGTHS.index(window):
        raise PeriodError(f"windows of a {window} or longer were expected, as its SQL is; got {question.window}")
    edges = window_edges(question.start, question.end, question.window, question.zone)
    inner = window_edges(question.start, question.end, window, question.zone)
    names, following = _named(metric, checked, question, len(inner) - 1)
    result = run_sql_metric(metric, inner, None if names is None else list(names), zone=question.zone)
    if names is None:
        names, following = _page(_known(metric, result.rows), question)
    rows = _summed([row for row in result.rows if row.customer_id in names], names, (edges, inner), question)
    if question.window is Window.TOTAL and question.customer_ids and not question.group_by:
        found = {row.customer_id: row for row in rows}
        rows = [found.get(name) or Quantity(name, edges[0], edges[-1], None, 0) for name in names]
    return Answer(metric, rows, result.as_of, following)


def _named(
    metric: Metric, checked: CheckedSql, question: Question, windows: int
) -> tuple[dict[str, int] | None, int | None]:
    """Return whom the text has to be run for (external id to id) and where the next page begins; None: for all at once.

    A text with the customer's placeholder is run for one customer after the other, those without usage among them.
    """
    of_organisation = Customer.objects.filter(organisation_id=metric.organisation_id)
    if question.customer_ids:
        named = named_customers(metric.organisation_id, question.customer_ids)
        return {external_id: pk for pk, external_id in named.items()}, None
    if PER_CUSTOMER not in checked.parameters:
        return None, None
    size = max(1, min(question.page_size, MAX_STATEMENTS // windows))
    following = of_organisation.filter(pk__gt=question.after).order_by("pk").values_list("external_id", "pk")
    found = list(following[: size + 1])
    return dict(found[:size]), found[size - 1][1] if len(found) > size else None


def _known(metric: Metric, rows: Sequence[SqlRow]) -> dict[str, int]:
    """Return the ids of the customers that the rows are about; raises SqlError for one that the organisation lacks."""
    wanted = {row.customer_id for row in rows}
    customers = Customer.objects.filter(organisation_id=metric.organisation_id, external_id__in=wanted)
    ids = dict(customers.values_list("external_id", "pk"))
    for external_id in sorted(wanted):
        if external_id not in ids:
            raise SqlError(f"{CUSTOMER} must be the id of a customer of this organisation; got '{external_id}'")
    return ids


def _page(ids: dict[str, int], question: Question) -> tuple[dict[str, int], int | None]:
    found = sorted((pk, external_id) for external_id, pk in ids.items() if pk > question.after)
    page = found[: question.page_size]
    return {external_id: pk for pk, external_id in page}, page[-1][0] if len(found) > len(page) else None


def _summed(
    rows: Sequence[SqlRow], ids: dict[str, int], edges: tuple[list[datetime], list[datetime]], question: Question
) -> list[Quantity]:
    """Add up rows by customer, window of the question and the dimensions asked for, in this order."""
    asked, inner = edges
    sums: dict[tuple[int, int, tuple[tuple[str, str], ...]], Quantity] = {}
    for row in rows:
        if any(_text(row.dimensions[name]) not in values for name, values in question.filter_by.items()):
            continue
        window = bisect_right(asked, inner[row.window]) - 1
        dimensions = {name: row.dimensions[name] for name in question.group_by}
        typed = tuple((type(value).__name__, _text(value) or "") for value in dimensions.values())
        key = (ids[row.customer_id], window, typed)
        before = sums[key].quantity if key in sums else None
        total = _sum(before, None if row.quantity is None else trimmed(row.quantity))
        sums[key] = Quantity(row.customer_id, asked[window], asked[window + 1], total, 0, 0, dimensions)
    return [sums[key] for key in sorted(sums)]


def _sum(a: Decimal | None, b: Decimal | None) -> Decimal | None:
    if a is None or b is None:
        return b if a is None else a
    with localcontext(prec=DIGITS):
        return a + b


def _text(value: object) -> str | None:
    """Return a dimension as a filter names it: numbers without needless zeros, true, false; None for null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(trimmed(value), "f") if value else "0"
    return None if value is None else str(value)
