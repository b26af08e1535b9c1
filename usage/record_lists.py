"""Which records a list shows: a filter form over indexed columns, newest usage first across usage events."""

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from customers.admin_access import organisations_of, person, with_organisation
from customers.models import Customer
from usage.models import UsageEvent, UsageRecord
from usage.timestamps import parse_timestamp

NEWEST_FIRST = ("-timestamp", "-id")
MAX_ID = 2**63 - 1


class MomentInput(forms.DateTimeInput):
    """The browser's own picker, which works offline; the value is in UTC."""

    input_type = "datetime-local"

    def __init__(self) -> None:
        super().__init__(UnfoldAdminTextInputWidget({"step": "1"}).attrs)


class MomentField(forms.CharField):
    """A date, or an instant in UTC with or without seconds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, widget=MomentInput(), **options)

    def clean(self, value: Any) -> Any:
        """Return the instant in UTC, None for no text; raises ValidationError."""
        text = super().clean(value)
        if not text:
            return None
        whole = text + "T00:00:00"[len(text) - 10 :] if 10 <= len(text) < 19 and "." not in text else text
        try:
            return parse_timestamp(whole)
        except ValueError as error:
            raise ValidationError("A date or time was expected, such as 2025-06-17T14:00.", code="moment") from error

    def prepare_value(self, value: Any) -> Any:
        return value.removesuffix("Z") if isinstance(value, str) else value


class RecordFilterForm(forms.Form):
    """The filters of the list of records. Each one is served by an index."""

    usage_event = forms.ModelChoiceField(
        queryset=UsageEvent.objects.none(), required=False, empty_label="All", widget=UnfoldAdminSelectWidget
    )
    customer_id = forms.CharField(required=False, label="Customer id", strip=False, widget=UnfoldAdminTextInputWidget)
    after = MomentField(label="From (UTC)")
    before = MomentField(label="Before (UTC)")
    record_id = forms.CharField(required=False, label="Record id", strip=False, widget=UnfoldAdminTextInputWidget)
    batch = forms.IntegerField(required=False, min_value=0, max_value=MAX_ID, widget=forms.HiddenInput)

    def __init__(self, data: Any, user: User) -> None:
        super().__init__(data, label_suffix="")
        self.organisations = list(organisations_of(user))
        field = self.fields["usage_event"]
        assert isinstance(field, forms.ModelChoiceField)
        own = UsageEvent.objects.filter(organisation__in=self.organisations).order_by("name").defer("schema")
        field.queryset = own.select_related("organisation")
        if len(self.organisations) > 1:
            field.label_from_instance = with_organisation  # type: ignore[method-assign]

    @property
    def active(self) -> bool:
        """Whether anything was asked for."""
        return any(self.data.get(name) for name in self.fields)

    def apply(self, records: QuerySet[UsageRecord]) -> QuerySet[UsageRecord]:
        """Return the records asked for; none if the question was not understood."""
        if not self.is_valid():
            return records.none()
        asked = self.cleaned_data
        if asked["usage_event"]:
            records = records.filter(usage_event_id=asked["usage_event"].pk)
        if asked["customer_id"]:
            typed = asked["customer_id"]
            named = Customer.objects.filter(organisation__in=self.organisations, external_id__in=[typed, typed.strip()])
            records = records.filter(customer_id__in=list(named.values_list("pk", flat=True)))
        if asked["after"]:
            records = records.filter(timestamp__gte=asked["after"])
        if asked["before"]:
            records = records.filter(timestamp__lt=asked["before"])
        if asked["record_id"]:
            records = records.filter(_identity(asked["record_id"]))
        if asked["batch"] is not None:
            records = records.filter(batch_id=asked["batch"])
        return records


class RecordChangeList(ChangeList):
    """The list of records behind the filter form."""

    def __init__(self, request: HttpRequest, *args: Any, **options: Any) -> None:
        self.filter_form = RecordFilterForm(request.GET, person(request))
        super().__init__(request, *args, **options)

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        own = set(self.filter_form.fields)
        return {name: value for name, value in super().get_filters_params(params).items() if name not in own}

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[UsageRecord]:
        return self.filter_form.apply(super().get_queryset(request, exclude_parameters))

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[UsageRecord]) -> list[str]:
        return list(NEWEST_FIRST)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        start = (self.page_num - 1) * self.list_per_page if self.multi_page else 0
        self.result_list = newest(self.queryset, self.filter_form, start, start + self.list_per_page)
        self.show_admin_actions = self.result_count > 0


def newest(
    records: QuerySet[UsageRecord], asked: RecordFilterForm, start: int, stop: int
) -> QuerySet[UsageRecord] | list[UsageRecord]:
    """Return records start to stop in the order of their timestamps, newest first.

    No index orders the records of all usage events: each usage event's newest are read from its own index, and the
    newest of those are taken.
    """
    if not asked.is_valid():
        return []
    chosen = asked.cleaned_data["usage_event"]
    if chosen or asked.cleaned_data["batch"] is not None or asked.cleaned_data["record_id"]:
        return records.order_by(*NEWEST_FIRST)[start:stop]
    usage_events = UsageEvent.objects.filter(organisation__in=asked.organisations).values_list("pk", flat=True)
    plain = UsageRecord.objects.filter(pk__in=[]).values_list("timestamp", "id")
    arms = [
        records.filter(usage_event_id=usage_event_id)
        .select_related(None)
        .order_by(*NEWEST_FIRST)
        .values_list("timestamp", "id")[:stop]
        for usage_event_id in usage_events
    ]
    ids = [pk for _, pk in plain.union(*arms, all=True).order_by(*NEWEST_FIRST)[start:stop]] if arms else []
    return sorted(records.filter(pk__in=ids), key=lambda record: (record.timestamp, record.pk), reverse=True)


def _identity(text: str) -> Q:
    """The sender's id of a record, or ours."""
    ours = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
    return Q(idempotency_key=text) | Q(pk=ours) if ours is not None else Q(idempotency_key=text)
