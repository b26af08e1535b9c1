"""Every code that the contract promises has words in the quarantine and a row in the operators' manual."""

import re
from pathlib import Path

from usage.cause_words import CAUSES, words_for

CODES = {
    *("malformed", "missing_field", "unknown_field", "number", "customer_id", "timestamp", "too_old", "too_new"),
    *("schema", "unknown_customer", "duplicate_in_batch", "conflict", "null_character"),
}
MANUAL = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_every_code_of_the_contract_is_explained_in_the_admin_and_in_the_manual() -> None:
    assert set(CAUSES) == CODES
    assert set(re.findall(r"^\| `(\w+)` \|", MANUAL.read_text(), re.MULTILINE)) == CODES


def test_a_code_without_words_of_its_own_gets_general_ones() -> None:
    assert words_for("of_the_future").title == "The record was refused"
