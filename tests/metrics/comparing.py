"""Answers and their recounts side by side, row by row and digit by digit."""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from metrics.questions import Answer
from tests.metrics.counting import Counted, Row
from tests.metrics.record_values import Canonical, canonical, exact_or_none

DIGITS_OF_QUOTIENTS = 34

Found = dict[Row, tuple[Decimal | None, int, int]]


def answered_rows(answers: Iterable[Answer]) -> Found:
    """Return what the pages of an answer say, by row; each row is there once."""
    found: Found = {}
    for answer in answers:
        for row in answer.rows:
            dimensions = tuple(_of_answer(value) for value in row.dimensions.values())
            key = Row(row.customer_id, row.start, row.end, dimensions)
            assert key not in found, f"answered twice: {key}"
            found[key] = row.quantity, row.record_count, row.value_count
    return found


def _of_answer(value: Any) -> Canonical:
    return ("sha256", value["sha256"]) if isinstance(value, dict) else canonical(value)


def assert_answer(found: Found, expected: dict[Row, Counted]) -> None:
    """Fail unless the rows are those expected, to the last digit; endless quotients to 33 digits at least."""
    assert found.keys() == expected.keys(), (
        f"not expected: {sorted(found.keys() - expected.keys(), key=str)}; "
        f"missing: {sorted(expected.keys() - found.keys(), key=str)}"
    )
    for row, (quantity, record_count, value_count) in found.items():
        wanted = expected[row]
        assert (record_count, value_count) == wanted[1:], (row, found[row], wanted)
        assert is_quantity(quantity, wanted.quantity), (row, found[row], wanted, quantity and Fraction(quantity))


def is_quantity(found: Decimal | None, wanted: Fraction | None) -> bool:
    """Tell whether a quantity is the exact one: all its digits, or the first 33 of those that never end."""
    if found is None or wanted is None:
        return found is wanted
    if Fraction(found) == wanted:
        return True
    ends = exact_or_none(wanted)
    if ends is not None and len(ends.as_tuple().digits) <= DIGITS_OF_QUOTIENTS:
        return False
    return abs(Fraction(found) - wanted) <= abs(wanted) / 10 ** (DIGITS_OF_QUOTIENTS - 1)
