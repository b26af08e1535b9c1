"""Forms for metrics: drafted, renamed, and asked for their quantities."""

from datetime import date, datetime
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.timezone import now
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from customers.admin_access import organisations_of, with_organisation
from customers.admin_acts import ActForm
from customers.forms import zone_field
from customers.zones import zone
from metrics.definitions import NUMERIC, save_metric
from metrics.models import Aggregation, Metric, validate_code
from metrics.periods import Window, midnight
from metrics.quantities import Question
from usage.filter_lists import MAX_ID
from usage.models import UsageEvent
from usage.schemas import properties_of, types_of
from usage.slugs import slug_of

FIRST_YEAR, LAST_YEAR = 2000, 2100
WINDOWS = [
    (Window.TOTAL, "Total of the period"),
    (Window.HOUR, "By the hour"),
    (Window.DAY, "By the day"),
    (Window.WEEK, "By the week (from Monday)"),
    (Window.MONTH, "By the month"),
]


def numeric_properties(usage_event: UsageEvent) -> list[str]:
    """Return the properties of the schema that may be numbers, as check_formula takes them."""
    properties = properties_of(usage_event.schema).items()
    return [name for name, sub in properties if NUMERIC & set(types_of(sub)) or not types_of(sub)]


class MetricForm(ActForm):
    """A metric's definition while it is a draft. The code may be left empty: then it is derived from the name."""

    usage_event = forms.ModelChoiceField(
        queryset=UsageEvent.objects.none(),
        empty_label="Choose one",
        widget=UnfoldAdminSelectWidget({"data-tb-usage-event": ""}),
        help_text="Whose records it is calculated from.",
    )
    name = forms.CharField(
        max_length=200, widget=UnfoldAdminTextInputWidget({"autocomplete": "off", "data-tb-derive-from": "name"})
    )
    code = forms.CharField(
        required=False,
        max_length=100,
        validators=[validate_code],
        help_text="Its name in the API and on invoices: letters, digits, underscores and dashes.",
        widget=UnfoldAdminTextInputWidget({"autocomplete": "off", "spellcheck": "false", "data-tb-derived": "code"}),
    )
    aggregation = forms.ChoiceField(
        label="Calculation", choices=Aggregation.choices, widget=UnfoldAdminSelectWidget({"data-tb-aggregation": ""})
    )
    property = forms.ChoiceField(
        required=False,
        widget=UnfoldAdminSelectWidget({"data-tb-property": ""}),
        help_text="The number in <code>data</code> that is added up. Records without it count as nothing.",
    )
    unit = forms.CharField(
        required=False,
        max_length=50,
        help_text="What one of it is called: hours, calls, GB.",
        widget=UnfoldAdminTextInputWidget,
    )

    def __init__(self, *args: Any, user: User, instance: Metric | None = None, **options: Any) -> None:
        self.instance = instance or Metric(aggregation=Aggregation.SUM)
        fields = ("name", "code", "aggregation", "unit")
        initial: dict[str, Any] = {field: getattr(self.instance, field) for field in fields}
        initial["usage_event"] = self.instance.usage_event_id
        initial["property"] = f"{self.instance.usage_event_id}/{self.instance.property}"
        super().__init__(*args, user=user, initial={**initial, **(options.pop("initial", None) or {})}, **options)
        organisations = list(organisations_of(user))
        own = UsageEvent.objects.filter(organisation__in=organisations).order_by("name").select_related("organisation")
        self.usage_events = {str(usage_event.pk): usage_event for usage_event in own}
        usage_event_field, property_field = self.fields["usage_event"], self.fields["property"]
        assert isinstance(usage_event_field, forms.ModelChoiceField)
        assert isinstance(property_field, forms.ChoiceField)
        usage_event_field.queryset = own
        if len(organisations) > 1:
            usage_event_field.label_from_instance = with_organisation  # type: ignore[method-assign]
        property_field.choices = [("", "Choose one"), *self._properties()]

    def _properties(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return the numeric properties by usage event; a value names both, because names repeat."""
        return [
            (usage_event.name, [(f"{pk}/{name}", name) for name in numeric_properties(usage_event)])
            for pk, usage_event in self.usage_events.items()
        ]

    def clean(self) -> None:
        values = self.cleaned_data
        if values.get("name") and "code" in values and not values["code"]:
            values["code"] = slug_of(values["name"])
            if not values["code"]:
                self.add_error("code", "No code can be derived from this name: enter one.")
        if "property" in values and values.get("usage_event"):
            prefix, _, name = values["property"].partition("/")
            if values.get("aggregation") == Aggregation.COUNT:
                name = ""
            elif not name:
                self.add_error("property", "Choose the number that is added up.")
            elif prefix != str(values["usage_event"].pk):
                self.add_error("property", f"This property is not one of “{values['usage_event']}”.")
            values["property"] = name
        if not self.errors and self._code_is_taken():
            self.add_error("code", "A metric with this code exists already.")

    def _code_is_taken(self) -> bool:
        same = Metric.objects.filter(
            organisation_id=self.cleaned_data["usage_event"].organisation_id, code=self.cleaned_data["code"]
        )
        return same.exclude(pk=self.instance.pk).exclude(code=self.instance.code if self.instance.pk else "").exists()

    def act(self) -> Metric:
        for field in ("usage_event", "name", "code", "aggregation", "property", "unit"):
            setattr(self.instance, field, self.cleaned_data[field])
        self.instance.organisation = self.cleaned_data["usage_event"].organisation
        return save_metric(self.instance)


class PublishedMetricForm(ActForm):
    """Name and unit of a metric whose formula is published and stays."""

    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    unit = forms.CharField(required=False, max_length=50, widget=UnfoldAdminTextInputWidget)

    def __init__(self, *args: Any, instance: Metric, **options: Any) -> None:
        self.instance = instance
        super().__init__(*args, initial={"name": instance.name, "unit": instance.unit}, **options)

    def act(self) -> Metric:
        self.instance.name, self.instance.unit = self.cleaned_data["name"], self.cleaned_data["unit"]
        return save_metric(self.instance)


class DayField(forms.DateField):
    """A day of the calendar, within the years that timestamps may have."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            widget=forms.DateInput(attrs={**UnfoldAdminTextInputWidget().attrs, "type": "date"}), **options
        )

    def clean(self, value: Any) -> date:
        day: date = super().clean(value)
        if not FIRST_YEAR <= day.year <= LAST_YEAR:
            raise ValidationError(f"A year from {FIRST_YEAR} to {LAST_YEAR} was expected.")
        return day


