"""Which records a list shows: by usage event, customer, time, record id and batch."""

from typing import Any

from django import forms
from django.db.models import Q, QuerySet
from unfold.widgets import UnfoldAdminTextInputWidget

from customers.models import Customer
from usage.filter_lists import MAX_ID, FilterChangeList, MomentField, UsageEventFilterForm
from usage.models import UsageRecord


class RecordFilterForm(UsageEventFilterForm):
    """The filters of the list of records."""

    time_field = "timestamp"

    customer_id = forms.CharField(required=False, label="Customer id", strip=False, widget=UnfoldAdminTextInputWidget)
    after = MomentField(label="From (UTC)")
    before = MomentField(label="Before (UTC)")
    record_id = forms.CharField(required=False, label="Record id", strip=False, widget=UnfoldAdminTextInputWidget)
    batch = forms.IntegerField(required=False, min_value=0, max_value=MAX_ID, widget=forms.HiddenInput)

    @property
    def one_stream(self) -> bool:
        asked = self.cleaned_data
        return super().one_stream or asked["batch"] is not None or bool(asked["record_id"])

    def apply(self, rows: QuerySet[Any]) -> QuerySet[UsageRecord]:
        records = super().apply(rows)
        if not self.is_valid():
            return records
        asked = self.cleaned_data
        if asked["customer_id"]:
            typed = asked["customer_id"]
            named = Customer.objects.filter(organisation__in=self.organisations, external_id__in=[typed, typed.strip()])
            records = records.filter(customer_id__in=list(named.values_list("pk", flat=True)))
        if asked["record_id"]:
            records = records.filter(_identity(asked["record_id"]))
        if asked["batch"] is not None:
            records = records.filter(batch_id=asked["batch"])
        return records


class RecordChangeList(FilterChangeList):
    """The list of records behind the filter form."""

    filter_form_class = RecordFilterForm


def _identity(text: str) -> Q:
    """The sender's id of a record, or ours."""
    ours = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
    return Q(idempotency_key=text) | Q(pk=ours) if ours is not None else Q(idempotency_key=text)
