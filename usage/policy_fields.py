"""Form fields for what a usage event accepts beside its schema: unknown customers, refused records, ages and leads."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from usage.models import InvalidRecord, UnknownCustomer

UNITS = {"days": timedelta(days=1), "hours": timedelta(hours=1), "minutes": timedelta(minutes=1)}
SECONDS = timedelta(seconds=1)
LONGEST = timedelta(days=36_525)


class SpanWidget(forms.MultiWidget):
    """A number and its unit."""

    template_name = "usage/span.html"

    def __init__(self) -> None:
        number = UnfoldAdminTextInputWidget({"inputmode": "decimal", "autocomplete": "off", "placeholder": "no limit"})
        unit = UnfoldAdminSelectWidget(choices=[(unit, unit) for unit in (*UNITS, "seconds")])
        super().__init__({"number": number, "unit": unit})

    def id_for_label(self, id_: str) -> str:
        return f"{id_}_0"

    def decompress(self, value: Any) -> list[Any]:
        """Return number and unit of a time span: the largest unit of which it is a whole number."""
        if value is None:
            return ["", "days"]
        for name, unit in UNITS.items():
            if value and not value % unit:
                return [value // unit, name]
        return [format(Decimal(value // timedelta(microseconds=1)) / 1_000_000, "f"), "seconds"]


class SpanField(forms.MultiValueField):
    """A time span; no number is no limit."""

    def __init__(self, **options: Any) -> None:
        number = forms.DecimalField(required=False, min_value=0, max_digits=12, decimal_places=6)
        unit = forms.ChoiceField(required=False, choices=[(unit, unit) for unit in (*UNITS, "seconds")])
        super().__init__((number, unit), required=False, require_all_fields=False, widget=SpanWidget(), **options)

    def compress(self, data_list: list[Any]) -> timedelta | None:
        number, unit = data_list or (None, "")
        if number is None:
            return None
        microseconds = number * (UNITS.get(unit, SECONDS) // timedelta(microseconds=1))
        span = timedelta(microseconds=min(int(microseconds), 10**18))
        if span > LONGEST:
            raise ValidationError("At most 100 years were expected; no number at all is no limit.", code="span")
        return span

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != initial)
        except ValidationError:
            return True


class PolicyFields(forms.Form):
    """The policies, for forms that add or change a usage event."""

    unknown_customer = forms.ChoiceField(
        label="Unknown customers",
        choices=UnknownCustomer.choices,
        initial=UnknownCustomer.CREATE,
        help_text="What happens to a record whose customer is not known yet.",
        widget=UnfoldAdminSelectWidget,
    )
    invalid_record = forms.ChoiceField(
        label="Refused records",
        choices=InvalidRecord.choices,
        initial=InvalidRecord.QUARANTINE,
        help_text="The sender is told in either case. What is kept can be mended and replayed.",
        widget=UnfoldAdminSelectWidget,
    )
    max_age = SpanField(
        label="Accepted age", help_text="Records with an older timestamp are refused. Empty: any age is taken."
    )
    max_ahead = SpanField(
        label="Accepted lead", help_text="Records further in the future are refused. Empty: any timestamp is taken."
    )
