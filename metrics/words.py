"""A metric's formula in words, as a whole and part by part, for people who read it and for the comparison of two."""

from dataclasses import dataclass

from customers.exactjson import dumps
from metrics.filters import filters_in_words
from metrics.models import Aggregation, Metric, Rounding, SqlWindow

_ROUNDED = {
    Rounding.HALF_UP: "half up",
    Rounding.HALF_EVEN: "half to even",
    Rounding.UP: "away from zero",
    Rounding.DOWN: "towards zero",
    Rounding.CEILING: "up",
    Rounding.FLOOR: "down",
}
_OF = {
    Aggregation.SUM: "Sum of {}",
    Aggregation.AVG: "Average of {}",
    Aggregation.MIN: "Smallest {}",
    Aggregation.MAX: "Largest {}",
    Aggregation.LATEST: "Latest {}",
    Aggregation.UNIQUE_COUNT: "Count of distinct {}",
    Aggregation.WEIGHTED_SUM: "Time-weighted sum of {}",
}
_EVERY_RECORD = "every record"


@dataclass(frozen=True, slots=True)
class PartChange:
    """A part of the definition that differs between two versions, in words; "" where one has no such part."""

    part: str
    before: str
    after: str


def formula_in_words(metric: Metric) -> str:
    """Return a sentence without its full stop: Sum of hours by region, where region is “eu”, rounded half up to …"""
    if metric.sql:
        rounded = rounding_in_words(metric)
        return f"SQL, calculated for {_each(metric)}" + (f", {rounded}" if rounded else "")
    words = calculation_in_words(metric)
    if metric.group_by:
        words += f" by {_listed(metric.group_by)}"
    condition = filters_in_words(metric.filters)
    if condition:
        words += f", where {condition}"
    rounded = rounding_in_words(metric)
    return f"{words}, {rounded}" if rounded else words


def calculation_in_words(metric: Metric) -> str:
    """Return what is calculated of each window: Count of records, 95th percentile of duration_ms."""
    value = metric.property or metric.expression
    if metric.aggregation == Aggregation.COUNT:
        return "Count of records"
    if metric.aggregation == Aggregation.PERCENTILE:
        return f"{_ordinal(metric)} percentile of {value}"
    return _OF[Aggregation(metric.aggregation)].format(value)


def rounding_in_words(metric: Metric) -> str:
    """Return how the quantity is rounded; "" for not at all."""
    if not metric.rounding_mode:
        return ""
    digits = metric.rounding_digits or 0
    to = "a whole number" if digits == 0 else f"{digits} digit{'' if digits == 1 else 's'}"
    return f"rounded {_ROUNDED[Rounding(metric.rounding_mode)]} to {to}"


def changes_in_words(old: Metric, new: Metric) -> list[PartChange]:
    """Return what differs between two versions of a metric, part by part in the order of the form."""
    before, after = _parts(old), _parts(new)
    return [
        PartChange(part, before.get(part, ""), after.get(part, ""))
        for part in dict.fromkeys([*after, *before])
        if before.get(part, "") != after.get(part, "")
    ]


def _parts(metric: Metric) -> dict[str, str]:
    named = {"Name": metric.name, "Unit": metric.unit}
    rounding = rounding_in_words(metric) or "not rounded"
    if metric.sql:
        return {**named, "SQL": metric.sql, "Calculated for": _each(metric), "Rounding": rounding}
    return {
        **named,
        "Usage event": metric.usage_event.name if metric.usage_event else "",
        "Which records count": filters_in_words(metric.filters) or _EVERY_RECORD,
        "Dimensions": _listed(metric.group_by) if metric.group_by else "none",
        "Calculation": calculation_in_words(metric),
        "Rounding": rounding,
    }


def _each(metric: Metric) -> str:
    return str(SqlWindow(metric.sql_window).label).lower() if metric.sql_window else "the period"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ordinal(metric: Metric) -> str:
    """95th, 50th, 99.9th, 1st."""
    text = "?" if metric.percentile is None else dumps(metric.percentile)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    last_two = text.rpartition(".")[2][-2:] if "." in text else text[-2:]
    if "." in text or last_two in ("11", "12", "13"):
        return f"{text}th"
    return text + {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th")