class QuantitiesForm(forms.Form):
    """What is asked of a metric: a period of whole days in a time zone, for some customers or for all."""

    metric = forms.ModelChoiceField(
        queryset=Metric.objects.none(), empty_label="Choose one", widget=UnfoldAdminSelectWidget
    )
    start = DayField(label="From")
    end = DayField(label="Until (not included)")
    window = forms.ChoiceField(choices=WINDOWS, widget=UnfoldAdminSelectWidget)
    customer_id = forms.CharField(
        required=False,
        max_length=50_000,
        label="Customer ids",
        widget=UnfoldAdminTextareaWidget({"rows": 1, "placeholder": "All customers, or one id a line"}),
    )
    after = forms.IntegerField(required=False, min_value=0, max_value=MAX_ID, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, user: User) -> None:
        organisations = list(organisations_of(user))
        own = Metric.objects.newest().filter(organisation__in=organisations).select_related("organisation")
        chosen = own.filter(pk=data["metric"]).first() if _is_id(data.get("metric", "")) else None
        self.zone_name = chosen.organisation.timezone if chosen else "UTC"
        super().__init__({**self.defaults(), **data.dict(), **_lines(data)} if chosen else None, label_suffix="")
        metric_field = self.fields["metric"]
        assert isinstance(metric_field, forms.ModelChoiceField)
        metric_field.queryset = own.order_by("name")
        if len(organisations) > 1:
            metric_field.label_from_instance = with_organisation  # type: ignore[method-assign]
        self.fields["timezone"] = zone_field(label="Time zone")
        self.initial = self.defaults()

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
        if "timezone" not in self.cleaned_data:
            return
        asked_zone = zone(self.cleaned_data["timezone"])
        for name in ("start", "end"):
            if name in self.cleaned_data:
                self.cleaned_data[f"{name}_moment"] = midnight(self.cleaned_data[name], asked_zone)
        if not self.errors and self.cleaned_data["end"] <= self.cleaned_data["start"]:
            self.add_error("end", "The end must be after the start.")

    def question(self) -> Question:
        """Return what was asked, after is_valid()."""
        asked = self.cleaned_data
        start: datetime = asked["start_moment"]
        return Question(
            start=start,
            end=asked["end_moment"],
            window=Window(asked["window"]),
            zone=zone(asked["timezone"]),
            customer_ids=list(dict.fromkeys(filter(None, asked["customer_id"].replace("\r", "").split("\n")))),
            after=asked["after"] or 0,
        )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _lines(data: Any) -> dict[str, str]:
    """`customer_id` may be repeated in an address, and hold one id a line in the form."""
    return {"customer_id": "\n".join(data.getlist("customer_id"))}
