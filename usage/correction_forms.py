"""Forms that change records: the correction, built from the usage event's schema, and voiding and restoring."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from customers.admin_acts import ActForm
from customers.jsonfields import JSONTextField
from customers.models import Customer
from usage.corrections import (
    MAX_REASON,
    CorrectionError,
    StaleRevision,
    actor_of,
    correct_record,
    restore_records,
    void_records,
)
from usage.models import UsageRecord
from usage.property_fields import UNSET, field_for
from usage.schemas import DataSchema, properties_of
from usage.timestamps import parse_timestamp

MAX_PROPERTY_FIELDS = 60
_MISSING = re.compile(r"'(.*)' is required, but is missing", re.DOTALL)


class ReasonField(forms.CharField):
    """Why a record is changed: kept with its history for ever."""

    def __init__(self) -> None:
        widget = UnfoldAdminTextareaWidget(
            {"rows": 2, "placeholder": "For example: the meter reported minutes as hours"}
        )
        super().__init__(
            max_length=MAX_REASON, widget=widget, help_text="Kept in the record's history, with your name."
        )


class CorrectionForm(ActForm):
    """What a record says, field by field: a typed one for each property where that is possible, JSON for the rest."""

    customer_id = forms.CharField(label="customer_id", max_length=255, strip=False, widget=UnfoldAdminTextInputWidget)
    timestamp = forms.CharField(label="timestamp", widget=UnfoldAdminTextInputWidget, help_text="In UTC.")
    reason = ReasonField()
    revision = forms.IntegerField(widget=forms.HiddenInput, min_value=1, max_value=2**31 - 1)

    def __init__(self, *args: Any, instance: UsageRecord, **options: Any) -> None:
        self.instance = instance
        self.stale = False
        self.entered: list[tuple[str, str]] | None = None
        initial = {
            "customer_id": instance.customer.external_id,
            "timestamp": instance.timestamp.isoformat().replace("+00:00", "Z"),
            "revision": instance.revision,
        }
        super().__init__(*args, initial={**initial, **options.pop("initial", {})}, **options)
        self.schema = instance.usage_event.schema
        self.names: dict[str, str] = {}
        self._add_properties()

    def _add_properties(self) -> None:
        data = self.instance.data
        for name, subschema in list(properties_of(self.schema).items())[:MAX_PROPERTY_FIELDS]:
            field = field_for(subschema, data.get(name, UNSET), name)
            if field is not None:
                key = f"property_{len(self.names)}"
                self.fields[key] = field
                self.names[name] = key
        rest = {name: value for name, value in data.items() if name not in self.names}
        if (
            rest
            or self.schema.get("additionalProperties") is not False
            or len(self.names) < len(properties_of(self.schema))
        ):
            label = "Other data (JSON)" if self.names else "data (JSON)"
            self.fields["rest"] = JSONTextField(rows=5, required=False, label=label, initial=rest)

    def property_fields(self) -> Iterator[forms.BoundField]:
        """Yield the fields of data, in the schema's order, the JSON field last."""
        for key in (*self.names.values(), "rest"):
            if key in self.fields:
                yield self[key]

    def clean_customer_id(self) -> str:
        """Only customers that are there: a mistyped id must not become a new customer."""
        customer_id: str = self.cleaned_data["customer_id"]
        if customer_id == self.instance.customer.external_id:
            return customer_id
        own = Customer.objects.filter(organisation_id=self.instance.usage_event.organisation_id)
        if not own.filter(external_id=customer_id).exists():
            raise ValidationError("There is no customer of this id. Add the customer first, or check the spelling.")
        return customer_id

    def clean_timestamp(self) -> Any:
        try:
            return parse_timestamp(self.cleaned_data["timestamp"])
        except ValueError as error:
            raise ValidationError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error

    def clean(self) -> None:
        fields = (*self.names.values(), "rest")
        if any(field in self.errors for field in fields):
            return
        data = dict(self.cleaned_data.get("rest", {}))
        for name, key in self.names.items():
            if name in data:
                self.add_error("rest", f"“{name}” has a field of its own above.")
            elif self.cleaned_data[key] is not UNSET:
                data[name] = self.cleaned_data[key]
        for violation in DataSchema(self.schema).violations(data):
            self.add_error(self._field_at(violation.pointer, violation.message), violation.message)
        self.cleaned_data["data"] = data

    def _field_at(self, pointer: str, message: str) -> str | None:
        name = pointer.split("/")[1].replace("~1", "/").replace("~0", "~") if pointer else ""
        missing = _MISSING.fullmatch(message)
        if not pointer and missing:
            name = missing[1]
        key = self.names.get(name, "rest")
        return key if key in self.fields else None

    def act(self) -> UsageRecord:
        values = self.cleaned_data
        try:
            return correct_record(
                self.instance.pk,
                customer_id=values["customer_id"],
                timestamp=values["timestamp"],
                data=values["data"],
                revision=values["revision"],
                reason=values["reason"],
                actor=actor_of(self.user),
            )
        except StaleRevision as refusal:
            self.stale = True
            raise ValidationError("Somebody else changed this record meanwhile.") from refusal
        except CorrectionError as refusal:
            message = f"{str(refusal)[:1].upper()}{str(refusal)[1:]}."
            raise ValidationError({refusal.field or "__all__": message}) from refusal

    def renewed(self, record: UsageRecord) -> "CorrectionForm":
        """Return a fresh form of what the record says now, with what was typed here and differs from it."""
        typed = CorrectionForm(self.data, user=self.user, instance=record)
        fresh = CorrectionForm(user=self.user, instance=record, initial={"reason": self.cleaned_data["reason"]})
        differing = [name for name in typed.changed_data if name not in ("reason", "revision")]
        fresh.entered = [(str(typed[name].label), _typed(typed[name].value())) for name in differing]
        return fresh


class VoidForm(ActForm):
    """The reason for voiding, or with `restoring` for bringing back, a selection of records."""

    reason = ReasonField()

    def __init__(self, *args: Any, records: Iterable[UsageRecord], restoring: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.records = sorted(records, key=lambda record: (record.usage_event_id, record.pk))
        self.restoring = restoring

    def act(self) -> int:
        """Void or restore all of them or none; returns how many were changed."""
        deed = restore_records if self.restoring else void_records
        reason, actor = self.cleaned_data["reason"], actor_of(self.user)
        try:
            with transaction.atomic():
                return sum(
                    deed(usage_event_id, [record.pk for record in group], reason=reason, actor=actor)
                    for usage_event_id, group in groupby(self.records, key=lambda record: record.usage_event_id)
                )
        except CorrectionError as refusal:
            raise ValidationError({refusal.field or "__all__": str(refusal)}) from refusal


def _typed(value: Any) -> str:
    if isinstance(value, list | tuple):
        text, unset = value
        return "not set" if unset else f"“{text}”"
    return str(value) if value not in ("", None) else "not set"
