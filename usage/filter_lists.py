"""Lists of what usage events hold: a filter form above the list, and the newest rows across usage events by index."""

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from customers.admin_access import organisations_of, person, with_organisation
from usage.models import UsageEvent
from usage.timestamps import parse_timestamp

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


class UsageEventFilterForm(forms.Form):
    """The filters of a list. Each one is served by an index; `time_field` is what the list is ordered by.

    `upload` is asked by an upload's page, for what came in its batches.
    """

    time_field = ""
    upload_path = "batch__upload"

    usage_event = forms.ModelChoiceField(
        queryset=UsageEvent.objects.none(), required=False, empty_label="All", widget=UnfoldAdminSelectWidget
    )

    upload = forms.IntegerField(required=False, min_value=0, max_value=MAX_ID, widget=forms.HiddenInput)

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

    @property
    def one_stream(self) -> bool:
        """Whether what is asked for needs no merging of several usage events' newest rows."""
        return bool(self.cleaned_data["usage_event"])

    def apply(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows asked for; none if the question was not understood."""
        if not self.is_valid():
            return rows.none()
        asked = self.cleaned_data
        if asked["usage_event"]:
            rows = rows.filter(usage_event_id=asked["usage_event"].pk)
        if asked["upload"] is not None:
            rows = rows.filter(**{self.upload_path: asked["upload"]})
        if asked.get("after"):
            rows = rows.filter(**{f"{self.time_field}__gte": asked["after"]})
        if asked.get("before"):
            rows = rows.filter(**{f"{self.time_field}__lt": asked["before"]})
        return rows


class FilterChangeList(ChangeList):
    """A list behind a filter form, which a subclass names; newest first."""

    filter_form_class: type[UsageEventFilterForm]

    def __init__(self, request: HttpRequest, *args: Any, **options: Any) -> None:
        self.filter_form = self.filter_form_class(request.GET, person(request))
        super().__init__(request, *args, **options)

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        own = set(self.filter_form.fields)
        return {name: value for name, value in super().get_filters_params(params).items() if name not in own}

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        return self.filter_form.apply(super().get_queryset(request, exclude_parameters))

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[str]:
        return [f"-{self.filter_form.time_field}", "-id"]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        start = (self.page_num - 1) * self.list_per_page if self.multi_page else 0
        self.result_list = newest(self.queryset, self.filter_form, start, start + self.list_per_page)
        self.show_admin_actions = self.result_count > 0


def newest(rows: QuerySet[Any], asked: UsageEventFilterForm, start: int, stop: int) -> QuerySet[Any] | list[Any]:
    """Return rows start to stop in the order of their time, newest first.

    No index orders the rows of all usage events: each usage event's newest are read from its own index, and the newest
    of those are taken.
    """
    if not asked.is_valid():
        return []
    order = (f"-{asked.time_field}", "-id")
    if asked.one_stream:
        return rows.order_by(*order)[start:stop]
    usage_events = UsageEvent.objects.filter(organisation__in=asked.organisations).values_list("pk", flat=True)
    model: type[Model] = rows.model
    plain = model._default_manager.filter(pk__in=[]).values_list(asked.time_field, "id")
    arms = [
        rows.filter(usage_event_id=usage_event_id)
        .select_related(None)
        .order_by(*order)
        .values_list(asked.time_field, "id")[:stop]
        for usage_event_id in usage_events
    ]
    ids = [pk for _, pk in plain.union(*arms, all=True).order_by(*order)[start:stop]] if arms else []
    found = rows.filter(pk__in=ids)
    return sorted(found, key=lambda row: (getattr(row, asked.time_field), row.pk), reverse=True)
