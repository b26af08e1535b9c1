"""Customers in the admin: entered, known by aliases, confirmed, archived."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html_join
from unfold.decorators import display
from unfold.views import ChangeList

from customers.admin_acts import ActAdmin, ActForm
from customers.archived import still_sending
from customers.forms import AddCustomerForm, ChangeCustomerForm
from customers.models import Customer
from customers.registry import change_customer


class CustomerStateFilter(SimpleListFilter):
    """Who is shown: everybody, or those that somebody has to look at."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unconfirmed", "Unconfirmed"), ("live", "Not archived"), ("archived", "Archived")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Customer]) -> QuerySet[Customer]:
        match self.value():
            case "unconfirmed":
                return queryset.filter(confirmed=False)
            case "live":
                return queryset.filter(archived_at=None)
            case "archived":
                return queryset.exclude(archived_at=None)
        return queryset


class CustomerChangeList(ChangeList):
    """The list, which knows of the archived customers on its page whether they still send."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        shown: list[Any] = list(self.result_list)  # type: ignore[has-type]
        sending = still_sending(shown)
        for customer in shown:
            customer.sends = customer.pk in sending
        self.result_list = shown


@admin.register(Customer)
class CustomerAdmin(ActAdmin):
    empty_icon = "groups"
    empty_text = "Customers appear by themselves when usage names them, or can be added here."
    add_act_form = AddCustomerForm
    change_act_form = ChangeCustomerForm
    act_template = "admin/customers/customer_form.html"
    add_title = "Add customer"
    list_display = ("external_id", "name", "email", "state", "created_at")
    list_filter = (CustomerStateFilter,)
    own_parameters = (CustomerStateFilter.parameter_name,)
    ordering = ("external_id",)
    search_fields = ("external_id", "name", "aliases__alias")
    search_help_text = "Customer id, alias or name"
    actions = ("confirm", "archive", "unarchive")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return CustomerChangeList

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:object_id>/archive/", view(self.archive_view), name="customers_customer_archive"),
            path("<int:object_id>/confirm/", view(self.confirm_view), name="customers_customer_confirm"),
            *super().get_urls(),
        ]

    @display(description="State")
    def state(self, customer: Customer) -> str:
        badges = []
        if customer.archived_at:
            sends = getattr(customer, "sends", False)
            badges.append(("tb-badge-bad", "Archived, still sending") if sends else ("", "Archived"))
        if not customer.confirmed:
            badges.append(("tb-badge-warn", "Unconfirmed"))
        return format_html_join("", '<span class="tb-badge {}">{}</span>', badges)

    def page_context(self, request: HttpRequest, obj: Any, form: ActForm) -> dict[str, Any]:
        return {"sends": bool(still_sending([obj]))} if obj is not None else {}

    @admin.action(description="Confirm: these are customers of ours")
    def confirm(self, request: HttpRequest, customers: QuerySet[Customer]) -> None:
        for customer in customers.filter(confirmed=False):
            change_customer(customer.pk, confirmed=True)
            self.log_change(request, customer, "Confirmed.")
            messages.success(request, f"“{customer}” is confirmed.")

    @admin.action(description="Archive: usage is taken, and flagged")
    def archive(self, request: HttpRequest, customers: QuerySet[Customer]) -> None:
        self._archive(request, customers, archived=True)

    @admin.action(description="Unarchive")
    def unarchive(self, request: HttpRequest, customers: QuerySet[Customer]) -> None:
        self._archive(request, customers, archived=False)

    def _archive(self, request: HttpRequest, customers: QuerySet[Customer], *, archived: bool) -> None:
        for customer in customers.filter(archived_at__isnull=archived):
            change_customer(customer.pk, archived=archived)
            self.log_change(request, customer, "Archived." if archived else "Unarchived.")
            what = "archived; usage that still comes is taken and flagged" if archived else "a live customer again"
            messages.success(request, f"“{customer}” is {what}.")

    def archive_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Archive, or with `archived=no` unarchive, one customer."""
        customers = self._posted(request, object_id)
        self._archive(request, customers, archived=request.POST.get("archived") == "yes")
        return self.redirect_to(self.get_queryset(request).get(pk=object_id))

    def confirm_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        self.confirm(request, self._posted(request, object_id))
        return self.redirect_to(self.get_queryset(request).get(pk=object_id))

    def _posted(self, request: HttpRequest, object_id: int) -> QuerySet[Customer]:
        customers = self.get_queryset(request).filter(pk=object_id)
        if request.method != "POST":
            raise PermissionDenied
        if not customers:
            raise Http404("There is no such customer.")
        return customers
