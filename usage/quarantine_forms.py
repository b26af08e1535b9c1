"""Forms of the quarantine: one entry mended and replayed, many tried, replayed or discarded, and the list's filters."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from customers.admin_acts import ActForm
from customers.jsonfields import JSONTextarea, named, parse
from usage.cause_words import CAUSES
from usage.correction_forms import ReasonField
from usage.corrections import CorrectionError, actor_of
from usage.envelopes import Problem
from usage.filter_lists import MAX_ID, FilterChangeList, MomentField, UsageEventFilterForm
from usage.ingestion import UsageEventGone
from usage.models import RejectedRecord
from usage.quarantine import MAX_AT_ONCE, NotOpen, Replayed, discard_rejected, replay_rejected

MAX_EDITABLE = 200_000
MAX_REASONS = 20
Status = RejectedRecord.Status
CODES = [("", "All"), *((code, code) for code in CAUSES)]
STATUSES = [("", "Open"), ("all", "All"), *(choice for choice in Status.choices if choice[0] != Status.OPEN)]


def pretty(payload: str) -> str:
    """Return a payload indented, with every digit, order and repeated key as it came; what is no JSON, as it is."""
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
        return msgspec.json.format(payload, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return payload


class PayloadField(forms.CharField):
    """The text of one record; mistakes of syntax are told with their place."""

    def __init__(self) -> None:
        super().__init__(
            label="Payload", strip=False, max_length=MAX_EDITABLE + 100_000, widget=JSONTextarea(8), required=False
        )

    def clean(self, value: Any) -> str:
        """Return the text without needless spaces; raises ValidationError with line and column."""
        text = super().clean(value).replace("\r\n", "\n").strip()
        if not text:
            raise ValidationError("A record was expected, that is a JSON object; nothing came.")
        parsed = parse(text)
        if not isinstance(parsed, dict):
            raise ValidationError(f"A record was expected, that is one JSON object, not {named(parsed)}.")
        try:
            return msgspec.json.format(text, indent=-1)
        except msgspec.DecodeError:
            return text  # half a surrogate pair, say: the replay refuses it in its own words

    def has_changed(self, initial: Any, data: Any) -> bool:
        return (initial or "").strip() != (data or "").replace("\r\n", "\n").strip()


class EntryForm(ActForm):
    """One entry: its payload as it came or mended, tried or replayed. `result` holds what came of it."""

    def __init__(self, *args: Any, instance: RejectedRecord, **options: Any) -> None:
        self.instance = instance
        self.result: Replayed | None = None
        super().__init__(*args, initial={"payload": pretty(instance.payload)}, **options)
        self.editable = len(instance.payload) <= MAX_EDITABLE
        if self.editable:
            self.fields["payload"] = PayloadField()
        self.trying = self.data.get("deed") != "replay"

    def act(self) -> RejectedRecord:
        entry = self.instance
        mended = {entry.pk: self.cleaned_data["payload"]} if "payload" in self.changed_data else None
        actor = actor_of(self.user)
        try:
            self.result = replay_rejected(
                entry.usage_event_id, [entry.pk], actor=actor, payloads=mended, dry_run=self.trying
            )
        except (NotOpen, UsageEventGone) as refusal:
            raise ValidationError(refusal_text(refusal)) from refusal
        return entry


@dataclass(slots=True)
class BulkResult:
    """What became, or would become, of a selection."""

    accepted: int = 0
    duplicates: int = 0
    refused: list[Problem] = field(default_factory=list)
    discarded: int = 0

    @property
    def reasons(self) -> list[Problem]:
        """The first of the refused ones."""
        return self.refused[:MAX_REASONS]


class ChosenField(forms.CharField):
    """The ids of a selection, with commas between them."""

    def __init__(self) -> None:
        super().__init__(widget=forms.HiddenInput, max_length=20 * MAX_AT_ONCE)

    def clean(self, value: Any) -> list[int]:
        texts = super().clean(value).split(",")
        if len(texts) > MAX_AT_ONCE or not all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts):
            raise ValidationError("What was chosen is not in this list.")
        return [int(text) for text in texts]


class BulkForm(ActForm):
    """A selection of entries: tried, replayed, or discarded with a reason; all of it or nothing."""

    chosen = ChosenField()
    reason = ReasonField()

    def __init__(self, *args: Any, entries: QuerySet[RejectedRecord], **options: Any) -> None:
        super().__init__(*args, **options)
        self.entries = entries
        self.deed = self.data.get("deed", "")
        self.fields["reason"].required = self.deed == "discard"
        self.fields["reason"].help_text = "Kept with each entry, with your name."
        self.fields["reason"].widget.attrs["placeholder"] = "For example: test data of the new meter"

    def act(self) -> BulkResult:
        still_open = self.entries.filter(pk__in=self.cleaned_data["chosen"], status=Status.OPEN)
        rows = sorted(still_open.values_list("usage_event_id", "pk"))
        if not rows:
            raise ValidationError("Nothing of this selection is open any more: somebody closed it meanwhile.")
        result = BulkResult()
        try:
            with transaction.atomic():
                for usage_event_id, group in groupby(rows, key=lambda row: row[0]):
                    self._act_on(usage_event_id, [pk for _, pk in group], result)
        except CorrectionError as refusal:
            text = str(refusal)
            raise ValidationError({"reason": f"{text[:1].upper()}{text[1:]}."}) from refusal
        except (NotOpen, UsageEventGone, RejectedRecord.DoesNotExist) as refusal:
            raise ValidationError(refusal_text(refusal)) from refusal
        return result

    def _act_on(self, usage_event_id: int, ids: list[int], result: BulkResult) -> None:
        actor = actor_of(self.user)
        if self.deed == "discard":
            result.discarded += discard_rejected(usage_event_id, ids, reason=self.cleaned_data["reason"], actor=actor)
            return
        replayed = replay_rejected(usage_event_id, ids, actor=actor, dry_run=self.deed != "replay")
        result.accepted += replayed.accepted
        result.duplicates += replayed.duplicates
        result.refused += replayed.refused


def refusal_text(refusal: Exception) -> str:
    """Return why nothing was done, for who stands before the page."""
    if isinstance(refusal, UsageEventGone):
        return "The usage event is archived and takes no records. Unarchive it, then try again. Nothing was changed."
    if isinstance(refusal, NotOpen):
        return f"Nothing was changed: meanwhile this was closed ({Status(refusal.status).label.lower()})."
    return "Nothing was changed: a part of this selection is not there any more."


class RejectedFilterForm(UsageEventFilterForm):
    """The filters of the list of entries; without a status, the open ones."""

    time_field = "first_seen_at"

    code = forms.ChoiceField(required=False, label="Cause", choices=CODES, widget=UnfoldAdminSelectWidget)
    status = forms.ChoiceField(required=False, choices=STATUSES, widget=UnfoldAdminSelectWidget)
    record_id = forms.CharField(required=False, label="Record id", strip=False, widget=UnfoldAdminTextInputWidget)
    after = MomentField(label="First seen from (UTC)")
    before = MomentField(label="Before (UTC)")
    batch = forms.IntegerField(required=False, min_value=0, max_value=MAX_ID, widget=forms.HiddenInput)

    @property
    def one_stream(self) -> bool:
        asked = self.cleaned_data
        return super().one_stream or asked["batch"] is not None or bool(asked["record_id"])

    def apply(self, rows: QuerySet[Any]) -> QuerySet[RejectedRecord]:
        entries = super().apply(rows)
        if not self.is_valid():
            return entries
        asked = self.cleaned_data
        if asked["status"] != "all":
            entries = entries.filter(status=asked["status"] or Status.OPEN)
        if asked["code"]:
            entries = entries.filter(code=asked["code"])
        if asked["record_id"]:
            entries = entries.filter(idempotency_key=asked["record_id"])
        if asked["batch"] is not None:
            entries = entries.filter(batch_id=asked["batch"])
        return entries


class RejectedChangeList(FilterChangeList):
    """The list of entries behind the filter form."""

    filter_form_class = RejectedFilterForm
