"""Who sees what in the admin: staff see the organisations that they work for, superusers see all; nobody deletes."""

from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin

from customers.admin_lists import BoundedPaginator
from customers.models import Organisation


def organisations_of(user: User | AnonymousUser) -> QuerySet[Organisation]:
    """Return the organisations whose data the person may see and change; none for who is not active staff."""
    if not (user.is_active and user.is_staff):
        return Organisation.objects.none()
    if user.is_superuser:
        return Organisation.objects.order_by("name")
    return Organisation.objects.filter(memberships__user_id=user.pk).order_by("name")


def person(request: HttpRequest) -> User:
    """Return the signed-in person; the admin lets nobody else in."""
    assert isinstance(request.user, User)
    return request.user


def may_work(request: HttpRequest) -> bool:
    """Tell whether the person works for any organisation: that, and no Django permission, opens the admin's pages."""
    user = request.user
    if not (user.is_active and user.is_staff):
        return False
    return bool(user.is_superuser) or _how_many(request) > 0


def _how_many(request: HttpRequest) -> int:
    """0, 1 or 2 organisations (2 for several); asked once per request, because every part of a page wants to know."""
    if not hasattr(request, "_organisations_at_most_two"):
        request._organisations_at_most_two = len(organisations_of(request.user)[:2])  # type: ignore[attr-defined]
    return int(request._organisations_at_most_two)  # type: ignore[attr-defined]


def with_organisation(obj: Any) -> str:
    """Return an object's name with its organisation's, for choices of who works for several."""
    return f"{obj} · {obj.organisation}"


def is_superuser(request: HttpRequest) -> bool:
    """Tell whether the person may do everything: add organisations, people and memberships."""
    return bool(request.user.is_active and request.user.is_superuser)


class OwnOrganisationAdmin(ModelAdmin):
    """A model's pages, cut down to the person's organisations; `organisation_path` leads from the model to them.

    Everything that reads objects (lists, pages, choices, autocompletes, actions) goes through get_queryset.
    Query parameters beside `own_parameters` and the filters' are refused: a lookup on a column without an index, or
    with a value that PostgreSQL cannot read, must not come in by the address bar.
    """

    organisation_path = "organisation"
    own_parameters: tuple[str, ...] = ()
    show_full_result_count = False
    paginator = BoundedPaginator
    list_filter_submit = True
    actions_on_bottom = False
    list_per_page = 50
    list_max_show_all = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return self.own(request, super().get_queryset(request))

    def get_list_display(self, request: HttpRequest) -> Any:
        """With the organisation as last column, for who sees several."""
        columns = super().get_list_display(request)
        several = self.organisation_path == "organisation" and _how_many(request) > 1
        return (*columns, "organisation") if several else columns

    def own(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return what of a queryset of this model belongs to the person's organisations."""
        if request.user.is_superuser:
            return queryset
        return queryset.filter(**{f"{self.organisation_path}__in": organisations_of(request.user).order_by()})

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if "\0" in search_term:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self.own_parameters

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Refuse ids that are none, before the database has to."""
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if not all(pk.isascii() and pk.isdigit() and len(pk) < 19 for pk in chosen):
            messages.error(request, "What was chosen is not in this list.")
            return None
        return super().response_action(request, queryset)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may_work(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may_work(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may_work(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may_work(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
