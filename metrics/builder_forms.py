"""The visual builder of metrics: source and filters, customer, time, what to calculate."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from customers.admin_access import organisations_of, with_organisation
from customers.jsonfields import JSONTextField
from customers.models import Organisation
from metrics.definition_forms import DefinitionForm
from metrics.formula_rules import MAX_DIGITS, MAX_GROUP_BY, numbers_of, scalars_of
from metrics.models import Aggregation, Metric, Rounding
from usage.models import UsageEvent
from usage.schemas import properties_of, types_of

AS_IS = "as_is"
AGGREGATIONS = [
    (
        "Numbers in the records",
        [
            (Aggregation.SUM, "Sum"),
            (Aggregation.AVG, "Average"),
            (Aggregation.MIN, "Smallest"),
            (Aggregation.MAX, "Largest"),
            (Aggregation.LATEST, "Latest"),
            (Aggregation.PERCENTILE, "Percentile"),
            (Aggregation.WEIGHTED_SUM, "Sum weighted by time"),
        ],
    ),
    ("Records", [(Aggregation.COUNT, "Count of records"), (Aggregation.UNIQUE_COUNT, "Count of distinct values")]),
    ("Pre-summarised data", [(AS_IS, "Use as is")]),
]
HOW_AS_IS = [
    (Aggregation.LATEST, "The newest value of the period"),
    (Aggregation.SUM, "The values of the period, added up"),
]
FROM_PROPERTY, FROM_EXPRESSION = "property", "expression"
NUMBER_OF_A_PROPERTY = "one of its numbers"
ROUNDINGS = [("", "Not rounded"), *Rounding.choices]

Grouped = list[tuple[str, list[tuple[str, str]]]]


class BuilderForm(DefinitionForm):
    """A metric over the records of one usage event. Only the fields that the aggregation needs are looked at."""

    formula = (
        *("usage_event", "aggregation", "property", "expression", "percentile", "filters", "group_by"),
        *("rounding_mode", "rounding_digits"),
    )

    usage_event = forms.ModelChoiceField(
        queryset=UsageEvent.objects.none(),
        empty_label="Choose one",
        widget=UnfoldAdminSelectWidget({"data-tb-source": ""}),
        help_text="Whose records it is calculated from.",
    )
    filters = JSONTextField(
        required=False,
        rows=4,
        max_length=100_000,
        label="Which records count",
        help_text='Every one, if empty. Else JSON: <code class="tb-inline">{"all": [{"property": "region", '
        '"operator": "eq", "value": "eu"}]}</code>, nested with <code class="tb-inline">all</code> and '
        '<code class="tb-inline">any</code>.',
    )
    group_by = forms.MultipleChoiceField(
        required=False,
        label="One quantity for each",
        widget=forms.CheckboxSelectMultiple,
        help_text=f"Up to {MAX_GROUP_BY} dimensions. Their quantities are kept apart, and add up to the customer's.",
    )
    aggregation = forms.ChoiceField(
        label="Calculation", choices=AGGREGATIONS, widget=UnfoldAdminSelectWidget({"data-tb-calculation": ""})
    )
    as_is = forms.ChoiceField(
        required=False,
        label="What the period has",
        choices=HOW_AS_IS,
        widget=UnfoldAdminSelectWidget,
        help_text="For records that are summaries already, such as a month's total.",
    )
    value_from = forms.ChoiceField(
        required=False,
        label="Of",
        choices=[(FROM_PROPERTY, NUMBER_OF_A_PROPERTY), (FROM_EXPRESSION, "an expression of them")],
        widget=forms.RadioSelect,
    )
    property = forms.ChoiceField(
        required=False,
        widget=UnfoldAdminSelectWidget({"data-tb-value": ""}),
        help_text="Records without it have no value: they are skipped, and counted as skipped.",
    )
    expression = forms.CharField(
        required=False,
        max_length=500,
        widget=UnfoldAdminTextInputWidget(
            {"autocomplete": "off", "spellcheck": "false", "placeholder": "input_tokens + 4 * output_tokens"}
        ),
        help_text='Numbers and properties with <code class="tb-inline">+ - * / ( )</code>, '
        '<code class="tb-inline">min</code>, <code class="tb-inline">max</code> and '
        '<code class="tb-inline">coalesce</code>. Names that are not plain words go in double quotes.',
    )
    percentile = forms.DecimalField(
        required=False,
        min_value=0,
        max_value=100,
        max_digits=23,
        decimal_places=20,
        widget=UnfoldAdminTextInputWidget({"inputmode": "decimal", "autocomplete": "off", "placeholder": "95"}),
        help_text="From 0 to 100; 50 is the median. Between two values it is interpolated.",
    )
    rounding_mode = forms.ChoiceField(
        required=False, label="Rounding", choices=ROUNDINGS, widget=UnfoldAdminSelectWidget({"data-tb-rounding": ""})
    )
    rounding_digits = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=MAX_DIGITS,
        label="Digits",
        widget=UnfoldAdminTextInputWidget({"inputmode": "numeric", "autocomplete": "off"}),
        help_text="After the point. Only the quantity is rounded, at the very end.",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        organisations = list(organisations_of(self.user))
        own = UsageEvent.objects.filter(organisation__in=organisations).order_by("name").select_related("organisation")
        if self.instance.pk:
            own = own.filter(organisation=self.instance.organisation_id)
        self.usage_events = {str(usage_event.pk): usage_event for usage_event in own}
        usage_event_field = self.fields["usage_event"]
        assert isinstance(usage_event_field, forms.ModelChoiceField)
        usage_event_field.queryset = own
        if len(organisations) > 1:
            usage_event_field.label_from_instance = with_organisation  # type: ignore[method-assign]
        self._choose("property", [("", "Choose one"), *self._grouped([self.instance.property])])
        self._choose("group_by", self._grouped(self.instance.group_by))

    def initial_values(self) -> dict[str, Any]:
        metric = self.instance
        plain = ("expression", "percentile", "filters", "rounding_mode", "rounding_digits")
        return {
            **super().initial_values(),
            **{field: getattr(metric, field) for field in plain},
            "filters": metric.filters or "",
            "aggregation": metric.aggregation or Aggregation.SUM,
            "usage_event": metric.usage_event_id,
            "property": f"{metric.usage_event_id}/{metric.property}",
            "group_by": [f"{metric.usage_event_id}/{name}" for name in metric.group_by],
            "value_from": FROM_EXPRESSION if metric.expression else FROM_PROPERTY,
        }

    def _choose(self, name: str, choices: Any) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def _grouped(self, used: list[str]) -> Grouped:
        """Return the properties by usage event; a value names both, because names repeat.

        What the metric uses already is among them, though a later schema may have lost it.
        """
        groups = []
        for pk, usage_event in self.usage_events.items():
            names = scalars_of(usage_event.schema)
            if pk == str(self.instance.usage_event_id):
                names += [name for name in used if name and name not in names]
            groups.append((usage_event.name, [(f"{pk}/{name}", name) for name in names]))
        return groups

    def owner(self) -> Organisation:
        return self.cleaned_data["usage_event"].organisation

    def clean_formula(self) -> None:
        values = self.cleaned_data
        chosen = values.get("usage_event")
        self._clean_value(chosen)
        if values.get("aggregation") != Aggregation.PERCENTILE:
            self._forget("percentile")
        elif "percentile" in values and values["percentile"] is None:
            self.add_error("percentile", "A number from 0 to 100 was expected, such as 95.")
        if chosen is not None:
            picked = [value.partition("/") for value in values.get("group_by", [])]
            values["group_by"] = self._in_known_order([name for pk, _, name in picked if pk == str(chosen.pk)])
        if not values.get("rounding_mode"):
            self._forget("rounding_digits")
        elif "rounding_digits" in values and values["rounding_digits"] is None:
            self.add_error("rounding_digits", f"A whole number from 0 to {MAX_DIGITS} was expected.")

    def _forget(self, field: str) -> None:
        """What a field holds that does not go with the rest is not looked at: it is not shown either."""
        self.errors.pop(field, None)
        self.cleaned_data[field] = None

    def _clean_value(self, chosen: UsageEvent | None) -> None:
        values = self.cleaned_data
        aggregation = values.get("aggregation")
        if aggregation != AS_IS:
            self._forget("as_is")
        else:
            values["aggregation"] = values.get("as_is")
            if "as_is" in values and not values["as_is"]:
                self.add_error("as_is", "Choose what the period has.")
        by_expression = aggregation not in (AS_IS, Aggregation.UNIQUE_COUNT) and (
            values.get("value_from") == FROM_EXPRESSION
            or bool(values.get("expression") and not values.get("value_from") and not values.get("property"))
        )
        if aggregation == Aggregation.COUNT or by_expression:
            self.errors.pop("property", None)
            values["property"] = ""
        if aggregation == Aggregation.COUNT or not by_expression:
            self.errors.pop("expression", None)
            values["expression"] = ""
        if aggregation in (None, Aggregation.COUNT):
            return
        if by_expression:
            if "expression" in values and not values["expression"]:
                self.add_error("expression", "Enter what is calculated of each record.")
        elif "property" in values and chosen is not None:
            self._clean_property(chosen)

    def _clean_property(self, chosen: UsageEvent) -> None:
        prefix, _, name = self.cleaned_data["property"].partition("/")
        distinct = self.cleaned_data["aggregation"] == Aggregation.UNIQUE_COUNT
        if not name:
            wanted = "property whose values are counted" if distinct else "number that is calculated with"
            self.add_error("property", f"Choose the {wanted}.")
        elif prefix != str(chosen.pk):
            self.add_error("property", f"This property is not one of “{chosen}”.")
        elif not distinct and name not in numbers_of(chosen.schema):
            self.add_error("property", f"“{name}” is not a number in the schema of “{chosen}”.")
        else:
            self.cleaned_data["property"] = name

    def _in_known_order(self, names: list[str]) -> list[str]:
        """The order of dimensions means nothing: the one that is published stays, so that nothing seems to change."""
        known = self.instance.group_by
        return list(known) if sorted(known) == sorted(names) else names

    def catalog(self) -> dict[str, Any]:
        """Return what the page's script knows of each usage event: its properties, their types and values."""
        return {
            pk: {"name": usage_event.name, "properties": _described(usage_event.schema)}
            for pk, usage_event in self.usage_events.items()
        }


def _described(schema: dict[str, Any]) -> list[dict[str, Any]]:
    numbers = set(numbers_of(schema))
    return [
        {
            "name": name,
            "types": types_of(subschema),
            "number": name in numbers,
            "values": [value for value in subschema.get("enum", []) if isinstance(value, str)][:100],
        }
        for name, subschema in properties_of(schema).items()
    ]


def counting_the_same(usage_events: dict[str, UsageEvent], *, but: Metric) -> dict[str, list[Metric]]:
    """Return the metrics that count records of each usage event, retired ones and versions of `but` left out."""
    others = Metric.objects.filter(usage_event__in=usage_events.values()).exclude(status=Metric.Status.RETIRED)
    if but.pk:
        others = others.exclude(organisation=but.organisation_id, code=but.code)
    found: dict[str, list[Metric]] = {pk: [] for pk in usage_events}
    for metric in others.order_by("name", "version"):
        found[str(metric.usage_event_id)].append(metric)
    return found
