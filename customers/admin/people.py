"""People in the admin: who signs in, and for which organisation each works."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from customers.admin_access import OwnOrganisationAdmin, is_superuser
from customers.models import Membership

admin.site.unregister(Group)
admin.site.unregister(User)


@admin.register(Membership)
class MembershipAdmin(OwnOrganisationAdmin):
    """Who works for which organisation. Superusers decide; the others see their own organisation's."""

    list_display = ("user", "organisation")
    list_display_links = ("user",)
    list_select_related = ("user", "organisation")
    fields = ("organisation", "user")
    ordering = ("organisation__name", "user__username")

    def get_list_display(self, request: HttpRequest) -> Any:
        return self.list_display

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Not a fact but a right: it must be possible to take it away.
        return is_superuser(request)


class MembershipInline(TabularInline):
    model = Membership
    extra = 0
    verbose_name_plural = "Works for"


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    """People who sign in. Superusers only; who leaves is made inactive, because the history names them."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "name", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ()
    search_fields = ("username", "first_name", "last_name", "email")
    fieldsets = (
        (None, {"fields": ("username", "password", "first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
    )
    filter_horizontal = ()
    inlines = (MembershipInline,)
    readonly_fields = ("last_login", "date_joined")

    @display(description="Name")
    def name(self, user: User) -> str:
        return user.get_full_name() or "-"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        return super().get_search_results(request, queryset, search_term.replace("\0", ""))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return is_superuser(request)

    has_add_permission = has_module_permission
    has_change_permission = has_view_permission

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
