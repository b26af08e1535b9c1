"""The quarantine in the admin: what is open by cause, each entry mended and replayed, many at once, or discarded."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from customers.admin_access import may_work, organisations_of, person
from customers.admin_acts import ActAdmin, ActForm
from usage.cause_words import words_for
from usage.models import RejectedRecord, UsageEvent, UsageRecord
from usage.quarantine import MAX_AT_ONCE, Cause, causes
from usage.quarantine_forms import MAX_EDITABLE, BulkForm, BulkResult, EntryForm, RejectedChangeList, pretty
from usage.references import batch_reference

Status = RejectedRecord.Status
SHOWN = 10
MAX_COUNTED = 1_000
BADGES = {
    Status.OPEN: "tb-badge-warn",
    Status.DISCARDED: "",
    Status.REPLAYED: "tb-badge-ok",
    Status.DELIVERED: "tb-badge-ok",
}


@admin.register(RejectedRecord)
class RejectedRecordAdmin(ActAdmin):
    organisation_path = "usage_event__organisation"
    change_act_form = EntryForm
    act_template = "admin/usage/rejectedrecord/act_form.html"
    change_list_template = "admin/usage/rejectedrecord/change_list.html"
    empty_icon = "verified"
    empty_text = "Refused records are kept here until somebody mends, replays or discards them."
    list_display = ("entry", "stream", "cause", "said", "sent", "first_seen", "status_")
    actions = ("choose",)
    list_disable_select_all = True

    def own(self, request: HttpRequest, queryset: QuerySet[RejectedRecord]) -> QuerySet[RejectedRecord]:
        # Ids instead of a join: every index of entries begins with the usage event.
        return queryset.filter(usage_event_id__in=_own_usage_events(request))

    def get_queryset(self, request: HttpRequest) -> QuerySet[RejectedRecord]:
        return super().get_queryset(request).select_related("usage_event").defer("usage_event__schema")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[RejectedChangeList]:
        return RejectedChangeList

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("causes/", view(self.causes_view), name="usage_rejectedrecord_causes"),
            path("bulk/", view(self.bulk_view), name="usage_rejectedrecord_bulk"),
            path("<int:object_id>/discard/", view(self.discard_view), name="usage_rejectedrecord_discard"),
            *super().get_urls(),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @display(description="Entry")
    def entry(self, entry: RejectedRecord) -> str:
        return format_html(
            '<span class="tb-record">{}</span><span class="tb-sub">{}</span>', entry.pk, entry.idempotency_key or ""
        )

    @display(description="Usage event")
    def stream(self, entry: RejectedRecord) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', entry.usage_event.name)

    @display(description="Cause")
    def cause(self, entry: RejectedRecord) -> str:
        title = words_for(entry.code).title
        return format_html('<code class="tb-inline tb-nowrap" title="{}">{}</code>', title, entry.code)

    @display(description="Message")
    def said(self, entry: RejectedRecord) -> str:
        return format_html(
            '<span class="tb-message" title="{}">{}</span><code class="tb-sub">{}</code>',
            entry.message[:1_000],
            entry.message[:200],
            entry.pointer[:200],
        )

    @display(description="Sent")
    def sent(self, entry: RejectedRecord) -> str:
        return "once" if entry.times == 1 else f"{entry.times} times"

    @display(description="First seen (UTC)")
    def first_seen(self, entry: RejectedRecord) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', entry.first_seen_at.strftime("%Y-%m-%d %H:%M:%S"))

    @display(description="Status")
    def status_(self, entry: RejectedRecord) -> str:
        label = Status(entry.status).label.split()[0]
        return format_html('<span class="tb-badge {}">{}</span>', BADGES[Status(entry.status)], label)

    # --- by cause ----------------------------------------------------------------------------------------------------

    def causes_view(self, request: HttpRequest) -> HttpResponse:
        """What is open, by usage event and cause: the first page of the quarantine."""
        if not may_work(request):
            raise PermissionDenied
        found = [(organisation, causes(organisation.pk)) for organisation in organisations_of(person(request))]
        rows = self._described([cause for _, group in found for cause in group])
        context = {"title": "Quarantine", "crumbs": [], "rows": rows, "several": len(found) > 1}
        return self.render_page(request, "admin/usage/rejectedrecord/causes.html", context)

    def _described(self, found: list[Cause]) -> list[dict[str, Any]]:
        usage_events = UsageEvent.objects.select_related("organisation").defer("schema")
        by_id = usage_events.in_bulk({cause.usage_event_id for cause in found})
        examples = RejectedRecord.objects.defer("payload").in_bulk([cause.newest_id for cause in found])
        return [
            {
                "cause": cause,
                "usage_event": by_id[cause.usage_event_id],
                "words": words_for(cause.code),
                "example": examples.get(cause.newest_id),
            }
            for cause in found
        ]

    # --- one entry ---------------------------------------------------------------------------------------------------

    def done(self, request: HttpRequest, form: ActForm, obj: Any, *, added: bool) -> HttpResponse:
        """After a try, the same page with what would happen; after a replay, the entry as it is now."""
        assert isinstance(form, EntryForm)
        assert form.result is not None
        if form.trying:
            return self.render_form(request, obj, form)
        obj.refresh_from_db()
        if obj.status == Status.REPLAYED:
            self.log_change(request, obj, "Replayed.")
            stored = "Stored: every quantity counts it."
            known = "The same record was stored already: this entry is closed."
            messages.success(request, stored if form.result.accepted else known)
        elif obj.status == Status.OPEN:
            messages.error(request, f"Refused again, nothing was stored: {obj.message}.")
        else:
            messages.warning(request, f"Refused again and closed: {obj.closing_reason}.")
        return self.redirect_to(obj)

    def page_context(self, request: HttpRequest, obj: Any, form: ActForm) -> dict[str, Any]:
        assert isinstance(form, EntryForm)
        same_id = UsageRecord.objects.filter(usage_event_id=obj.usage_event_id, idempotency_key=obj.idempotency_key)
        return {
            "title": str(obj).capitalize(),
            "crumbs": [("Quarantine", reverse("admin:usage_rejectedrecord_causes"))],
            "words": words_for(obj.code),
            "result": form.result,
            "stored": same_id.first() if obj.idempotency_key else None,
            "shown_payload": pretty(obj.payload) if len(obj.payload) <= MAX_EDITABLE else obj.payload[:MAX_EDITABLE],
            "batch_reference": batch_reference(obj.batch_id, obj.batch.received_at),
            "closing_reference": obj.closing_batch_id
            and batch_reference(obj.closing_batch_id, obj.closing_batch.received_at),
            "badge": BADGES[Status(obj.status)],
        }

    def discard_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        entry = self.get_queryset(request).filter(pk=object_id).first()
        if entry is None:
            raise Http404("There is no such entry.")
        if entry.status != Status.OPEN:
            messages.warning(request, f"This entry is closed already: {entry.get_status_display().lower()}.")
            return self.redirect_to(entry)
        return self._bulk_page(request, [entry.pk], one=entry)

    # --- many entries ------------------------------------------------------------------------------------------------

    @admin.action(description="Try, replay or discard…")
    def choose(self, request: HttpRequest, entries: QuerySet[RejectedRecord]) -> HttpResponse:
        return self._bulk_page(request, list(entries.values_list("pk", flat=True)))

    def bulk_view(self, request: HttpRequest) -> HttpResponse:
        """What an operator does with a cause (named in the address) or with a selection (posted)."""
        if not may_work(request):
            raise PermissionDenied
        if "deed" in request.POST:
            return self._bulk_page(request, [])
        usage_event, code = request.GET.get("usage_event", ""), request.GET.get("code", "")
        if not (usage_event.isascii() and usage_event.isdigit() and len(usage_event) < 19 and "\0" not in code):
            return HttpResponseRedirect(reverse("admin:usage_rejectedrecord_causes"))
        if int(usage_event) not in _own_usage_events(request):
            raise Http404("There is no such usage event.")
        open_ones = self.get_queryset(request).filter(usage_event_id=int(usage_event), code=code, status=Status.OPEN)
        return self._bulk_page(request, list(open_ones.order_by("pk").values_list("pk", flat=True)[:MAX_AT_ONCE]))

    def _bulk_page(self, request: HttpRequest, chosen: list[int], one: RejectedRecord | None = None) -> HttpResponse:
        """Show a selection and what can be done with it; on a deed, do it (or only try) and tell what came of it."""
        entries = self.get_queryset(request)
        asked = request.POST.get("deed") in ("try", "replay", "discard")
        form = BulkForm(
            request.POST if asked else None,
            user=person(request),
            entries=entries,
            initial={"chosen": ",".join(map(str, chosen))},
        )
        result = form.perform() if asked else None
        if result is not None and form.deed != "try":
            self._tell(request, result)
            return HttpResponseRedirect(reverse("admin:usage_rejectedrecord_causes"))
        ids = form.cleaned_data.get("chosen", chosen) if asked else chosen
        found = entries.filter(pk__in=ids, status=Status.OPEN)
        context = {
            "title": f"Discard {one}" if one else _count(len(ids), "entry", "entries"),
            "crumbs": [("Quarantine", reverse("admin:usage_rejectedrecord_causes"))],
            "form": form,
            "result": result,
            "one": one,
            "chosen": ids,
            "open_count": found.count(),
            "most": MAX_AT_ONCE,
            "shown": found.order_by("-pk")[:SHOWN],
            "codes": [(code, words_for(code)) for code in _distinct(found, "code")],
        }
        return self.render_page(request, "admin/usage/rejectedrecord/bulk.html", context)

    def _tell(self, request: HttpRequest, result: BulkResult) -> None:
        if result.discarded:
            messages.success(request, f"{_count(result.discarded, 'entry', 'entries')} discarded.")
            return
        told = [f"{_count(result.accepted, 'record', 'records')} stored"]
        if result.duplicates:
            told.append(f"{result.duplicates} known already")
        if result.refused:
            told.append(f"{len(result.refused)} still refused and open, for instance: {result.refused[0].message}")
        level = messages.success if not result.refused else messages.warning
        level(request, f"{'; '.join(told)}.")


def open_entries(request: HttpRequest) -> str:
    """Return how many entries are open, for the sidebar; nothing for none."""
    if not may_work(request):
        return ""
    if not hasattr(request, "_open_entries"):
        still_open = RejectedRecord.objects.filter(usage_event_id__in=_own_usage_events(request), status=Status.OPEN)
        request._open_entries = still_open[: MAX_COUNTED + 1].count()  # type: ignore[attr-defined]
    found: int = request._open_entries  # type: ignore[attr-defined]
    return f"{MAX_COUNTED}+" if found > MAX_COUNTED else str(found or "")


def on_quarantine(request: HttpRequest) -> bool:
    """Tell whether a page of the quarantine is shown."""
    return "/usage/rejectedrecord/" in request.path


def _own_usage_events(request: HttpRequest) -> list[int]:
    own = UsageEvent.objects.filter(organisation__in=organisations_of(request.user).order_by())
    return list(own.values_list("pk", flat=True))


def _distinct(entries: QuerySet[RejectedRecord], column: str) -> list[str]:
    return sorted(set(entries.values_list(column, flat=True)))


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
