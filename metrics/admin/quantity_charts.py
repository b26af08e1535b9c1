"""Quantities as a chart: what static/tallybook/metric_chart.js draws. The table beside it has every digit."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from customers.exactjson import dumps, loads
from metrics.exactly import EXACT
from metrics.formulas import ADDITIVE
from metrics.periods import Window, window_edges
from metrics.questions import Answer, Quantity, Question

SERIES_SHOWN = 8
BARS_SHOWN = 20
NOT_SET = "not set"
# Texts that look like what is no text.
READ_OTHERWISE = re.compile(rf"|-?\d[\d.]*([eE][+-]?\d+)?|#.*|“.*”|true|false|null|{NOT_SET}")
BEYOND_FLOATS = Decimal("1e300")

Key = tuple[str, str]  # the customer, and the JSON of the dimensions
Values = dict[datetime, Decimal | None]  # quantities by the start of their windows


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn, and how many series are not: added up in a series "others", or left out."""

    shown: dict[str, Any] = field(default_factory=dict)
    added_up: int = 0
    left_out: int = 0


def chart_of(answer: Answer, question: Question) -> Chart | None:
    """Return the chart of a page of quantities; None where one number is all there is.

    Several windows: a series for each customer (and its dimensions), the largest ones; the others are added up where
    quantities add up. One window: a bar for each of the largest.
    """
    series = _series(answer.rows)
    edges = window_edges(question.start, question.end, question.window, question.zone)
    several = len(edges) > 2
    if len(series) < 2 and not (several and answer.rows):
        return None
    largest = sorted(series, key=lambda key: -_size(series[key]))
    most = SERIES_SHOWN if several else BARS_SHOWN
    kept, others = largest[:most], largest[most:]
    additive = answer.metric.aggregation in ADDITIVE
    drawn = _windows(series, kept, edges, question) if several else _bars(series, kept)
    if others and additive:
        _add_others(drawn, _together([series[other] for other in others]), len(others), edges[:-1])
    return Chart(
        {**drawn, "type": "bar" if additive or not several else "line", "stacked": additive and several}
        | {"unit": answer.metric.unit},
        added_up=len(others) if additive else 0,
        left_out=0 if additive else len(others),
    )


def _series(rows: Sequence[Quantity]) -> dict[Key, Values]:
    series: dict[Key, Values] = defaultdict(dict)
    for row in rows:
        series[row.customer_id, dumps(row.dimensions)][row.start] = row.quantity
    return series


def _label(key: Key) -> str:
    """The customer and the dimensions in one line."""
    customer_id, dimensions = key
    return " · ".join([customer_id, *map(dimension_text, loads(dimensions).values())])


def dimension_text(value: Any) -> str:
    """Return a dimension's value for people; what is long or no scalar was replaced by its hash.

    A text that could be read as something else (a number, true, nothing) is put in quotation marks.
    """
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"#{str(value.get('sha256', ''))[:12]}"
    if isinstance(value, str):
        return f"“{value}”" if value != value.strip() or READ_OTHERWISE.fullmatch(value) else value
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _size(values: Values) -> float:
    return sum(abs(_drawn(value) or 0.0) for value in values.values())


def _together(some: Sequence[Values]) -> Values:
    total: Values = {}
    for values in some:
        for start, value in values.items():
            total[start] = EXACT.add(total.get(start) or Decimal(0), value or Decimal(0))
    return total


def _windows(
    series: dict[Key, Values], kept: Sequence[Key], edges: list[datetime], question: Question
) -> dict[str, Any]:
    return {
        "labels": [_moment(edge, question) for edge in edges[:-1]],
        "series": [
            {"label": _label(key), "values": [_drawn(series[key].get(edge)) for edge in edges[:-1]]} for key in kept
        ],
    }


def _bars(series: dict[Key, Values], kept: Sequence[Key]) -> dict[str, Any]:
    values = [_drawn(next(iter(series[key].values()), None)) for key in kept]
    return {"labels": [_short(_label(key)) for key in kept], "series": [{"label": "Quantity", "values": values}]}


def _add_others(drawn: dict[str, Any], total: Values, count: int, starts: Sequence[datetime]) -> None:
    """Add what is not shown one by one: a series of its own, or one more bar."""
    label = "1 other" if count == 1 else f"{count} others"
    values = [_drawn(total.get(start)) for start in starts]
    if len(starts) > 1:
        drawn["series"].append({"label": label, "values": values, "others": True})
    else:
        drawn["labels"].append(label)
        drawn["series"][0]["values"] += values


def _drawn(value: Decimal | None) -> float | None:
    """The nearest float; a quantity beyond all floats is drawn at the end of the scale."""
    return None if value is None else float(max(-BEYOND_FLOATS, min(BEYOND_FLOATS, value)))


def _short(label: str) -> str:
    return label if len(label) <= 24 else f"{label[:23]}…"


def _moment(edge: datetime, question: Question) -> str:
    local = edge.astimezone(question.zone)
    if question.window is Window.HOUR:
        return local.strftime("%m-%d %H:%M")
    return local.strftime("%Y-%m" if question.window is Window.MONTH and local.day == 1 else "%Y-%m-%d")
