"""One form field for one property of a record's data, by its type in the schema; "not set" is never "empty"."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from customers.exactjson import dumps, loads, same_json
from customers.jsonfields import check_number
from usage.schemas import types_of

UNSET: Any = object()
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,9})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class NumberField(forms.CharField):
    """An exact decimal as text; no text means not set."""

    def __init__(self, **options: Any) -> None:
        widget = UnfoldAdminTextInputWidget({"inputmode": "decimal", "autocomplete": "off", "placeholder": "not set"})
        super().__init__(required=False, widget=widget, **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return UNSET
        if len(text) > 1_000 or not _NUMBER.fullmatch(text):
            raise ValidationError("A number was expected, such as 12 or 0.25.", code="number")
        number = loads(text)
        check_number(number)
        return number


class ChoiceOrUnsetField(forms.ChoiceField):
    """One of the values that the schema allows, each by its JSON text; or not set."""

    def __init__(self, values: list[Any], **options: Any) -> None:
        choices = [("", "not set"), *((dumps(value), _label(value)) for value in values)]
        super().__init__(required=False, choices=choices, widget=UnfoldAdminSelectWidget, **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        return loads(text) if text else UNSET


class TextOrUnsetWidget(forms.MultiWidget):
    """A line of text, and a box that says that there is none."""

    template_name = "usage/text_or_unset.html"

    def __init__(self) -> None:
        text = UnfoldAdminTextInputWidget({"autocomplete": "off", "data-tb-text": ""})
        super().__init__({"text": text, "unset": forms.CheckboxInput({"data-tb-unset": ""})})

    def id_for_label(self, id_: str) -> str:
        return f"{id_}_0"

    def decompress(self, value: Any) -> list[Any]:
        return ["", True] if value is None else [value, False]


class TextOrUnsetField(forms.MultiValueField):
    """A string, which may be empty; or not set."""

    def __init__(self, **options: Any) -> None:
        fields = (forms.CharField(required=False, strip=False), forms.BooleanField(required=False))
        super().__init__(fields, required=False, require_all_fields=False, widget=TextOrUnsetWidget(), **options)

    def clean(self, value: Any) -> Any:
        text, unset = (field.clean(given) for field, given in zip(self.fields, value or ["", True], strict=True))
        if unset and text:
            raise ValidationError("Either a text or “not set” was expected, not both.", code="unset")
        if text and _CONTROL.search(text):
            raise ValidationError("Text without control characters was expected.", code="control")
        return UNSET if unset else text

    def has_changed(self, initial: Any, data: Any) -> bool:
        text, unset = data or ["", True]
        return [text or "", bool(unset)] != self.widget.decompress(initial)


def field_for(subschema: dict[str, Any], value: Any, label: str) -> forms.Field | None:
    """Return a field for a property that has this value (or UNSET); None where JSON has to be typed."""
    values, types = subschema.get("enum"), types_of(subschema)
    options: dict[str, Any] = {"label": label, "help_text": ""}
    if isinstance(values, list) and values and not any(isinstance(item, dict | list) for item in values):
        chosen = next((item for item in values if value is not UNSET and same_json(item, value)), None)
        if value is not UNSET and not any(same_json(item, value) for item in values):
            return None
        return ChoiceOrUnsetField(values, initial="" if value is UNSET else dumps(chosen), **options)
    if types == ["boolean"] and (value is UNSET or isinstance(value, bool)):
        return ChoiceOrUnsetField([True, False], initial="" if value is UNSET else dumps(value), **options)
    if types in (["number"], ["integer"]) and (value is UNSET or _is_number(value)):
        return NumberField(initial="" if value is UNSET else dumps(value), **options)
    if types == ["string"] and (value is UNSET or (isinstance(value, str) and not _CONTROL.search(value))):
        return TextOrUnsetField(initial=None if value is UNSET else value, **options)
    return None


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool | str | dict | list) and value is not None


def _label(value: Any) -> str:
    return value if isinstance(value, str) and value else dumps(value)
