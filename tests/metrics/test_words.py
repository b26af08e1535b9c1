"""A metric's formula in words, and what differs between two versions."""

from decimal import Decimal
from typing import Any

import pytest

from metrics.models import Metric
from metrics.words import PartChange, changes_in_words, formula_in_words

EU = {"all": [{"property": "region", "operator": "eq", "value": "eu"}]}


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"aggregation": "count"}, "Count of records"),
        ({"aggregation": "sum", "property": "hours"}, "Sum of hours"),
        ({"aggregation": "sum", "expression": "input + 4 * output"}, "Sum of input + 4 * output"),
        ({"aggregation": "avg", "property": "hours"}, "Average of hours"),
        ({"aggregation": "min", "property": "hours"}, "Smallest hours"),
        ({"aggregation": "max", "property": "hours"}, "Largest hours"),
        ({"aggregation": "latest", "property": "seats"}, "Latest seats"),
        ({"aggregation": "unique_count", "property": "user"}, "Count of distinct user"),
        ({"aggregation": "weighted_sum", "property": "gb"}, "Time-weighted sum of gb"),
        ({"aggregation": "percentile", "property": "ms", "percentile": 95}, "95th percentile of ms"),
        ({"aggregation": "percentile", "property": "ms", "percentile": 1}, "1st percentile of ms"),
        ({"aggregation": "percentile", "property": "ms", "percentile": 22}, "22nd percentile of ms"),
        ({"aggregation": "percentile", "property": "ms", "percentile": 53}, "53rd percentile of ms"),
        ({"aggregation": "percentile", "property": "ms", "percentile": 12}, "12th percentile of ms"),
        ({"aggregation": "percentile", "property": "ms", "percentile": 100}, "100th percentile of ms"),
        ({"aggregation": "percentile", "property": "ms", "percentile": Decimal("99.90")}, "99.9th percentile of ms"),
        ({"aggregation": "percentile", "property": "ms", "percentile": Decimal("50.0")}, "50th percentile of ms"),
        ({"aggregation": "count", "filters": {"all": []}}, "Count of records"),
        (
            {
                "aggregation": "sum",
                "property": "hours",
                "group_by": ["region", "size", "zone"],
                "filters": EU,
                "rounding_mode": "half_up",
                "rounding_digits": 2,
            },
            "Sum of hours by region, size and zone, where region is “eu”, rounded half up to 2 digits",
        ),
        (
            {"aggregation": "count", "rounding_mode": "ceiling", "rounding_digits": 0},
            "Count of records, rounded up to a whole number",
        ),
        (
            {"aggregation": "count", "rounding_mode": "half_even", "rounding_digits": 1},
            "Count of records, rounded half to even to 1 digit",
        ),
        ({"sql": "select 1", "sql_window": "month"}, "SQL, calculated for each month"),
    ],
)
def test_a_formula_in_words(definition: dict[str, Any], words: str) -> None:
    assert formula_in_words(Metric(**definition)) == words


def test_changes_are_told_part_by_part() -> None:
    old = Metric(name="Hours", unit="h", aggregation="sum", property="hours")
    new = Metric(name="Hours", unit="h", aggregation="sum", property="hours", filters=EU, group_by=["region"])
    assert changes_in_words(old, new) == [
        PartChange("Which records count", "every record", "region is “eu”"),
        PartChange("Dimensions", "none", "region"),
    ]
    assert changes_in_words(old, old) == []


def test_a_metric_of_records_that_becomes_sql_loses_what_it_had() -> None:
    old = Metric(name="Hours", aggregation="count")
    new = Metric(name="Hours", sql="select 1", sql_window="day")
    assert changes_in_words(old, new) == [
        PartChange("SQL", "", "select 1"),
        PartChange("Calculated for", "", "each day"),
        PartChange("Which records count", "every record", ""),
        PartChange("Dimensions", "none", ""),
        PartChange("Calculation", "Count of records", ""),
    ]
