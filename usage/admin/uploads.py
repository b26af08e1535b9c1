"""Uploads in the admin: a file is added, its columns mapped, tried out, ingested while somebody looks on, shown."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from customers.admin_access import person
from customers.admin_acts import ActAdmin, ActForm
from usage.models import Upload
from usage.upload_files import read_errors
from usage.upload_forms import AddUploadForm, MappingForm
from usage.upload_reading import UploadRefused, undecided_columns
from usage.uploads import NotNow, discard_upload, same_file_as, start_upload

Status = Upload.Status
BADGES = {
    Status.STAGED: "tb-badge-warn",
    Status.CHECKING: "tb-badge-info",
    Status.CHECKED: "tb-badge-warn",
    Status.INGESTING: "tb-badge-info",
    Status.DONE: "tb-badge-ok",
    Status.FAILED: "tb-badge-bad",
    Status.DISCARDED: "",
}
COUNTS = ("rows_read", "accepted", "duplicates", "conflicts", "rejected")


@admin.register(Upload)
class UploadAdmin(ActAdmin):
    organisation_path = "usage_event__organisation"
    add_act_form = AddUploadForm
    change_act_form = MappingForm
    act_template = "admin/usage/upload/add.html"
    add_title = "Upload a file"
    save_label = "Upload"
    empty_icon = "upload_file"
    empty_text = "Bring in a month of backlog: a CSV or NDJSON file, tried out before anything is stored."
    list_display = ("file", "stream", "state", "rows", "stored", "refused", "when")
    ordering = ("-id",)
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upload]:
        return super().get_queryset(request).select_related("usage_event", "user", "api_key")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:object_id>/start/", view(self.start_view), name="usage_upload_start"),
            path("<int:object_id>/discard/", view(self.discard_view), name="usage_upload_discard"),
            path("<int:object_id>/progress/", view(self.progress_view), name="usage_upload_progress"),
            path("<int:object_id>/errors/", view(self.errors_view), name="usage_upload_errors"),
            *super().get_urls(),
        ]

    @display(description="File")
    def file(self, upload: Upload) -> str:
        return format_html(
            '<span class="tb-record">{}</span><span class="tb-sub">Upload {}</span>', upload.file_name, upload.pk
        )

    @display(description="Usage event")
    def stream(self, upload: Upload) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', upload.usage_event.name)

    @display(description="Status")
    def state(self, upload: Upload) -> str:
        badge = BADGES[Status(upload.status)]
        return format_html('<span class="tb-badge {}">{}</span>', badge, upload.get_status_display())

    @display(description="Rows read")
    def rows(self, upload: Upload) -> int:
        return upload.rows_read

    @display(description="Accepted")
    def stored(self, upload: Upload) -> int:
        return upload.accepted

    @display(description="Refused")
    def refused(self, upload: Upload) -> int:
        return upload.rejected + upload.conflicts

    @display(description="Uploaded (UTC)")
    def when(self, upload: Upload) -> str:
        return format_html('<span class="tb-nowrap">{}</span>', upload.created_at.strftime("%Y-%m-%d %H:%M"))

    def make_form(self, request: HttpRequest, obj: Any, data: Any = None) -> ActForm:
        if obj is None and data is not None:
            return self.add_act_form(data, request.FILES, user=person(request))
        return super().make_form(request, obj, data)

    def render_form(self, request: HttpRequest, obj: Any, form: ActForm) -> HttpResponse:
        """The page that fits the state: the mapping while it is open, else what is known of the upload."""
        if obj is None:
            return super().render_form(request, obj, form)
        anew = "mapping" in request.GET and obj.started_at is None and obj.status in (Status.CHECKED, Status.FAILED)
        csv_file = obj.format == Upload.Format.CSV
        if csv_file and (obj.status == Status.STAGED or anew or (form.is_bound and form.errors)):
            return self.render_page(request, "admin/usage/upload/mapping.html", self._mapping_context(obj, form))
        return self.render_page(request, "admin/usage/upload/page.html", self._page_context(obj))

    def _mapping_context(self, upload: Upload, form: ActForm) -> dict[str, Any]:
        return {
            "title": str(upload),
            "original": upload,
            "form": form,
            "undecided": undecided_columns(upload),
            "same_file": same_file_as(upload),
        }

    def _page_context(self, upload: Upload) -> dict[str, Any]:
        own = f"?usage_event={upload.usage_event_id}&upload={upload.pk}"
        return {
            "title": str(upload),
            "original": upload,
            "progress": progress_of(upload),
            "badge": BADGES[Status(upload.status)],
            "same_file": same_file_as(upload),
            "refused": upload.rejected + upload.conflicts,
            "records_url": reverse("admin:usage_usagerecord_changelist") + own,
            "batches_url": reverse("admin:usage_ingestbatch_changelist") + own,
            "rejected_url": reverse("admin:usage_rejectedrecord_changelist") + own + "&status=all",
        }

    def done(self, request: HttpRequest, form: ActForm, obj: Any, *, added: bool) -> HttpResponse:
        """Go on to the next step; its page says by itself what happened."""
        if added:
            self.log_addition(request, obj, [{"added": {}}])
        else:
            self.log_change(request, obj, [{"changed": {"fields": ["mapping"]}}])
        return self.redirect_to(obj)

    def start_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Ingest the file, or go on where it was stopped."""
        upload = self._posted(request, object_id)
        try:
            start_upload(upload.pk)
        except (NotNow, UploadRefused) as refusal:
            messages.error(request, f"This upload was not started: {refusal}.")
        else:
            self.log_change(request, upload, "Started.")
        return self.redirect_to(upload)

    def discard_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Give the upload up and remove its file."""
        upload = self._posted(request, object_id)
        try:
            discard_upload(upload.pk)
        except NotNow as refusal:
            messages.error(request, f"This upload was not discarded: {refusal}.")
            return self.redirect_to(upload)
        self.log_change(request, upload, "Discarded.")
        messages.success(request, f"The upload of “{upload}” was discarded and its file removed.")
        return HttpResponseRedirect(reverse("admin:usage_upload_changelist"))

    def progress_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """The progress as JSON, for static/tallybook/upload.js."""
        return JsonResponse(progress_of(self._own(request, object_id)))

    def errors_view(self, request: HttpRequest, object_id: int) -> StreamingHttpResponse:
        """The refused rows as a CSV file."""
        upload = self._own(request, object_id)
        try:
            pieces = read_errors(upload.stored_name, upload.errors_bytes)
        except FileNotFoundError:
            raise Http404("The error file was removed some days after the upload ended.") from None
        headers = {"Content-Disposition": f'attachment; filename="upload-{upload.pk}-errors.csv"'}
        return StreamingHttpResponse(pieces, content_type="text/csv; charset=utf-8", headers=headers)

    def _own(self, request: HttpRequest, object_id: int) -> Upload:
        upload = self.get_object(request, str(object_id))
        if upload is None:
            raise Http404("There is no such upload.")
        return upload

    def _posted(self, request: HttpRequest, object_id: int) -> Upload:
        if request.method != "POST":
            raise PermissionDenied
        return self._own(request, object_id)


def progress_of(upload: Upload) -> dict[str, Any]:
    """Return how far an upload has come, in counts and in percent of its bytes."""
    percent = 100 if not upload.size else min(100, upload.bytes_done * 100 // upload.size)
    return {
        "status": upload.status,
        "under_way": upload.under_way,
        "percent": percent,
        **{name: getattr(upload, name) for name in COUNTS},
    }
