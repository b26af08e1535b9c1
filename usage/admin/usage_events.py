"""Usage events in the admin: added, shown with what a sender needs, republished, archived."""

from itertools import pairwise
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget

from customers.admin_acts import ActAdmin, ActForm
from customers.models import ApiKey
from usage.definitions import archive_usage_event
from usage.examples import endpoint_of, example_curl
from usage.forms import AddUsageEventForm, ChangeUsageEventForm
from usage.models import SchemaVersion, UsageEvent, UsageRecord
from usage.schema_diff import line_diff, property_changes

NOT_TYPED = ("csrfmiddlewaretoken", "publish")
SHOWN_VERSIONS = 20
MAX_VERSIONS = 500


class VersionsForm(forms.Form):
    """Which two versions of a schema are compared."""

    def __init__(self, data: Any, *, numbers: list[int]) -> None:
        super().__init__(data, label_suffix="")
        self.newest = (numbers[1] if len(numbers) > 1 else numbers[0], numbers[0])
        choices = [(number, f"Version {number}") for number in numbers]
        for name, label, initial in zip(("from", "to"), ("From", "To"), self.newest, strict=True):
            self.fields[name] = forms.TypedChoiceField(
                label=label, choices=choices, coerce=int, initial=initial, widget=UnfoldAdminSelectWidget
            )

    def chosen(self) -> tuple[int, int]:
        """Return the two versions; the newest two where nothing, or nothing that is there, was chosen."""
        if not (self.is_bound and self.is_valid()):
            return self.newest
        return self.cleaned_data["from"], self.cleaned_data["to"]


