"""Forms for the definitions of usage events: added with a slug, changed by publishing a new version of the schema."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminTextInputWidget

from customers.admin_acts import ActForm, OrganisationForm
from customers.exactjson import dumps
from customers.jsonfields import JSONTextField
from usage.definitions import POLICIES, change_usage_event, create_usage_event
from usage.models import UsageEvent, validate_slug
from usage.policy_fields import PolicyFields
from usage.schema_changes import SchemaChange, SchemaChangeRefused, check_schema_change
from usage.schemas import check_schema
from usage.slugs import MAX_SLUG, slug_of

STARTING_SCHEMA = {
    "type": "object",
    "properties": {"cpu_usage_hours": {"type": "number", "minimum": 0}, "region": {"type": "string"}},
    "required": ["cpu_usage_hours"],
    "additionalProperties": False,
}
SCHEMA_HELP = "JSON Schema 2020-12 of a record's <code>data</code>. Records that do not fit it are refused."


class SchemaField(JSONTextField):
    """A JSON object that can serve as a schema of data; mistakes are told with their place."""

    def clean(self, value: Any) -> Any:
        schema = super().clean(value)
        try:
            check_schema(schema)
        except RecursionError as error:
            raise ValidationError("The schema refers to itself without end.", code="schema") from error
        except ValueError as error:
            text = str(error)
            raise ValidationError(f"This schema cannot be used. {text[:1].upper()}{text[1:]}", code="schema") from error
        return schema


class NameField(forms.CharField):
    def __init__(self) -> None:
        widget = UnfoldAdminTextInputWidget({"autocomplete": "off", "data-tb-derive-from": "name"})
        super().__init__(label="Usage event name", max_length=200, widget=widget)


class AddUsageEventForm(PolicyFields, OrganisationForm):
    """A new usage event. The slug may be left empty: then it is derived from the name."""

    field_order = ["organisation", "name", "slug", "schema", *POLICIES]

    name = NameField()
    slug = forms.CharField(
        label="API slug endpoint",
        required=False,
        max_length=MAX_SLUG,
        validators=[validate_slug],
        help_text="Letters, digits, underscores and dashes. It cannot be changed later: senders post to it.",
        widget=UnfoldAdminTextInputWidget({"autocomplete": "off", "spellcheck": "false", "data-tb-derived": "slug"}),
    )
    schema = SchemaField(label="Your data schema", initial=STARTING_SCHEMA, help_text=SCHEMA_HELP)

    def clean(self) -> None:
        name = self.cleaned_data.get("name")
        if name and "slug" in self.cleaned_data and not self.cleaned_data["slug"]:
            self.cleaned_data["slug"] = slug_of(name)
            if not self.cleaned_data["slug"]:
                self.add_error("slug", "No slug can be derived from this name: enter one.")
        if self.cleaned_data.get("slug") and "organisation" not in self.errors:
            known = UsageEvent.objects.filter(organisation=self.own_organisation, slug=self.cleaned_data["slug"])
            if known.exists():
                self.add_error("slug", "A usage event with this API slug endpoint exists already.")

    def act(self) -> UsageEvent:
        fields = ("name", "slug", "schema", *POLICIES)
        values = {field: self.cleaned_data[field] for field in fields}
        return create_usage_event(self.own_organisation, **values, actor=self.user)


class ChangeUsageEventForm(PolicyFields, ActForm):
    """Name, policies and schema; a changed schema becomes a new version, after a look at what that would mean.

    `preview` says it when nothing was saved because nobody has confirmed it yet.
    """

    field_order = ["name", "schema", "schema_version", *POLICIES]

    name = NameField()
    schema = SchemaField(label="Your data schema", help_text=SCHEMA_HELP)
    schema_version = forms.IntegerField(widget=forms.HiddenInput, min_value=1, max_value=2**31 - 1)

    def __init__(self, *args: Any, instance: UsageEvent, **options: Any) -> None:
        self.instance = instance
        self.preview: SchemaChange | None = None
        initial = {field: getattr(instance, field) for field in ("name", "schema", "schema_version", *POLICIES)}
        super().__init__(*args, initial=initial, **options)

    def clean(self) -> None:
        seen, current = self.cleaned_data.get("schema_version"), self.instance.schema_version
        if "schema" in self.changed_data and seen is not None and seen != current:
            message = f"Version {current} was published while you were editing version {seen}. Compare it, then redo."
            self.add_error("schema", message)

    def act(self) -> UsageEvent | None:
        """Save what was confirmed; returns None, with the preview, for a changed schema that nobody confirmed yet."""
        schema, confirmed = self.cleaned_data["schema"], self.data.get("publish")
        if confirmed == "edit":
            return None
        if confirmed not in ("yes", "accept") and dumps(schema) != dumps(self.instance.schema):
            self.preview = check_schema_change(self.instance, schema)
            return None
        changes = {field: self.cleaned_data[field] for field in ("name", *POLICIES)}
        accepted, usage_event = confirmed == "accept", self.instance
        try:
            return change_usage_event(usage_event, changes, schema=schema, accept_violations=accepted, actor=self.user)
        except SchemaChangeRefused as refusal:
            self.preview = refusal.change
            return None
