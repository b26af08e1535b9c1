"""Forms for organisations, customers and API keys."""

from datetime import UTC, datetime, time
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.timezone import now
from unfold.widgets import (
    UnfoldAdminEmailInputWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from customers.admin_acts import ActForm, OrganisationForm
from customers.jsonfields import JSONTextField
from customers.keys import issue_api_key
from customers.models import ApiKey, Customer, Organisation, Scope
from customers.registry import MAX_ALIASES, change_customer, enter_customer
from customers.zones import zone_names

DETAILS = ("name", "email", "timezone", "custom_data")
SCOPES = [
    (Scope.INGEST, "ingest: post usage and read receipts"),
    (Scope.READ, "read: read everything under /api/"),
    (Scope.MANAGE, "manage: write definitions"),
]


def zone_field(*, blank: str = "", **options: Any) -> forms.ChoiceField:
    """Return a choice of IANA time zones; with `blank`, one more that stands for none of its own."""
    choices = [*([("", blank)] if blank else []), *((name, name) for name in zone_names())]
    return forms.ChoiceField(choices=choices, widget=UnfoldAdminSelectWidget, **options)


class OrganisationActForm(ActForm):
    """Name and default time zone; the key is given by the database and stays."""

    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)

    def __init__(self, *args: Any, instance: Organisation | None = None, **options: Any) -> None:
        self.instance = instance or Organisation()
        initial = {"name": self.instance.name, "timezone": self.instance.timezone}
        super().__init__(*args, initial={**initial, **(options.pop("initial", None) or {})}, **options)
        self.fields["timezone"] = zone_field(
            label="Time zone",
            help_text="The default zone of its billing periods. Quantities can be asked for in any zone.",
        )

    def act(self) -> Organisation:
        self.instance.name = self.cleaned_data["name"]
        self.instance.timezone = self.cleaned_data["timezone"]
        self.instance.full_clean()
        self.instance.save()
        return self.instance


class AliasesField(forms.CharField):
    """Other ids of a customer, one a line."""

    def __init__(self) -> None:
        widget = UnfoldAdminTextareaWidget({"rows": 3, "spellcheck": "false", "autocomplete": "off"})
        super().__init__(
            required=False,
            widget=widget,
            max_length=MAX_ALIASES * 300,
            help_text="Other ids that records may name it by, one a line. Usage sent under them counts for it.",
        )

    def clean(self, value: Any) -> list[str]:
        """Return the ids, each once, in the order typed."""
        lines = (one_line(line) for line in super().clean(value).splitlines())
        return list(dict.fromkeys(line for line in lines if line))

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(one_line, value)) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        typed = [one_line(line) for line in (data or "").splitlines()]
        return sorted(filter(None, typed)) != sorted(map(one_line, initial or []))


def one_line(text: str) -> str:
    """Return an id as a line shows it: systems may send ids with spaces at the ends, people do not type them."""
    return " ".join(text.split())


class CustomerDetails(ActForm):
    """What may change about a customer at any time."""

    name = forms.CharField(required=False, max_length=255, widget=UnfoldAdminTextInputWidget)
    email = forms.EmailField(required=False, widget=UnfoldAdminEmailInputWidget)
    aliases = AliasesField()
    custom_data = JSONTextField(
        required=False, rows=5, label="Custom data (JSON)", help_text="Anything you want to keep with the customer."
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["timezone"] = zone_field(required=False, blank="The organisation's", label="Time zone")
        self.order_fields(["organisation", "external_id", "name", "email", "timezone", "aliases", "custom_data"])

    def details(self) -> dict[str, Any]:
        """Return the details to keep; after is_valid()."""
        return {field: self.cleaned_data[field] for field in DETAILS}


class AddCustomerForm(CustomerDetails, OrganisationForm):
    external_id = forms.CharField(
        label="Customer id",
        max_length=255,
        help_text="The <code>customer_id</code> of its records. It cannot be changed later: they point at it.",
        widget=UnfoldAdminTextInputWidget,
    )

    def act(self) -> Customer:
        external_id, aliases = self.cleaned_data["external_id"], self.cleaned_data["aliases"]
        customer, _ = enter_customer(self.own_organisation.pk, external_id, aliases=aliases, **self.details())
        return customer


class ChangeCustomerForm(CustomerDetails):
    """Saving confirms a customer that usage named."""

    def __init__(self, *args: Any, instance: Customer, **options: Any) -> None:
        self.instance = instance
        self.known = sorted(instance.aliases.values_list("alias", flat=True))
        initial = {field: getattr(instance, field) for field in DETAILS} | {"aliases": self.known}
        super().__init__(*args, initial=initial, **options)

    def act(self) -> Customer:
        aliases = None
        if "aliases" in self.changed_data:
            typed = self.cleaned_data["aliases"]
            as_sent = [alias for alias in self.known if one_line(alias) in typed]
            aliases = [*as_sent, *(alias for alias in typed if alias not in map(one_line, as_sent))]
        return change_customer(self.instance.pk, aliases=aliases, confirmed=True, **self.details())


class ApiKeyForm(OrganisationForm):
    """A new key. Its secret is in `secret` after perform(), and nowhere else."""

    name = forms.CharField(
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text="Which system it is for, so that it can be revoked alone.",
    )
    scopes = forms.MultipleChoiceField(
        choices=SCOPES, initial=[Scope.INGEST], widget=forms.CheckboxSelectMultiple, help_text="What the key may do."
    )
    expires_on = forms.DateField(
        required=False,
        label="Last day",
        help_text="Optional. The key works until the end of this day, in UTC.",
        widget=forms.DateInput(attrs={**UnfoldAdminTextInputWidget().attrs, "type": "date"}),
    )
    secret = ""

    def clean_expires_on(self) -> datetime | None:
        day = self.cleaned_data["expires_on"]
        if day is None:
            return None
        end = datetime.combine(day, time.max, UTC)
        if not now() < end < datetime(2101, 1, 1, tzinfo=UTC):
            raise ValidationError("A day from today on, before the year 2101, was expected.")
        return end

    def act(self) -> ApiKey:
        values = self.cleaned_data
        key, self.secret = issue_api_key(self.own_organisation, values["name"], values["scopes"])
        if values["expires_on"]:
            key.expires_at = values["expires_on"]
            key.save(update_fields=["expires_at"])
        return key
