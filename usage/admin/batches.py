"""Ingest batches in the admin: the durable receipts, found and read; nobody changes them."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from customers.admin_access import organisations_of
from customers.admin_acts import ActAdmin
from usage.filter_lists import FilterChangeList, MomentField, UsageEventFilterForm
from usage.models import IngestBatch, PendingBatch, RejectedRecord, UsageEvent
from usage.references import LENGTH, batch_reference, parse_batch_reference

COUNTS = ("accepted", "duplicates", "conflicts", "rejected")


class BatchFilterForm(UsageEventFilterForm):
    """The filters of the list of batches; the public name finds one at once."""

    time_field = "received_at"
    upload_path = "upload"

    source = forms.ChoiceField(
        required=False, choices=[("", "All"), *IngestBatch.Source.choices], widget=UnfoldAdminSelectWidget
    )
    after = MomentField(label="Received from (UTC)")
    before = MomentField(label="Before (UTC)")
    batch = forms.CharField(required=False, label="Batch", max_length=LENGTH, widget=UnfoldAdminTextInputWidget)

    def clean_batch(self) -> int | None:
        parsed = parse_batch_reference(self.cleaned_data["batch"]) if self.cleaned_data["batch"] else None
        if self.cleaned_data["batch"] and parsed is None:
            raise forms.ValidationError(f"The name of a batch was expected: {LENGTH} letters and digits.")
        return parsed[0] if parsed else None

    @property
    def one_stream(self) -> bool:
        return super().one_stream or self.cleaned_data["batch"] is not None

    def apply(self, rows: QuerySet[Any]) -> QuerySet[IngestBatch]:
        batches = super().apply(rows)
        if not self.is_valid():
            return batches
        if self.cleaned_data["source"]:
            batches = batches.filter(source=self.cleaned_data["source"])
        if self.cleaned_data["batch"] is not None:
            batches = batches.filter(pk=self.cleaned_data["batch"])
        return batches


class BatchChangeList(FilterChangeList):
    """The list of batches behind the filter form."""

    filter_form_class = BatchFilterForm


@admin.register(IngestBatch)
class IngestBatchAdmin(ActAdmin):
    organisation_path = "usage_event__organisation"
    change_list_template = "admin/usage/filtered_list.html"
    empty_icon = "inventory_2"
    empty_text = "Every request, upload, form and replay that was taken leaves its receipt here."
    list_display = ("reference", "received", "stream", "source_", *COUNTS, "folded")
    actions = None

    def own(self, request: HttpRequest, queryset: QuerySet[IngestBatch]) -> QuerySet[IngestBatch]:
        own = UsageEvent.objects.filter(organisation__in=organisations_of(request.user).order_by())
        return queryset.filter(usage_event_id__in=list(own.values_list("pk", flat=True)))

    def get_queryset(self, request: HttpRequest) -> QuerySet[IngestBatch]:
        related = super().get_queryset(request).select_related("usage_event", "api_key", "user", "upload")
        pending = PendingBatch.objects.filter(pk=OuterRef("pk"), usage_event_id=OuterRef("usage_event_id"))
        return related.defer("usage_event__schema").annotate(is_pending=Exists(pending))

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[BatchChangeList]:
        return BatchChangeList

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="Batch")
    def reference(self, batch: IngestBatch) -> str:
        return format_html('<code class="tb-nowrap">{}</code>', batch_reference(batch.pk, batch.received_at))

    @display(description="Received (UTC)")
    def received(self, batch: IngestBatch) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', batch.received_at.strftime("%Y-%m-%d %H:%M:%S"))

    @display(description="Usage event")
    def stream(self, batch: IngestBatch) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', batch.usage_event.name)

    @display(description="Source")
    def source_(self, batch: IngestBatch) -> str:
        by = next((str(by) for by in (batch.upload, batch.api_key and batch.api_key.name, batch.user) if by), "")
        return format_html('{}<span class="tb-sub">{}</span>', batch.get_source_display(), by)

    @display(description="Folded")
    def folded(self, batch: IngestBatch) -> str:
        pending: bool = batch.is_pending  # type: ignore[attr-defined]
        style, text = ("tb-badge-info", "Pending") if pending else ("tb-badge-ok", "Folded")
        return format_html('<span class="tb-badge {}">{}</span>', style, text)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the receipt; there is nothing to post."""
        if object_id is None or request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        batch = self.own_or_404(request, object_id)
        if batch is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        assert isinstance(batch, IngestBatch)
        rejected = RejectedRecord.objects.filter(usage_event_id=batch.usage_event_id, batch_id=batch.pk)
        refused = batch.rejected + batch.conflicts
        context = {
            "title": batch_reference(batch.pk, batch.received_at),
            "original": batch,
            "crumbs": [("Ingest batches", reverse("admin:usage_ingestbatch_changelist"))],
            "total": batch.accepted + batch.duplicates + refused,
            "refused": refused,
            "records_url": f"{reverse('admin:usage_usagerecord_changelist')}?batch={batch.pk}",
            "rejected_url": f"{reverse('admin:usage_rejectedrecord_changelist')}?batch={batch.pk}&status=all",
            "kept": rejected[:1].exists() if refused else False,
        }
        return self.render_page(request, "admin/usage/ingestbatch/receipt.html", context)
