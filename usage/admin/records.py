"""Usage records in the admin: found, corrected, voided, restored, with their history; never added, never deleted."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from customers.admin_access import organisations_of, person
from customers.admin_acts import ActAdmin, ActForm
from customers.exactjson import dumps
from usage.correction_forms import CorrectionForm, VoidForm
from usage.history import history, moment_text
from usage.models import UsageEvent, UsageRecord
from usage.record_lists import RecordChangeList
from usage.references import batch_reference

MAX_SHOWN = 110
MAX_VOIDED_AT_ONCE = 1_000


@admin.register(UsageRecord)
class UsageRecordAdmin(ActAdmin):
    organisation_path = "usage_event__organisation"
    change_act_form = CorrectionForm
    act_template = "admin/usage/usagerecord/act_form.html"
    change_list_template = "admin/usage/usagerecord/change_list.html"
    empty_icon = "receipt_long"
    empty_text = "Records appear here as soon as they are posted. A usage event shows the curl to begin with."
    list_display = ("record", "customer_id_", "when", "said", "stream", "status", "received")
    actions = ("void", "restore")
    list_disable_select_all = True

    def own(self, request: HttpRequest, queryset: QuerySet[UsageRecord]) -> QuerySet[UsageRecord]:
        # Ids instead of a join: every index of records begins with the usage event.
        own = UsageEvent.objects.filter(organisation__in=organisations_of(request.user).order_by())
        return queryset.filter(usage_event_id__in=list(own.values_list("pk", flat=True)))

    def get_queryset(self, request: HttpRequest) -> QuerySet[UsageRecord]:
        related = super().get_queryset(request).select_related("usage_event", "customer")
        return related.defer("usage_event__schema", "customer__custom_data")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[RecordChangeList]:
        return RecordChangeList

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:object_id>/void/", view(self.void_view), name="usage_usagerecord_void"),
            path("<int:object_id>/restore/", view(self.restore_view), name="usage_usagerecord_restore"),
            *super().get_urls(),
        ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @display(description="Record")
    def record(self, record: UsageRecord) -> str:
        return format_html(
            '<span class="tb-record">{}</span><span class="tb-sub">{}</span>', record.pk, record.idempotency_key or ""
        )

    @display(description="Customer")
    def customer_id_(self, record: UsageRecord) -> str:
        if not sent_after_archiving(record):
            return record.customer.external_id
        return format_html(
            '{}<span class="tb-sub"><span class="tb-badge tb-badge-warn">{}</span></span>',
            record.customer.external_id,
            "Archived customer",
        )

    @display(description="Timestamp (UTC)")
    def when(self, record: UsageRecord) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', _short(record.timestamp))

    @display(description="Data")
    def said(self, record: UsageRecord) -> str:
        text = dumps(record.data)
        shown = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
        return format_html('<code class="tb-line" title="{}">{}</code>', text[:1_000], shown)

    @display(description="Usage event")
    def stream(self, record: UsageRecord) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', record.usage_event.name)

    @display(description="Status", empty_value="")
    def status(self, record: UsageRecord) -> str | None:
        if record.voided_at:
            return format_html('<span class="tb-badge tb-badge-bad">{}</span>', "Void")
        if record.revision > 1:
            return format_html('<span class="tb-badge tb-badge-info">{}</span>', "Corrected")
        return None

    @display(description="Received (UTC)")
    def received(self, record: UsageRecord) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', _short(record.received_at))

    def make_form(self, request: HttpRequest, obj: Any, data: Any = None) -> ActForm:
        form = super().make_form(request, obj, data)
        if obj.voided_at:
            for field in form.fields.values():
                field.disabled = True
        return form

    def render_form(self, request: HttpRequest, obj: Any, form: ActForm) -> HttpResponse:
        """After somebody else's change: show the newer values, and what had been typed."""
        if isinstance(form, CorrectionForm) and form.stale:
            obj = self.get_object(request, str(obj.pk))
            form = form.renewed(obj)
        return super().render_form(request, obj, form)

    def page_context(self, request: HttpRequest, obj: Any, form: ActForm) -> dict[str, Any]:
        changes = history(obj)
        return {
            "title": str(obj).capitalize(),
            "crumbs": self.crumbs(None, ""),
            "save_label": "Save correction",
            "changes": changes,
            "batch_reference": batch_reference(obj.batch_id, obj.batch.received_at),
            "received_at": moment_text(obj.received_at),
            "after_archiving": sent_after_archiving(obj),
            "records_url": reverse("admin:usage_usagerecord_changelist"),
        }

    def done_message(self, obj: Any, *, added: bool) -> str:
        return f"Record {obj.pk} was corrected. Every quantity counts it as it is now."

    @admin.action(description="Void…")
    def void(self, request: HttpRequest, records: QuerySet[UsageRecord]) -> HttpResponse | None:
        return self.void_page(request, records, restoring=False)

    @admin.action(description="Restore…")
    def restore(self, request: HttpRequest, records: QuerySet[UsageRecord]) -> HttpResponse | None:
        return self.void_page(request, records, restoring=True)

    def void_view(self, request: HttpRequest, object_id: int) -> HttpResponse | None:
        return self.void_page(request, self._one(request, object_id), restoring=False, page=object_id)

    def restore_view(self, request: HttpRequest, object_id: int) -> HttpResponse | None:
        return self.void_page(request, self._one(request, object_id), restoring=True, page=object_id)

    def _one(self, request: HttpRequest, object_id: int) -> QuerySet[UsageRecord]:
        record = self.get_queryset(request).filter(pk=object_id)
        if not record:
            raise Http404("There is no such record.")
        return record

    def void_page(
        self, request: HttpRequest, chosen: QuerySet[UsageRecord], *, restoring: bool, page: int | None = None
    ) -> HttpResponse | None:
        """Ask for the reason and show what it is about; on its answer, act."""
        records = list(chosen[: MAX_VOIDED_AT_ONCE + 1])
        if len(records) > MAX_VOIDED_AT_ONCE:
            messages.error(request, f"At most {MAX_VOIDED_AT_ONCE} records can be voided or restored at once.")
            return None
        touched = [record for record in records if (record.voided_at is not None) is restoring]
        confirmed = "reason" in request.POST
        form = VoidForm(request.POST if confirmed else None, records=touched, restoring=restoring, user=person(request))
        changed = form.perform() if confirmed else None
        if changed is not None:
            return self._voided(request, changed, restoring, page)
        context = {
            "title": f"{'Restore' if restoring else 'Void'} {len(touched)} record{'' if len(touched) == 1 else 's'}",
            "form": form,
            "records": touched,
            "skipped": len(records) - len(touched),
            "restoring": restoring,
            "page": page,
            "action": "restore" if restoring else "void",
            "crumbs": self.crumbs(touched[0] if page and touched else None, ""),
        }
        return self.render_page(request, "admin/usage/usagerecord/void.html", context)

    def _voided(self, request: HttpRequest, changed: int, restoring: bool, page: int | None) -> HttpResponse:
        what = "brought back; every quantity counts them again" if restoring else "voided; no quantity counts them"
        messages.success(request, f"{changed} record{'' if changed == 1 else 's'} {what}.")
        if page is not None:
            return HttpResponseRedirect(reverse("admin:usage_usagerecord_change", args=[page]))
        return HttpResponseRedirect(request.get_full_path())


def sent_after_archiving(record: UsageRecord) -> bool:
    """Tell whether the record is usage of a time when its customer was archived."""
    archived_at = record.customer.archived_at
    return archived_at is not None and record.timestamp > archived_at


def _short(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%d %H:%M:%S"))
