"""What is asked of a metric's dimensions in an address: by text, which may stand for several, or exactly by JSON."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from unfold.widgets import UnfoldAdminTextareaWidget

from customers.exactjson import dumps, loads
from metrics.models import Metric
from metrics.questions import Exactly
from metrics.sandbox_runs import checked_sql
from metrics.sql_text import SqlError

# Before the name of a property in an address: texts as in the API, or JSON, where 1 and "1" are two.
FILTER, EXACTLY = "filter.", "exactly."
MAX_CHARACTERS = 10_000
# Far beyond what a record may hold, and within what PostgreSQL can compare.
MAX_EXPONENT = 1_000
EXPECTED = 'One value a line was expected, as JSON: "eu", 1, true, null, or {"sha256": "…"}'

Asked = tuple[str | Exactly, ...]


class TextsField(forms.CharField):
    """Values by text, one a line: each stands for all that is written so."""

    def __init__(self, label: str, placeholder: str = "Any, or one value a line") -> None:
        super().__init__(
            required=False,
            max_length=MAX_CHARACTERS,
            strip=False,
            label=label,
            widget=UnfoldAdminTextareaWidget({"rows": 1, "placeholder": placeholder}),
        )

    def to_python(self, value: Any) -> Any:
        return tuple(lines_of(super().to_python(value) or ""))

    def run_validators(self, value: Any) -> None:
        super().run_validators("\n".join(map(str, value)))


class ExactField(TextsField):
    """Values with their types as JSON, one a line: null is the record without the property."""

    def __init__(self, label: str) -> None:
        super().__init__(f"{label} (JSON)", "Any, or one JSON value a line")

    def clean(self, value: Any) -> Any:
        return tuple(Exactly(_value_of(text)) for text in super().clean(value))


def dimensions_in_force(metric: Metric) -> list[str]:
    """Return the dimensions of a version; of SQL, the columns that tell rows apart."""
    if not metric.sql:
        return list(metric.group_by)
    try:
        return list(checked_sql(metric).dimensions)
    except SqlError:
        return []


def dimension_fields(names: Sequence[str], given: QueryDict, *, by_text_alone: bool) -> dict[str, forms.Field]:
    """Return a field for each dimension: for text, or for JSON where the address asks for exact values."""
    exact = [] if by_text_alone else asked_for(given, EXACTLY)
    return {
        **{f"{FILTER}{name}": TextsField(f"Only {name}") for name in names if name not in exact},
        **{f"{EXACTLY}{name}": ExactField(f"Only {name}") for name in names if name in exact},
    }


def asked_for(given: QueryDict, *prefixes: str) -> list[str]:
    """Return the names of properties whose values an address asks for."""
    names = [(name.removeprefix(prefix), name) for prefix in prefixes for name in given if name.startswith(prefix)]
    return list(dict.fromkeys(short for short, name in names if any(given.getlist(name))))


def filters_of(asked: dict[str, Any], dimensions: Sequence[str]) -> dict[str, Asked]:
    """Return the values that were asked for, by dimension, out of the cleaned fields."""
    values = {name: asked.get(f"{EXACTLY}{name}", ()) or asked.get(f"{FILTER}{name}", ()) for name in dimensions}
    return {name: wanted for name, wanted in values.items() if wanted}


def address_of(filter_by: dict[str, Asked]) -> dict[str, list[str]]:
    """Return what asks for the same values in an address."""
    parameters: dict[str, list[str]] = {}
    for name, wanted in filter_by.items():
        for one in wanted:
            key, text = (EXACTLY, dumps(one.value)) if isinstance(one, Exactly) else (FILTER, one)
            parameters.setdefault(f"{key}{name}", []).append(text)
    return parameters


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, each once, without the empty ones."""
    return list(dict.fromkeys(filter(None, text.replace("\r", "").split("\n"))))


def _value_of(text: str) -> object:
    try:
        value = loads(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{EXPECTED}; got {text[:60]}.") from error
    hashed = isinstance(value, dict) and list(value) == ["sha256"] and isinstance(value["sha256"], str)
    if not (hashed or _is_storable(value)) or (hashed and not _is_storable(value["sha256"])):
        raise ValidationError(f"{EXPECTED}; got {text[:60]}.")
    return value


def _is_storable(value: Any) -> bool:
    """Tell whether PostgreSQL can compare with a scalar; not with null characters, nor with a number beyond measure."""
    if isinstance(value, str):
        return not any(one == "\0" or "\ud800" <= one <= "\udfff" for one in value)
    if isinstance(value, Decimal):
        return abs(value.adjusted()) <= MAX_EXPONENT
    return value is None or isinstance(value, bool | int)
