"""Exact JSON: what is read is written back with every digit, and what means the same is the same."""

import json
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.utils.functional import lazystr
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ErrorDetail

from customers.exactjson import ExactDecoder, ExactEncoder, ExactJSONField, OrderedJSONField, dumps, loads, same_json
from customers.models import Customer, Organisation

NUMBERS = st.integers(-(10**64), 10**64) | st.decimals(allow_nan=False, allow_infinity=False, places=20)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-0", 0),
        ("1.0", Decimal("1.0")),
        ("0.1000", Decimal("0.1000")),
        ("1e400", Decimal("1E+400")),
        ("1180591620717411303424", 2**70),
        ("12345678901234567890.12345678901234567890", Decimal("12345678901234567890.12345678901234567890")),
        ('"\\ud83d\\ude00"', "😀"),
        ('{"b":1,"a":2}', {"b": 1, "a": 2}),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Any) -> None:
    read = loads(text)

    assert read == value
    assert type(read) is type(value)
    assert str(read) == str(value)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e99999999999999999999",
        "[1e-99999999999999999999]",
        "9" * 5000,
        "",
        " ",
        "\ufeff1",
    ]
    + ["01", "1.", ".5", "+1", "1e", "'a'", "{a:1}", "[1,]", '"\n"', "٣"],
)
def test_what_is_no_json_number_or_text_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_a_mistake_is_told_with_its_place() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        loads('{\n "a": 1,\n "b" 2}')

    assert (caught.value.lineno, caught.value.colno) == (3, 6)


@given(VALUES)
def test_what_is_written_is_read_back_with_every_digit(value: Any) -> None:
    text = dumps(value)

    read = loads(text)

    assert same_json(read, value)
    assert dumps(read) == text
    assert json.dumps(value, cls=ExactEncoder) == text
    assert json.loads(text, cls=ExactDecoder) == read


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("0.1000"), "0.1000"),
        (Decimal("1E+5"), "1E+5"),
        (10**100, "1" + "0" * 100),
        (lazystr("later"), '"later"'),
        (ErrorDetail("text of DRF", code="x"), '"text of DRF"'),
        ({"a": [True, None]}, '{"a":[true,null]}'),
    ],
)
def test_what_django_and_drf_hand_over_is_written_as_what_it_is(value: Any, text: str) -> None:
    assert dumps(value) == text


def test_what_has_no_json_form_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        dumps(object())


def test_indented_text_keeps_its_digits() -> None:
    assert dumps({"a": Decimal("1.50")}, indent=2) == '{\n  "a": 1.50\n}'


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, Decimal("1.0"), True),
        (Decimal("1e2"), 100, True),
        (0, Decimal("-0.0"), True),
        (2**70, Decimal(2**70), True),
        (Decimal("0.1"), Decimal("0.10000000000000000000000000000001"), False),
        (1, True, False),
        (False, 0, False),
        (True, True, True),
        (None, False, False),
        ("1", 1, False),
        ("é", "e\u0301", False),
        ({"a": 1, "b": [1]}, {"b": [Decimal("1.00")], "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([], {}, False),
    ],
)
@pytest.mark.django_db
def test_same_json_agrees_with_jsonb(left: Any, right: Any, same: bool) -> None:
    assert same_json(left, right) is same
    assert same_json(right, left) is same
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::jsonb = %s::jsonb", [dumps(left), dumps(right)])
        assert cursor.fetchone() == (same,)


@pytest.mark.django_db
def test_a_jsonb_column_gives_back_every_digit() -> None:
    organisation = Organisation.objects.create(name="Acme")
    data = {"n": Decimal("12345678901234567890.12345678901234567890"), "i": 2**70, "t": "😀", "l": [1, Decimal("1.50")]}
    Customer.objects.create(organisation=organisation, external_id="c", custom_data=data)

    stored = Customer.objects.get().custom_data

    assert stored == data
    assert dumps(stored["l"]) == "[1,1.50]"


def test_the_encoder_is_no_part_of_a_migration() -> None:
    for field in (ExactJSONField(default=dict), OrderedJSONField()):
        options = field.deconstruct()[3]
        assert "encoder" not in options
        assert "decoder" not in options


def test_a_member_that_is_there_twice_is_refused_where_that_is_asked() -> None:
    assert loads('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match='the member "a" is there twice'):
        loads('[{"b": {"a": 1, "c": 1.50, "a": 2}}]', once=True)
    assert loads('[{"a": 1.50}, {"a": 2}]', once=True) == [{"a": Decimal("1.50")}, {"a": 2}]
