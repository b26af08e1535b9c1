"""What is asked of a definition that is not stored yet, and of two versions side by side: a period, customers."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from django import forms
from django.utils.timezone import now
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from customers.zones import zone
from metrics.models import Metric, SqlWindow
from metrics.periods import Window, midnight
from metrics.quantity_forms import DayField
from metrics.questions import Question
from usage.models import UsageEvent, UsageRecord

DAYS_SHOWN = 30
MONTHS_SHOWN = 3
CUSTOMERS_SHOWN = 20
WINDOWS = [
    (Window.DAY, "By the day"),
    (Window.WEEK, "By the week"),
    (Window.MONTH, "By the month"),
    (Window.HOUR, "By the hour"),
    (Window.TOTAL, "In all"),
]


class PreviewForm(forms.Form):
    """The period, window and customer of a preview; a period that is not given is the last one with records."""

    preview_customer = forms.CharField(
        required=False,
        max_length=255,
        label="Customer id",
        widget=UnfoldAdminTextInputWidget({"placeholder": "All customers", "autocomplete": "off"}),
    )
    preview_start = DayField(required=False, label="From")
    preview_end = DayField(required=False, label="Until (not included)")
    preview_window = forms.ChoiceField(
        required=False, choices=[("", "As it fits"), *WINDOWS], label="Window", widget=UnfoldAdminSelectWidget
    )

    def __init__(self, data: Any = None) -> None:
        super().__init__(data, label_suffix="")
        for field in self.fields.values():
            # They stand beside the definition's form on the page, and are posted with it.
            field.widget.attrs["form"] = "tb-form"

    def clean(self) -> None:
        start, end = self.cleaned_data.get("preview_start"), self.cleaned_data.get("preview_end")
        if start and end and end <= start:
            self.add_error("preview_end", "The end must be after the start.")

    def question(self, metric: Metric, dimensions: Sequence[str]) -> Question:
        """Return what is asked of the metric, in its organisation's zone and by its dimensions; after is_valid()."""
        asked = self.cleaned_data
        own_zone = zone(metric.organisation.timezone)
        start, end = period_of(metric, asked["preview_start"], asked["preview_end"])
        customer = asked["preview_customer"]
        return Question(
            start=midnight(start, own_zone),
            end=midnight(end, own_zone),
            window=Window(asked["preview_window"] or (metric.sql_window or Window.DAY)),
            zone=own_zone,
            customer_ids=[customer] if customer else [],
            page_size=CUSTOMERS_SHOWN,
            group_by=tuple(dimensions),
        )


class ComparisonForm(forms.Form):
    """The period and window over which two versions are compared."""

    start = DayField(label="From")
    end = DayField(label="Until (not included)")
    window = forms.ChoiceField(choices=WINDOWS, widget=UnfoldAdminSelectWidget)
    customer_id = forms.CharField(
        required=False,
        max_length=255,
        label="Customer id",
        widget=UnfoldAdminTextInputWidget({"placeholder": "All customers", "autocomplete": "off"}),
    )

    def __init__(self, data: Any, *, metric: Metric) -> None:
        self.zone = zone(metric.organisation.timezone)
        defaults = self.defaults()
        super().__init__({**defaults, **data.dict()}, label_suffix="", initial=defaults)

    def defaults(self) -> dict[str, Any]:
        """The last three whole months and the one that it is now, by the month."""
        first = now().astimezone(self.zone).date().replace(day=1)
        return {
            "start": _months_after(first, -MONTHS_SHOWN).isoformat(),
            "end": _months_after(first, 1).isoformat(),
            "window": str(Window.MONTH),
            "customer_id": "",
        }

    def clean(self) -> None:
        start, end = self.cleaned_data.get("start"), self.cleaned_data.get("end")
        if start and end and end <= start:
            self.add_error("end", "The end must be after the start.")

    def question(self) -> Question:
        """Return what is asked of both versions; after is_valid()."""
        asked = self.cleaned_data
        return Question(
            start=midnight(asked["start"], self.zone),
            end=midnight(asked["end"], self.zone),
            window=Window(asked["window"]),
            zone=self.zone,
            customer_ids=[asked["customer_id"]] if asked["customer_id"] else [],
        )


def period_of(metric: Metric, start: date | None, end: date | None) -> tuple[date, date]:
    """Return the days that are looked at: those asked for, else the last ones with records of what is counted."""
    length = timedelta(days=DAYS_SHOWN)
    if start and end:
        return start, end
    if start:
        return start, start + length
    last = end or newest_moment(metric).astimezone(zone(metric.organisation.timezone)).date() + timedelta(days=1)
    if metric.sql_window == SqlWindow.MONTH and end is None:
        # Whole months, because each is calculated by itself.
        last = _months_after(last - timedelta(days=1), 1)
        return _months_after(last, -MONTHS_SHOWN), last
    return last - length, last


def newest_moment(metric: Metric) -> datetime:
    """Return when the newest record is of that the metric may count; now, where there is none.

    One look at the end of an index for each usage event.
    """
    usage_events = [metric.usage_event_id]
    if metric.usage_event_id is None:
        usage_events = list(UsageEvent.objects.filter(organisation=metric.organisation).values_list("pk", flat=True))
    newest = [
        UsageRecord.objects.filter(usage_event_id=pk).order_by("-timestamp", "-id").values_list("timestamp").first()
        for pk in usage_events
    ]
    return max((moment for row in newest if row is not None for moment in row), default=now())


def _months_after(first: date, months: int) -> date:
    """The first day of the month that lies so many months after the one of `first`."""
    index = first.year * 12 + first.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)
