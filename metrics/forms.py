"""The form of a published metric: its formula stays."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextInputWidget

from customers.admin_acts import ActForm
from metrics.definitions import save_metric
from metrics.models import Metric


class PublishedMetricForm(ActForm):
    """Name and unit of a metric whose formula is published and stays."""

    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    unit = forms.CharField(
        required=False,
        max_length=50,
        help_text="What one of it is called: hours, calls, GB.",
        widget=UnfoldAdminTextInputWidget,
    )

    def __init__(self, *args: Any, instance: Metric, **options: Any) -> None:
        self.instance = instance
        super().__init__(*args, initial={"name": instance.name, "unit": instance.unit}, **options)

    def act(self) -> Metric:
        self.instance.name, self.instance.unit = self.cleaned_data["name"], self.cleaned_data["unit"]
        return save_metric(self.instance)
