"""What is asked of a metric: a period in a time zone, customers, dimensions; and what of one of its quantities."""

from dataclasses import replace
from datetime import date, datetime
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.timezone import now
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from customers.admin_access import organisations_of, with_organisation
from customers.zones import zone, zone_names
from metrics.dimension_forms import (
    EXACTLY,
    FILTER,
    TextsField,
    asked_for,
    dimension_fields,
    dimensions_in_force,
    filters_of,
    lines_of,
)
from metrics.models import Metric, SqlWindow
from metrics.periods import MAX_WINDOWS, PeriodError, Window, midnight, window_edges
from metrics.questions import PAGE_SIZE, Question
from usage.filter_lists import MAX_ID, MomentField
from usage.record_filters import Place, parse_place

# So many rows of customers without dimensions make a page; a customer is never cut in two.
ROWS_OF_A_PAGE = 1_000
# The windows that are shorter than the one of a SQL text.
SHORTER: dict[str, tuple[Window, ...]] = {
    SqlWindow.DAY: (Window.HOUR,),
    SqlWindow.MONTH: (Window.HOUR, Window.DAY, Window.WEEK),
}
FIRST_YEAR, LAST_YEAR = 2000, 2100
WINDOWS = [
    (Window.TOTAL, "Total of the period"),
    (Window.HOUR, "By the hour"),
    (Window.DAY, "By the day"),
    (Window.WEEK, "By the week (from Monday)"),
    (Window.MONTH, "By the month"),
]


class DayField(forms.DateField):
    """A day of the calendar, within the years that timestamps may have."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            widget=forms.DateInput(attrs={**UnfoldAdminTextInputWidget().attrs, "type": "date"}), **options
        )

    def clean(self, value: Any) -> date | None:
        day: date | None = super().clean(value)
        if day is not None and not FIRST_YEAR <= day.year <= LAST_YEAR:
            raise ValidationError(f"A year from {FIRST_YEAR} to {LAST_YEAR} was expected.")
        return day


class MetricForm(forms.Form):
    """A question to one of the person's metrics, whichever of its versions is named: the one in force answers."""

    metric = forms.ModelChoiceField(
        queryset=Metric.objects.none(), empty_label="Choose one", widget=UnfoldAdminSelectWidget
    )

    def __init__(self, data: Any, *, user: User) -> None:
        organisations = list(organisations_of(user))
        own = Metric.objects.filter(organisation__in=organisations).select_related("organisation", "usage_event")
        named = own.filter(pk=data["metric"]).first() if _is_id(data.get("metric", "")) else None
        # The newest version stands for all in the list of metrics; a link to an earlier one keeps working.
        newest = own.newest().order_by("name", "pk")
        chosen = newest.get(organisation=named.organisation_id, code=named.code) if named else None
        self.in_force = version_in_force(chosen) if chosen else None
        self.zone_name = chosen.organisation.timezone if chosen else "UTC"
        self.dimensions = dimensions_in_force(self.in_force) if self.in_force else []
        self.address = data
        super().__init__({**self.read(data), "metric": str(chosen.pk)} if chosen else None, label_suffix="")
        metric_field = self.fields["metric"]
        assert isinstance(metric_field, forms.ModelChoiceField)
        metric_field.queryset = newest
        if len(organisations) > 1:
            metric_field.label_from_instance = with_organisation  # type: ignore[method-assign]
        self.add_dimensions(data)

    def read(self, data: Any) -> Any:
        """Return the fields' values out of an address; what may be repeated there is one value a line in the form."""
        lines = {name: "\n".join(data.getlist(name)) for name in self.of_dimensions(data)}
        return {**self.defaults(), **data.dict(), **lines}

    def defaults(self) -> dict[str, Any]:
        """Return what an address that leaves fields out asks for."""
        return {}

    def of_dimensions(self, data: Any) -> dict[str, forms.Field]:
        """Return a field for the values of each dimension."""
        return dimension_fields(self.dimensions, data, by_text_alone=self.by_text_alone)

    @property
    def by_text_alone(self) -> bool:
        """Tell whether the metric is of SQL, whose columns cannot be asked for exactly."""
        return bool(self.in_force and self.in_force.sql)

    def add_dimensions(self, data: Any) -> None:
        """Add the fields that the metric's dimensions need."""
        self.fields.update(self.of_dimensions(data))

    def clean(self) -> None:
        """Refuse an address that asks for what the metric has not: it must not be answered as if it asked for all."""
        for name in asked_for(self.address, FILTER, EXACTLY):
            if name not in self.dimensions:
                self.add_error("metric", f"“{name[:60]}” is no dimension of this metric.")
        if self.by_text_alone and asked_for(self.address, EXACTLY):
            self.add_error("metric", "The columns of SQL can be asked for by text only.")


