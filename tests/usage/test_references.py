"""Batch references: they sort by time, and lead back to the row."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.references import batch_reference, parse_batch_reference

MOMENT = datetime(2025, 6, 17, 14, 3, 12, 123_999, tzinfo=UTC)


def test_a_reference_has_the_shape_of_a_ulid() -> None:
    assert batch_reference(1, MOMENT) == "01JXZ36YBV0000000000000001"


@given(st.integers(1, 2**63 - 1), st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1)))
def test_a_reference_leads_back_to_the_row(batch_id: int, moment: datetime) -> None:
    received_at = moment.replace(tzinfo=UTC)
    reference = batch_reference(batch_id, received_at)

    millisecond = received_at.replace(microsecond=received_at.microsecond // 1000 * 1000)
    assert len(reference) == 26
    assert parse_batch_reference(reference) == (batch_id, millisecond)
    assert parse_batch_reference(reference.lower()) == (batch_id, millisecond)


def test_references_sort_by_time() -> None:
    references = [batch_reference(1000 - i, MOMENT + timedelta(milliseconds=i)) for i in range(100)]

    assert references == sorted(references)


@pytest.mark.parametrize(
    "text",
    ["", "1", "0" * 25, "0" * 27, "I" * 26, "U" * 26, "Z" * 26, "0000000000G000000000000000", "0" * 25 + "\0", "٠" * 26]
    + ["0" * 25 + "ſ", "ß" * 26, "0" * 25 + "ß", "ﬁ" * 13, "7ZZZZZZZZZ0000000000000001"],
)
def test_what_names_no_batch_is_none(text: str) -> None:
    assert parse_batch_reference(text) is None


@given(st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZabcz\0ßıſ", min_size=20, max_size=30))
def test_no_text_raises(text: str) -> None:
    parsed = parse_batch_reference(text)

    assert parsed is None or 0 <= parsed[0] < 2**63
