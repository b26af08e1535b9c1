"""A definition tried out on real records before it is saved: its quantities as a chart and as a table."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from metrics.admin.quantity_charts import dimension_text
from metrics.definition_forms import DefinitionForm, sentence
from metrics.models import Aggregation
from metrics.periods import PeriodError, Window, window_edges
from metrics.preview_forms import CUSTOMERS_SHOWN, PreviewForm
from metrics.quantities import preview
from metrics.quantity_forms import refuse_short_window
from metrics.questions import Answer, Quantity, Question, TookTooLong, UnknownCustomer
from metrics.sql_forms import SqlForm
from metrics.sql_text import SqlError
from metrics.words import formula_in_words

ROWS_SHOWN = 200
SERIES_SHOWN = 8
# What is added up by nature is shown as bars, which may stand on each other; the rest as lines.
STACKED = (Aggregation.COUNT, Aggregation.SUM, Aggregation.WEIGHTED_SUM, "")


@dataclass(slots=True)
class Preview:
    """What the panel beside the form shows: an answer, or why there is none."""

    words: str = ""
    answer: Answer | None = None
    question: Question | None = None
    rows: list[Quantity] = field(default_factory=list)
    problem: str = ""

    @property
    def more_rows(self) -> int:
        return len(self.answer.rows) - len(self.rows) if self.answer else 0

    @property
    def counted(self) -> int:
        """How many records had a value that was counted."""
        return sum(row.value_count for row in self.answer.rows) if self.answer else 0

    @property
    def skipped(self) -> int:
        """How many records passed the filters and had no value."""
        return sum(row.record_count for row in self.answer.rows) - self.counted if self.answer else 0

    @property
    def customer_count(self) -> int:
        return len({row.customer_id for row in self.answer.rows}) if self.answer else 0

    @property
    def more_customers(self) -> bool:
        return self.answer is not None and self.answer.next is not None

    @property
    def most_customers(self) -> int:
        return CUSTOMERS_SHOWN

    @property
    def lines(self) -> list[tuple[Quantity, list[str]]]:
        """The rows that are shown, each with its dimensions for people."""
        return [(row, [dimension_text(value) for value in row.dimensions.values()]) for row in self.rows]

    @property
    def dimensions(self) -> list[str]:
        """The names of the columns that tell rows of one customer and window apart."""
        return list(self.answer.rows[0].dimensions) if self.answer and self.answer.rows else []


def preview_of(form: DefinitionForm, asked: PreviewForm) -> Preview:
    """Return what the definition in a form gives; what is wrong with it is put at the form's fields."""
    if not (form.is_valid() & asked.is_valid()):
        return Preview(problem="There is nothing to calculate yet: something is still empty, or marked as wrong.")
    metric = form.metric()
    refuse_short_window(asked, "preview_window", metric)
    if asked.errors:
        return Preview(problem="What is marked has to be changed before anything can be calculated.")
    question = asked.question(metric, form.dimensions())
    shown = Preview(words=formula_in_words(metric), question=question)
    try:
        shown.answer = preview(metric, question)
    except UnknownCustomer as error:
        asked.add_error("preview_customer", f"There is no customer “{error}”.")
    except PeriodError as error:
        asked.add_error("preview_end", sentence(str(error)))
    except TookTooLong as error:
        shown.problem = sentence(str(error))
    except SqlError as error:
        if isinstance(form, SqlForm):
            form.point_at(error)
    if shown.answer is not None:
        shown.rows = shown.answer.rows[:ROWS_SHOWN]
    elif not shown.problem:
        shown.problem = "What is marked has to be changed before anything can be calculated."
    return shown


def chart_of(shown: Preview) -> dict[str, Any] | None:
    """Return the series as the page's script draws them: at most SERIES_SHOWN, the largest; None without rows.

    The numbers are for the eye; the table has every digit.
    """
    if shown.answer is None or shown.question is None or not shown.answer.rows:
        return None
    question, metric = shown.question, shown.answer.metric
    edges = window_edges(question.start, question.end, question.window, question.zone)
    index = {start: i for i, start in enumerate(edges[:-1])}
    series: dict[str, list[float | None]] = {}
    for row in shown.answer.rows:
        values = series.setdefault(_label_of(row), [None] * len(index))
        if row.quantity is not None and row.start in index:
            values[index[row.start]] = _drawn(row.quantity)
    largest = sorted(series, key=lambda label: -sum(abs(value or 0) for value in series[label]))
    stacked = metric.aggregation in STACKED
    return {
        "type": "bar" if stacked or len(index) == 1 else "line",
        "stacked": stacked,
        "unit": metric.unit,
        "labels": [_day(edge, question) for edge in edges[:-1]],
        "series": [{"label": label, "values": series[label]} for label in largest[:SERIES_SHOWN]],
        "left_out": max(0, len(series) - SERIES_SHOWN),
    }


def _label_of(row: Quantity) -> str:
    return " · ".join([row.customer_id, *map(dimension_text, row.dimensions.values())])


def _drawn(quantity: Decimal) -> float:
    """The nearest float; a quantity beyond all floats is drawn at the end of the scale."""
    return max(-1e300, min(1e300, float(quantity)))


def _day(edge: datetime, question: Question) -> str:
    local = edge.astimezone(question.zone)
    if question.window is Window.HOUR:
        return local.strftime("%m-%d %H:%M")
    return local.strftime("%Y-%m" if question.window is Window.MONTH and local.day == 1 else "%Y-%m-%d")


def errors_of(*shown: Any) -> dict[str, list[str]]:
    """Return the errors of forms by field, as the page's script puts them there; "" are the form's own."""
    found: dict[str, list[str]] = {}
    for form in shown:
        for name, messages in form.errors.items():
            found.setdefault("" if name == "__all__" else name, []).extend(map(str, messages))
    return found
