"""JSON typed into a form: every digit kept, every mistake told with its line and column."""

import json
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminTextareaWidget

from customers.exactjson import dumps, loads

MAX_DEPTH = 64
MAX_DIGITS = 64
MAX_EXPONENT = 64


class JSONTextarea(UnfoldAdminTextareaWidget):
    """A monospaced editor; without spell checking, which would underline every key."""

    def __init__(self, rows: int = 14) -> None:
        super().__init__({"class": "tb-code", "rows": rows, "spellcheck": "false", "autocomplete": "off"})


class JSONTextField(forms.CharField):
    """Text that is one JSON object; the value is made of dict, list, str, int, Decimal, bool and None."""

    def __init__(self, *, rows: int = 14, **options: Any) -> None:
        super().__init__(**{"widget": JSONTextarea(rows), **options})

    def clean(self, value: Any) -> Any:
        """Return the parsed object, {} for no text; raises ValidationError with the place of the mistake."""
        text = super().clean(value)
        if not text:
            return {}
        parsed = parse(text)
        if not isinstance(parsed, dict):
            raise ValidationError(f'A JSON object was expected, such as {{"key": "value"}}, not {named(parsed)}.')
        check_storable(parsed)
        return parsed

    def prepare_value(self, value: Any) -> Any:
        return value if value is None or isinstance(value, str) else dumps(value, indent=2)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return (self.prepare_value(initial) or "").strip() != (data or "").replace("\r\n", "\n").strip()


def parse(text: str) -> Any:
    """Return the value of a JSON text; raises ValidationError with line and column."""
    try:
        return loads(text)
    except json.JSONDecodeError as error:
        message = f"This is not JSON. Line {error.lineno}, column {error.colno}: {lower_first(error.msg)}."
        raise ValidationError(message, code="json") from error
    except RecursionError as error:
        raise ValidationError(f"JSON nested at most {MAX_DEPTH} levels deep was expected.", code="json") from error
    except ValueError as error:
        raise ValidationError(f"This is not JSON: {error}.", code="json") from error


def check_storable(value: Any) -> None:
    """Raise ValidationError for what JSON allows and PostgreSQL cannot keep; a loop, so that no depth can hurt."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValidationError(f"JSON nested at most {MAX_DEPTH} levels deep was expected.", code="depth")
        if isinstance(item, dict):
            waiting += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str):
            _check_text(item)
        elif isinstance(item, int | Decimal):
            check_number(item)


def check_number(number: int | Decimal) -> None:
    """Raise ValidationError for a number that ingestion would refuse."""
    exact = Decimal(number)
    if len(exact.as_tuple().digits) > MAX_DIGITS or abs(exact.adjusted()) > MAX_EXPONENT:
        raise ValidationError(
            f"A number of at most {MAX_DIGITS} digits, within 1e±{MAX_EXPONENT}, was expected.", code="number"
        )


def named(value: Any) -> str:
    """Return what a JSON value is called."""
    kinds = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValidationError("Text without the null character (\\u0000) was expected.", code="null")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError("Text holds half of a surrogate pair (\\ud800 to \\udfff).", code="surrogate") from error
