"""A quantity counted again by a client that has nothing but an explanation and the list of its records."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from customers.exactjson import dumps, loads
from tests.metrics.counting import percentile
from tests.metrics.record_values import rounded

ZERO_FROM_NOTHING = ("count", "sum", "unique_count")


def recounted(explanation: dict[str, Any], records: Sequence[dict[str, Any]]) -> Fraction | None:
    """Return the quantity of the records that are counted, which come in the order of time and of storing."""
    metric = explanation["definition"]
    counted = [row for row in records if row["counted"]]
    if metric["aggregation"] == "weighted_sum":
        quantity = _held(explanation, counted)
    elif not counted:
        return Fraction(0) if metric["aggregation"] in ZERO_FROM_NOTHING else None
    else:
        quantity = _calculated(metric, [row["value"] for row in counted])
    if quantity is not None and "rounding" in metric:
        return rounded(quantity, metric["rounding"]["mode"], metric["rounding"]["digits"])
    return quantity


def _calculated(metric: dict[str, Any], texts: list[str]) -> Fraction:
    if metric["aggregation"] == "unique_count":
        return Fraction(len(set(texts)))
    values = [Fraction(Decimal(text)) for text in texts]
    match metric["aggregation"]:
        case "count" | "sum":
            return sum(values, Fraction(0))
        case "avg":
            return sum(values, Fraction(0)) / len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "latest":
            return values[-1]
        case "percentile":
            return percentile(values, Fraction(metric["percentile"]))
    raise AssertionError(f"no aggregation of ours: {metric['aggregation']}")


def _held(explanation: dict[str, Any], counted: list[dict[str, Any]]) -> Fraction | None:
    """Each value times the hours until the next one of its dimensions, or the end, or the moment of the answer."""
    start = _moment(explanation["start"])
    until = min(_moment(explanation["end"]), _moment(explanation["as_of"]))
    series: dict[str, list[tuple[datetime, Fraction]]] = defaultdict(list)
    for row in [*explanation["carried_in"], *counted]:
        held_from = max(start, _moment(row["timestamp"]))
        series[dumps(row["dimensions"])].append((held_from, Fraction(Decimal(row["value"]))))
    total = None
    for values in series.values():
        nexts = [moment for moment, _ in values[1:]] + [until]
        for (moment, value), following in zip(values, nexts, strict=True):
            if moment < min(following, until):
                seconds = Fraction((min(following, until) - moment).total_seconds())
                total = (total or Fraction(0)) + value * seconds / 3600
    return total


def all_records(ask: Any, url: str) -> list[dict[str, Any]]:
    """Return the records on all pages of a list; `ask` answers an address."""
    found: list[dict[str, Any]] = []
    following: str | None = url
    while following:
        answer = ask(following)
        assert answer.status_code == 200, answer.content
        page = loads(answer.content)
        found += page["results"]
        following = page["next"]
    return found


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