class QuantitiesForm(MetricForm):
    """What is asked of a metric: a period of whole days in a time zone, for some customers or for all."""

    start = DayField(label="From")
    end = DayField(label="Until (not included)")
    window = forms.ChoiceField(choices=WINDOWS, widget=UnfoldAdminSelectWidget)
    customer_id = forms.CharField(
        required=False,
        max_length=50_000,
        label="Customer ids",
        widget=UnfoldAdminTextareaWidget({"rows": 1, "placeholder": "All customers, or one id a line"}),
    )
    timezone = forms.ChoiceField(
        label="Time zone",
        choices=lambda: [(name, name) for name in zone_names()],
        widget=UnfoldAdminSelectWidget,
    )
    after = forms.IntegerField(required=False, min_value=0, max_value=MAX_ID, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, user: User) -> None:
        super().__init__(data, user=user)
        self.initial = self.defaults()

    def add_dimensions(self, data: Any) -> None:
        """What rows are told apart by comes before what they are cut down to."""
        if self.dimensions:
            self.fields["group_by"] = forms.MultipleChoiceField(
                required=False,
                label="A row for each",
                choices=[(name, name) for name in self.dimensions],
                widget=UnfoldAdminCheckboxSelectMultipleWidget,
            )
        super().add_dimensions(data)

    def read(self, data: Any) -> Any:
        """Customers may be repeated too."""
        lines = {"customer_id": "\n".join(data.getlist("customer_id"))}
        return {**super().read(data), **lines, "group_by": data.getlist("group_by")}

    def defaults(self) -> dict[str, Any]:
        """The month that it is now in the organisation's zone, as one total."""
        today = now().astimezone(zone(self.zone_name)).date()
        first = today.replace(day=1)
        following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
        return {
            "start": first.isoformat(),
            "end": following.isoformat(),
            "window": str(Window.TOTAL),
            "timezone": self.zone_name,
        }

    def clean(self) -> None:
        super().clean()
        if "timezone" not in self.cleaned_data:
            return
        asked_zone = zone(self.cleaned_data["timezone"])
        for name in ("start", "end"):
            if name in self.cleaned_data:
                self.cleaned_data[f"{name}_moment"] = midnight(self.cleaned_data[name], asked_zone)
        if not self.errors and self.cleaned_data["end"] <= self.cleaned_data["start"]:
            self.add_error("end", "The end must be after the start.")
        if self.in_force:
            refuse_short_window(self, "window", self.in_force)

    def question(self) -> Question:
        """Return what was asked, after is_valid()."""
        asked = self.cleaned_data
        start: datetime = asked["start_moment"]
        question = Question(
            start=start,
            end=asked["end_moment"],
            window=Window(asked["window"]),
            zone=zone(asked["timezone"]),
            customer_ids=lines_of(asked["customer_id"]),
            after=asked["after"] or 0,
            group_by=[name for name in self.dimensions if name in asked.get("group_by", ())],
            filter_by=filters_of(asked, self.dimensions),
        )
        return replace(question, page_size=_page_size(question))

    @property
    def plain_fields(self) -> list[forms.BoundField]:
        """The fields that every metric has."""
        return [field for field in self.visible_fields() if not _is_of_dimension(field)]

    @property
    def dimension_fields(self) -> list[forms.BoundField]:
        """The fields about the metric's dimensions."""
        return [field for field in self.visible_fields() if _is_of_dimension(field)]


class ExplainForm(MetricForm):
    """Which quantity is explained: one customer's, of a period between two instants; and which page of its records."""

    customer_id = forms.CharField(
        max_length=255,
        strip=False,
        label="Customer id",
        widget=UnfoldAdminTextInputWidget({"autocomplete": "off"}),
    )
    start = MomentField(label="From (UTC)")
    end = MomentField(label="Until (UTC, not included)")
    timezone = forms.ChoiceField(
        choices=lambda: [(name, name) for name in zone_names()], widget=forms.HiddenInput, required=False
    )
    include = forms.ChoiceField(choices=[("", ""), ("skipped", "")], required=False, widget=forms.HiddenInput)
    cursor = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, user: User) -> None:
        super().__init__(data, user=user)
        for name in ("start", "end"):
            self.fields[name].required = True

    def read(self, data: Any) -> Any:
        """A bare date is its midnight."""
        given = super().read(data)
        midnights = {name: f"{given[name]}T00:00:00" for name in ("start", "end") if len(given.get(name, "")) == 10}
        return {**given, **midnights}

    def clean_cursor(self) -> Place | None:
        """The first page for a cursor that no link held."""
        try:
            return parse_place(self.cleaned_data["cursor"])
        except ValueError:
            return None

    def clean(self) -> None:
        super().clean()
        if not self.errors and self.cleaned_data["end"] <= self.cleaned_data["start"]:
            self.add_error("end", "The end must be after the start.")

    def question(self) -> Question:
        """Return what was asked, after is_valid()."""
        asked = self.cleaned_data
        return Question(
            start=asked["start"],
            end=asked["end"],
            zone=zone(asked["timezone"] or self.zone_name),
            customer_ids=[asked["customer_id"]],
            filter_by=filters_of(asked, self.dimensions),
        )


def version_in_force(metric: Metric) -> Metric:
    """Return the version of a metric that answers, or the metric itself if none does."""
    versions = Metric.objects.filter(organisation_id=metric.organisation_id, code=metric.code)
    return versions.filter(status=Metric.Status.ACTIVE).select_related("organisation").first() or metric


def refuse_short_window(form: forms.Form, field: str, metric: Metric) -> None:
    """Refuse a window that is shorter than what the SQL of a metric is calculated for, at its field."""
    if form.cleaned_data.get(field) in SHORTER.get(metric.sql_window, ()):
        form.add_error(field, f"The SQL is calculated for each {metric.sql_window}: a {metric.sql_window} or longer.")


def _is_of_dimension(field: forms.BoundField) -> bool:
    return field.name == "group_by" or isinstance(field.field, TextsField)


def _page_size(question: Question) -> int:
    """How many customers make a page that somebody can look at."""
    try:
        windows = len(window_edges(question.start, question.end, question.window, question.zone)) - 1
    except PeriodError:
        windows = MAX_WINDOWS
    return max(1, min(PAGE_SIZE, ROWS_OF_A_PAGE // windows))


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
