"""Organisations and their API keys in the admin."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.timezone import now
from unfold.decorators import display

from customers.admin_access import is_superuser
from customers.admin_acts import ActAdmin, ActForm
from customers.forms import ApiKeyForm, OrganisationActForm
from customers.keys import revoke_api_key
from customers.models import ApiKey, Organisation


@admin.register(Organisation)
class OrganisationAdmin(ActAdmin):
    """Its staff may rename it and set its time zone; only superusers add one."""

    organisation_path = "pk"
    add_act_form = OrganisationActForm
    change_act_form = OrganisationActForm
    act_template = "admin/customers/organisation_form.html"
    add_title = "Add organisation"
    list_display = ("name", "key_", "timezone", "created_at")
    ordering = ("name",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    @display(description="Key (organisation header)")
    def key_(self, organisation: Organisation) -> str:
        return format_html('<code class="tb-inline">{}</code>', organisation.key)


@admin.register(ApiKey)
class ApiKeyAdmin(ActAdmin):
    """Issued with a secret that this page shows once; ended by revoking, never deleted."""

    add_act_form = ApiKeyForm
    act_template = "admin/customers/apikey_form.html"
    add_title = "Issue an API key"
    save_label = "Issue key"
    empty_icon = "key"
    empty_text = "Systems that post usage or read quantities need a key each."
    list_display = ("name", "prefix_", "scopes_", "state", "last_used_at", "expires_at", "created_at")
    ordering = ("-created_at",)
    search_fields = ("name", "prefix")
    search_help_text = "Name or start of the secret"
    actions = ("revoke",)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.revoke_view)
        return [path("<int:object_id>/revoke/", view, name="customers_apikey_revoke"), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).select_related("organisation")

    @display(description="Secret starts with")
    def prefix_(self, key: ApiKey) -> str:
        return format_html('<code class="tb-inline">{}…</code>', key.prefix)

    @display(description="Scopes")
    def scopes_(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(description="State", label={"Live": "success", "Revoked": "danger", "Expired": "warning"})
    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return "Revoked"
        return "Expired" if key.expires_at and key.expires_at <= now() else "Live"

    def make_form(self, request: HttpRequest, obj: Any, data: Any = None) -> ActForm:
        if obj is not None and data is not None:
            raise PermissionDenied("A key does not change.")
        return super().make_form(request, None, data)

    def page_context(self, request: HttpRequest, obj: Any, form: ActForm) -> dict[str, Any]:
        return {"state": self.state(obj)} if obj is not None else {}

    def done(self, request: HttpRequest, form: ActForm, obj: Any, *, added: bool) -> HttpResponse:
        """Show the secret: in the answer to this one request, because it is stored nowhere."""
        assert isinstance(form, ApiKeyForm)
        self.log_addition(request, obj, [{"added": {}}])
        context = {"title": "API key issued", "original": obj, "secret": form.secret}
        response = self.render_page(request, "admin/customers/apikey_issued.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke: refuse these keys from now on")
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        for key in keys.filter(revoked_at=None):
            revoke_api_key(key)
            self.log_change(request, key, "Revoked.")
            messages.success(request, f"“{key}” is revoked and refused from now on.")

    def revoke_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        key = self.get_queryset(request).filter(pk=object_id)
        if request.method != "POST":
            raise PermissionDenied
        if not key:
            raise Http404("There is no such key.")
        self.revoke(request, key)
        return self.redirect_to(key[0])