@admin.register(UsageEvent)
class UsageEventAdmin(ActAdmin):
    add_act_form = AddUsageEventForm
    change_act_form = ChangeUsageEventForm
    act_template = "admin/usage/usageevent/act_form.html"
    add_title = "Add usage event"
    empty_icon = "sensors"
    empty_text = "A usage event is a stream of records: a name, an endpoint to post to, and the schema of the data."
    list_display = ("name", "endpoint", "version", "status", "created_at")
    ordering = ("name",)
    search_fields = ("name", "slug")
    search_help_text = "Name or slug"
    actions = ("archive", "unarchive")

    def get_queryset(self, request: HttpRequest) -> QuerySet[UsageEvent]:
        return super().get_queryset(request).select_related("organisation")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.archive_view)
        versions = self.admin_site.admin_view(self.versions_view)
        return [
            path("<int:object_id>/archive/", view, name="usage_usageevent_archive"),
            path("<int:object_id>/versions/", versions, name="usage_usageevent_versions"),
            *super().get_urls(),
        ]

    @display(description="Endpoint", ordering="slug")
    def endpoint(self, usage_event: UsageEvent) -> str:
        return format_html('<code class="tb-inline">/usage/{}</code>', usage_event.slug)

    @display(description="Schema", ordering="schema_version")
    def version(self, usage_event: UsageEvent) -> str:
        return f"Version {usage_event.schema_version}"

    @display(description="Status", label={"Live": "success", "Archived": "warning"})
    def status(self, usage_event: UsageEvent) -> str:
        return "Archived" if usage_event.archived_at else "Live"

    @admin.action(description="Archive: take no more records")
    def archive(self, request: HttpRequest, usage_events: QuerySet[UsageEvent]) -> None:
        self._archive(request, usage_events, archived=True)

    @admin.action(description="Unarchive: take records again")
    def unarchive(self, request: HttpRequest, usage_events: QuerySet[UsageEvent]) -> None:
        self._archive(request, usage_events, archived=False)

    def _archive(self, request: HttpRequest, usage_events: QuerySet[UsageEvent], *, archived: bool) -> None:
        for usage_event in usage_events:
            archive_usage_event(usage_event, archived=archived)
            self.log_change(request, usage_event, "Archived." if archived else "Unarchived.")
            what = "is archived and takes no more records" if archived else "takes records again"
            messages.success(request, f"“{usage_event}” {what}.")

    def archive_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Archive, or with `archived=no` unarchive, one usage event."""
        usage_event = self.get_object(request, str(object_id))
        if request.method != "POST" or usage_event is None:
            raise PermissionDenied
        self._archive(
            request, self.get_queryset(request).filter(pk=object_id), archived=request.POST["archived"] == "yes"
        )
        return self.redirect_to(usage_event)

    def render_form(self, request: HttpRequest, obj: Any, form: ActForm) -> HttpResponse:
        """For a schema that nobody confirmed yet: what publishing it would mean."""
        preview = getattr(form, "preview", None)
        if preview is None:
            return super().render_form(request, obj, form)
        obj.refresh_from_db()
        schema = form.cleaned_data["schema"]
        context = {
            "title": f"Publish version {obj.schema_version + 1}",
            "original": obj,
            "form": form,
            "change": preview,
            "posted": [(name, value) for name, value in request.POST.items() if name not in NOT_TYPED],
            "changes": property_changes(obj.schema, schema),
            "lines": line_diff(obj.schema, schema),
        }
        return self.render_page(request, "admin/usage/usageevent/publish.html", context)

    def versions_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Compare two versions of the schema: by default the newest two."""
        usage_event = self.get_object(request, str(object_id))
        if usage_event is None:
            raise Http404("There is no such usage event.")
        numbers = list(
            usage_event.schema_versions.order_by("-version").values_list("version", flat=True)[:MAX_VERSIONS]
        )
        form = VersionsForm(request.GET if "to" in request.GET else None, numbers=numbers)
        earlier, later = form.chosen()
        chosen = usage_event.schema_versions.select_related("published_by").filter(version__in=[earlier, later])
        pair = {version.version: version for version in chosen}
        context = {
            "title": "Compare schema versions",
            "original": usage_event,
            "form": form,
            "earlier": pair[earlier],
            "later": pair[later],
            "changes": property_changes(pair[earlier].schema, pair[later].schema),
            "lines": line_diff(pair[earlier].schema, pair[later].schema),
        }
        return self.render_page(request, "admin/usage/usageevent/versions.html", context)

    def done(self, request: HttpRequest, form: ActForm, obj: Any, *, added: bool) -> HttpResponse:
        response = super().done(request, form, obj, added=added)
        return HttpResponseRedirect(f"{response['Location']}?created=1") if added else response

    def done_message(self, obj: Any, *, added: bool) -> str:
        if added:
            return f"“{obj}” was added. It takes records from now on."
        return f"“{obj}” was saved. Version {obj.schema_version} of its schema is in force."

    def page_context(self, request: HttpRequest, obj: Any, form: ActForm) -> dict[str, Any]:
        if obj is None:
            return {"endpoint_prefix": endpoint_of("")}
        return {
            "created": "created" in request.GET,
            "endpoint": endpoint_of(obj.slug),
            "curl": example_curl(obj, str(obj.organisation.key)),
            "versions": _with_changes(obj),
            "has_key": ApiKey.objects.live().filter(organisation_id=obj.organisation_id).exists(),
            "newest": UsageRecord.objects.filter(usage_event=obj).order_by("-timestamp", "-id").first(),
            "records_url": f"{reverse('admin:usage_usagerecord_changelist')}?usage_event={obj.pk}",
        }


def _with_changes(usage_event: UsageEvent) -> list[SchemaVersion]:
    """The newest versions, each with what it changed of the one before."""
    newest = usage_event.schema_versions.select_related("published_by").order_by("-version")
    versions = list(newest[: SHOWN_VERSIONS + 1])
    for version, earlier in pairwise(versions):
        version.changes = property_changes(earlier.schema, version.schema)  # type: ignore[attr-defined]
    return versions[:SHOWN_VERSIONS]
