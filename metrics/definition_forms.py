"""What the forms of metrics' definitions share: name, code and unit, and the act that a saved form calls."""

from copy import copy
from typing import Any

from django import forms
from django.contrib.auth.models import User
from unfold.widgets import UnfoldAdminTextInputWidget

from customers.admin_acts import ActForm
from customers.models import Organisation
from metrics.definitions import revise_metric, save_metric
from metrics.formula_rules import check_formula
from metrics.models import Metric, validate_code
from usage.slugs import slug_of

NAMES = ("name", "code", "unit")
# A version may be written in another way than the one before.
NO_FORMULA: dict[str, Any] = {
    **dict.fromkeys(("aggregation", "property", "expression", "rounding_mode", "sql", "sql_window"), ""),
    **dict.fromkeys(("usage_event", "percentile", "rounding_digits")),
    "filters": {},
    "group_by": [],
}


class DefinitionForm(ActForm):
    """A metric's definition: a new draft, or a draft that is changed.

    With `revising` it becomes the next version of that published metric; the form begins with what `instance` says.
    Without `naming` it is a question, not a deed: what the definition would give needs no name and is never stored.
    The code may be left empty: then it is derived from the name. Later versions have the code of the first.
    """

    formula: tuple[str, ...] = ()

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
    unit = forms.CharField(
        required=False,
        max_length=50,
        help_text="What one of it is called: hours, calls, GB.",
        widget=UnfoldAdminTextInputWidget,
    )

    def __init__(
        self,
        *args: Any,
        user: User,
        instance: Metric | None = None,
        revising: Metric | None = None,
        naming: bool = True,
        **options: Any,
    ) -> None:
        # A copy: what is refused must not show on the page as if it were so.
        self.instance = copy(instance) if instance is not None else Metric(aggregation="")
        self.revising, self.naming = revising, naming
        initial = {**self.initial_values(), **(options.pop("initial", None) or {})}
        super().__init__(*args, user=user, initial=initial, **options)
        if revising is not None or self.instance.version > 1:
            del self.fields["code"]
        if not naming:
            for name in NAMES:
                if name in self.fields:
                    self.fields[name].required = False

    def initial_values(self) -> dict[str, Any]:
        """Return what the fields show of the instance."""
        return {field: getattr(self.instance, field) for field in NAMES}

    def owner(self) -> Organisation:
        """The organisation that the metric belongs to; after its field was cleaned."""
        raise NotImplementedError

    def clean(self) -> None:
        if not self.naming:
            # A code that is not finished yet does not keep anybody from looking.
            for name in NAMES:
                self.errors.pop(name, None)
        elif "code" in self.fields:
            self._clean_code()
        self.clean_formula()
        if not self.errors and not self.naming:
            self._check()

    def clean_formula(self) -> None:
        """Bring the formula's fields into the model's form; add errors at them."""

    def _check(self) -> None:
        try:
            check_formula(self.metric())
        except forms.ValidationError as refusal:
            self.refuse(refusal)

    def refuse(self, refusal: forms.ValidationError) -> None:
        """Put what an act refuses at its fields, each as a sentence."""
        by_field = refusal.message_dict if hasattr(refusal, "error_dict") else {"": refusal.messages}
        for field, texts in by_field.items():
            self.add_error(field if field in self.fields else None, [sentence(text) for text in texts])

    def _clean_code(self) -> None:
        values = self.cleaned_data
        if values.get("name") and "code" in values and not values["code"]:
            values["code"] = slug_of(values["name"])
            if not values["code"]:
                self.add_error("code", "No code can be derived from this name: enter one.")

    def _check_code_is_free(self) -> None:
        if "code" not in self.fields:
            return
        same = Metric.objects.filter(organisation=self.owner(), code=self.cleaned_data["code"])
        if same.exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError({"code": "A metric with this code exists already."})

    def changes(self) -> dict[str, Any]:
        """Return the fields of the model with their values; those that the form has not are emptied."""
        return {**NO_FORMULA, **{field: self.cleaned_data[field] for field in ("name", "unit", *self.formula)}}

    def metric(self) -> Metric:
        """Return the definition as a metric that is not stored; after the fields were cleaned."""
        values = self.changes() if self.naming else {field: self.cleaned_data[field] for field in self.formula}
        return Metric(organisation=self.owner(), **values)

    def dimensions(self) -> tuple[str, ...]:
        """Return the names of the definition's dimensions; after the fields were cleaned."""
        return tuple(self.cleaned_data.get("group_by", ()))

    def act(self) -> Metric:
        """Store the draft, or the next version; returns the version that holds the definition now."""
        if self.revising is not None:
            return revise_metric(self.revising, self.changes())
        self._check_code_is_free()
        for field, value in self.changes().items():
            setattr(self.instance, field, value)
        if "code" in self.fields:
            self.instance.code = self.cleaned_data["code"]
        self.instance.organisation = self.owner()
        return save_metric(self.instance)


def sentence(text: str) -> str:
    """Return an act's message as a form shows it: with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "?", "!")) else ".")
