"""Forms of an upload: the file with how it is written, and what each of its columns means."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.template.defaultfilters import filesizeformat
from unfold.widgets import UnfoldAdminSelectWidget

from customers.admin_access import organisations_of, with_organisation
from customers.admin_acts import ActForm
from customers.zones import zone_names
from usage.models import Upload, UsageEvent
from usage.upload_cells import DECIMALS, THOUSANDS
from usage.upload_files import PIECE, FileRefused
from usage.upload_mapping import DATA, targets_of
from usage.upload_reading import Reading, UploadRefused, preview
from usage.upload_rows import DELIMITERS, Row
from usage.uploads import NotNow, map_upload, stage_upload, start_check

LEFT_OUT = "-"
SIGNS = ("delimiter", "decimal", "thousands", "timezone")
SHOWN_CELL = 60


def _sign_field(label: str, signs: dict[str, str], *, empty: str = "", help_text: str = "") -> forms.ChoiceField:
    named = [(sign, f"{called.capitalize()} {sign.strip()}".strip()) for sign, called in signs.items() if sign]
    choices = [("", empty), *named] if empty else named
    return forms.ChoiceField(
        label=label, choices=choices, required=not empty, help_text=help_text, widget=UnfoldAdminSelectWidget
    )


class SignsForm(ActForm):
    """How numbers and times are written in the file."""

    delimiter = _sign_field("Delimiter", DELIMITERS, empty="As the first line suggests")
    decimal = _sign_field("Decimal sign", DECIMALS)
    thousands = _sign_field("Thousands separator", THOUSANDS, empty="None")
    timezone = forms.ChoiceField(
        label="Time zone",
        choices=lambda: [(name, name) for name in zone_names()],
        help_text="Of timestamps that say none. Those with Z or an offset keep theirs.",
        widget=UnfoldAdminSelectWidget,
    )

    def clean(self) -> None:
        if self.cleaned_data.get("thousands") and self.cleaned_data["thousands"] == self.cleaned_data.get("decimal"):
            self.add_error("thousands", "This is the decimal sign already.")

    def signs(self) -> dict[str, Any]:
        """Return what was chosen, as a Reading takes it."""
        chosen = {name: self.cleaned_data.get(name) for name in SIGNS}
        return {**chosen, "delimiter": chosen["delimiter"] or None, "thousands": chosen["thousands"] or ""}


class AddUploadForm(SignsForm):
    """A file for a usage event."""

    field_order = ["usage_event", "file", "file_format", *SIGNS]

    usage_event = forms.ModelChoiceField(queryset=UsageEvent.objects.none(), widget=UnfoldAdminSelectWidget)
    file = forms.FileField(max_length=200, allow_empty_file=True)
    file_format = forms.ChoiceField(
        label="Format", required=False, widget=UnfoldAdminSelectWidget,
        choices=[("", "As the file's name says"), *Upload.Format.choices],
    )  # fmt: skip

    def __init__(self, *args: Any, **options: Any) -> None:
        initial = {"decimal": ".", "timezone": "UTC", **(options.pop("initial", None) or {})}
        super().__init__(*args, initial=initial, **options)
        field = self.fields["usage_event"]
        assert isinstance(field, forms.ModelChoiceField)
        organisations = list(organisations_of(self.user))
        live = UsageEvent.objects.filter(organisation__in=organisations, archived_at=None).order_by("name")
        field.queryset = live.select_related("organisation")
        if len(organisations) > 1:
            field.label_from_instance = with_organisation  # type: ignore[method-assign]
        self.fields["file"].help_text = (
            f"CSV with a header, or NDJSON with a record on each line; UTF-8, up to "
            f"{filesizeformat(settings.UPLOAD_MAX_BYTES)}."
        )

    def act(self) -> Upload:
        values, file = self.cleaned_data, self.cleaned_data["file"]
        by_name = str(file.name).lower().endswith((".ndjson", ".jsonl"))
        file_format = values["file_format"] or (Upload.Format.NDJSON if by_name else Upload.Format.CSV)
        try:
            upload = stage_upload(
                values["usage_event"],
                file.chunks(PIECE),
                file_name=str(file.name),
                file_format=file_format,
                reading=Reading(**self.signs()),
                user_id=self.user.pk,
            )
        except FileRefused as refusal:
            raise ValidationError({"file": _sentence(refusal)}) from refusal
        except UploadRefused as refusal:
            raise ValidationError({refusal.field: _sentence(refusal)}) from refusal
        # Nothing to decide on: lines of NDJSON are records as in the API.
        return start_check(upload.pk) if file_format == Upload.Format.NDJSON else upload


@dataclass(frozen=True, slots=True)
class ColumnField:
    """A column of the file: its name, the choice of what it means, and its first cells."""

    name: str
    field: forms.BoundField
    cells: list[str]


class MappingForm(SignsForm):
    """What each column means. Changing the delimiter reads the columns anew, before anything else is said of them."""

    def __init__(self, *args: Any, instance: Upload, **options: Any) -> None:
        self.instance = instance
        initial = {name: getattr(instance, name) for name in SIGNS}
        super().__init__(*args, initial=initial, **options)
        self.fields["delimiter"].required = True
        schema = instance.usage_event.schema
        known = targets_of(schema)
        fields = [(target, target) for target in known if not target.startswith(DATA)]
        data = [(target, target.removeprefix(DATA)) for target in known if target.startswith(DATA)]
        for number, column in enumerate(instance.columns):
            own = f"{DATA}{column}"
            more = [(own, f"{column} (not in the schema)")] if _takes(schema, own, known) else []
            mapped = instance.mapping.get(column, "")
            if mapped and mapped not in known and mapped != own:
                more.append((mapped, mapped.removeprefix(DATA)))
            self.fields[f"column_{number}"] = forms.ChoiceField(
                label=column,
                required=False,
                initial=LEFT_OUT if mapped is None else mapped,
                widget=UnfoldAdminSelectWidget,
                choices=[("", "Choose…"), (LEFT_OUT, "Leave out"), ("Record", fields), ("data", [*data, *more])],
            )

    @property
    def columns_anew(self) -> bool:
        """Whether another delimiter was chosen, so that there are other columns."""
        return bool(self.cleaned_data.get("delimiter") != self.instance.delimiter)

    def clean(self) -> None:
        super().clean()
        if self.columns_anew:
            return
        taken: dict[str, str] = {}
        for number, column in enumerate(self.instance.columns):
            name = f"column_{number}"
            target = self.cleaned_data.get(name)
            if name in self.errors or target == LEFT_OUT:
                continue
            if not target:
                self.add_error(name, "Choose what this column means, or leave it out.")
            elif target in taken:
                self.add_error(name, f"“{taken[target]}” is mapped to this already.")
            else:
                taken[target] = column
        missing = [f"“{name}”" for name in ("customer_id", "timestamp") if name not in taken]
        if missing:
            self.add_error(None, f"Every record needs {' and '.join(missing)}: choose a column for it.")

    def mapping(self) -> dict[str, str | None]:
        """Return column to target; after is_valid()."""
        chosen = [self.cleaned_data[f"column_{number}"] for number, _ in enumerate(self.instance.columns)]
        pairs = zip(self.instance.columns, chosen, strict=True)
        return {column: None if target == LEFT_OUT else target for column, target in pairs}

    def act(self) -> Upload:
        try:
            if self.columns_anew:
                return map_upload(self.instance.pk, Reading(**self.signs()))
            map_upload(self.instance.pk, Reading(**self.signs(), mapping=self.mapping()))
            return start_check(self.instance.pk)
        except UploadRefused as refusal:
            raise ValidationError({refusal.field: _sentence(refusal)}) from refusal
        except NotNow as refusal:
            raise ValidationError(_sentence(refusal)) from refusal

    def column_fields(self) -> Iterator[ColumnField]:
        """Yield the columns with their first cells."""
        rows = [row.cells for row in self.preview_rows if row.cells]
        for number, column in enumerate(self.instance.columns):
            cells = [row[number][:SHOWN_CELL] for row in islice(rows, 3) if number < len(row) and row[number]]
            yield ColumnField(column, self[f"column_{number}"], cells)

    @property
    def preview_rows(self) -> list[Row]:
        """The first rows of the file."""
        if not hasattr(self, "_preview"):
            self._preview = preview(self.instance)
        return self._preview


def _takes(schema: dict[str, Any], target: str, known: list[str]) -> bool:
    return target not in known and schema.get("additionalProperties") is not False


def _sentence(refusal: Exception) -> str:
    text = str(refusal)
    return f"{text[:1].upper()}{text[1:]}."
