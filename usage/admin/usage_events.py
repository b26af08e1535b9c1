"""Usage events in the admin: added, shown with what a sender needs, republished, archived."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from customers.admin_acts import ActAdmin, ActForm
from customers.models import ApiKey
from usage.definitions import archive_usage_event
from usage.examples import endpoint_of, example_curl
from usage.forms import AddUsageEventForm, ChangeUsageEventForm
from usage.models import UsageEvent, UsageRecord

MANY_RECORDS = 1_000


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
        return [path("<int:object_id>/archive/", view, name="usage_usageevent_archive"), *super().get_urls()]

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
            "versions": obj.schema_versions.select_related("published_by").order_by("-version")[:20],
            "has_key": ApiKey.objects.live().filter(organisation_id=obj.organisation_id).exists(),
            "newest": UsageRecord.objects.filter(usage_event=obj).order_by("-timestamp", "-id").first(),
            "records_url": f"{reverse('admin:usage_usagerecord_changelist')}?usage_event={obj.pk}",
        }
