"""Forms for organisations, customers and API keys."""

from datetime import UTC, datetime, time
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.timezone import now
from unfold.widgets import (
    UnfoldAdminEmailInputWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from customers.admin_acts import ActForm, OrganisationForm
from customers.jsonfields import JSONTextField
from customers.keys import issue_api_key
from customers.models import ApiKey, Customer, Organisation, Scope
from customers.zones import zone_names

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


class CustomerDetails(ActForm):
    """What may change about a customer at any time."""

    name = forms.CharField(required=False, max_length=255, widget=UnfoldAdminTextInputWidget)
    email = forms.EmailField(required=False, widget=UnfoldAdminEmailInputWidget)
    custom_data = JSONTextField(
        required=False, rows=5, label="Custom data (JSON)", help_text="Anything you want to keep with the customer."
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["timezone"] = zone_field(required=False, blank="The organisation's", label="Time zone")
        self.order_fields(["organisation", "external_id", "name", "email", "timezone", "custom_data"])

    def fill(self, customer: Customer) -> Customer:
        """Store the details; a customer that somebody entered or looked at here is confirmed."""
        for field in ("name", "email", "timezone", "custom_data"):
            setattr(customer, field, self.cleaned_data[field])
        customer.confirmed = True
        customer.full_clean()
        customer.save()
        return customer


class AddCustomerForm(CustomerDetails, OrganisationForm):
    external_id = forms.CharField(
        label="Customer id",
        max_length=255,
        help_text="The <code>customer_id</code> of its records. It cannot be changed later: they point at it.",
        widget=UnfoldAdminTextInputWidget,
    )

    def clean(self) -> None:
        external_id = self.cleaned_data.get("external_id")
        if external_id and not self.errors:
            known = Customer.objects.filter(organisation=self.own_organisation, external_id=external_id)
            if known.exists():
                self.add_error("external_id", "A customer of this id exists already.")

    def act(self) -> Customer:
        return self.fill(Customer(organisation=self.own_organisation, external_id=self.cleaned_data["external_id"]))


class ChangeCustomerForm(CustomerDetails):
    def __init__(self, *args: Any, instance: Customer, **options: Any) -> None:
        self.instance = instance
        fields = ("name", "email", "timezone", "custom_data")
        super().__init__(*args, initial={field: getattr(instance, field) for field in fields}, **options)

    def act(self) -> Customer:
        return self.fill(self.instance)


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
