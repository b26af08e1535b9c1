"""Customers, API keys, organisations and staff in the admin."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from customers.models import ApiKey, Customer, Membership, Organisation
from tests.conftest import record, take_in
from tests.people import HOSTILE, staff_of, superuser
from usage.models import UsageEvent

CUSTOMERS = "/admin/customers/customer/"
KEYS = "/admin/customers/apikey/"


@pytest.fixture
def staff(organisation: Organisation) -> Client:
    return staff_of(organisation)


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["form"].errors)


def test_a_customer_is_added_changed_and_keeps_its_id(staff: Client, organisation: Organisation) -> None:
    details = {"name": "Acme", "email": "a@acme.example", "timezone": "Europe/Berlin", "custom_data": '{"tier": 1.50}'}
    assert staff.post(f"{CUSTOMERS}add/", {"external_id": "cus_1", **details}).status_code == 302
    customer = Customer.objects.get()
    assert (customer.organisation, customer.external_id, customer.timezone) == (organisation, "cus_1", "Europe/Berlin")
    assert str(customer.custom_data["tier"]) == "1.50"

    page = reverse("admin:customers_customer_change", args=[customer.pk])
    assert staff.post(page, {**details, "name": "Acme 2", "external_id": "other"}).status_code == 302
    customer.refresh_from_db()
    assert (customer.external_id, customer.name) == ("cus_1", "Acme 2")
    assert "customer_id=cus_1" in staff.get(page).content.decode()


def test_a_customer_that_usage_named_is_confirmed_by_saving(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("cus_9"))
    customer = Customer.objects.get()
    assert not customer.confirmed
    page = reverse("admin:customers_customer_change", args=[customer.pk])
    assert "Usage named this customer" in staff.get(page).content.decode()
    staff.post(page, {"name": "Nine"})
    customer.refresh_from_db()
    assert (customer.confirmed, customer.name, customer.custom_data) == (True, "Nine", {})


def test_mistakes_about_a_customer_are_told_at_their_fields(staff: Client, organisation: Organisation) -> None:
    Customer.objects.create(organisation=organisation, external_id="cus_1")
    for field, value in (
        ("external_id", ""),
        ("external_id", "cus_1"),
        ("external_id", "x" * 100_000),
        ("email", "nobody"),
        ("timezone", "Mars/Base"),
        ("custom_data", "[]"),
        ("custom_data", '{"a": NaN}'),
        ("custom_data", '{"a": "\\u0000"}'),
        ("name", "a\0b"),
    ):
        assert list(errors(staff.post(f"{CUSTOMERS}add/", {"external_id": "cus_2", field: value}))) == [field]
    for field in ("external_id", "name", "email", "timezone", "custom_data"):
        for value in HOSTILE:
            posted = {"external_id": "cus_3", field: value}
            assert staff.post(f"{CUSTOMERS}add/", posted).status_code in (200, 302), (field, value[:20])


def test_customers_are_found_by_id_and_name(staff: Client, organisation: Organisation) -> None:
    for external_id, name in (("cus_1", "Acme"), ("cus_2", "Birch"), ("cus_3", "")):
        Customer.objects.create(organisation=organisation, external_id=external_id, name=name)
    for asked, found in (("cus_2", ["cus_2"]), ("acme", ["cus_1"]), ("cus", ["cus_1", "cus_2", "cus_3"]), ("none", [])):
        listed = staff.get(CUSTOMERS, {"q": asked}).context["cl"].result_list
        assert [customer.external_id for customer in listed] == found
    for asked in HOSTILE:
        assert staff.get(CUSTOMERS, {"q": asked[:5_000]}).status_code == 200


def test_a_secret_is_shown_once_and_works(staff: Client, client: Client, compute: UsageEvent) -> None:
    posted = {"name": "meter", "scopes": ["ingest", "read"], "expires_on": "2099-12-31"}
    page = staff.post(f"{KEYS}add/", posted)
    secret = page.context["secret"]
    assert secret in page.content.decode()
    assert "no-store" in page.headers["Cache-Control"]
    key = ApiKey.objects.get()
    assert (key.name, key.scopes, str(key.expires_at)[:19]) == ("meter", ["ingest", "read"], "2099-12-31 23:59:59")

    for path in (KEYS, reverse("admin:customers_apikey_change", args=[key.pk]), f"{KEYS}{key.pk}/history/"):
        assert secret not in staff.get(path).content.decode()
    headers = {"organisation": str(compute.organisation.key), "x-api-key": secret}

    def send() -> int:
        answer = client.post("/usage/compute_hours", record(), content_type="application/json", headers=headers)
        return answer.status_code

    assert send() == 201

    revoke = reverse("admin:customers_apikey_revoke", args=[key.pk])
    assert staff.get(revoke).status_code == 403
    staff.post(revoke)
    assert send() == 401
    revoked_at = ApiKey.objects.get().revoked_at
    staff.post(KEYS, {"action": "revoke", "_selected_action": [key.pk]})
    assert ApiKey.objects.get().revoked_at == revoked_at


def test_mistakes_about_a_key_are_told_and_issue_none(staff: Client) -> None:
    good = {"name": "meter", "scopes": ["ingest"]}
    for field, value in (
        ("name", ""),
        ("name", "x" * 201),
        ("scopes", []),
        ("scopes", ["root"]),
        ("expires_on", "2001-01-01"),
        ("expires_on", "9999-12-31"),
        ("expires_on", "soon"),
    ):
        assert list(errors(staff.post(f"{KEYS}add/", {**good, field: value}))) == [field]
    assert not ApiKey.objects.exists()
    for field in good:
        for value in HOSTILE:
            assert staff.post(f"{KEYS}add/", {**good, field: value}).status_code == 200


def test_a_key_is_neither_changed_nor_deleted(staff: Client) -> None:
    staff.post(f"{KEYS}add/", {"name": "meter", "scopes": ["ingest"]})
    key = ApiKey.objects.get()
    change = reverse("admin:customers_apikey_change", args=[key.pk])
    assert staff.post(change, {"name": "other", "scopes": ["manage"]}).status_code == 403
    assert staff.post(f"{KEYS}{key.pk}/delete/", {"post": "yes"}).status_code == 403
    key.refresh_from_db()
    assert (key.name, key.scopes) == ("meter", ["ingest"])


def test_staff_may_rename_their_organisation_but_add_none(staff: Client, organisation: Organisation) -> None:
    page = reverse("admin:customers_organisation_change", args=[organisation.pk])
    assert str(organisation.key) in staff.get(page).content.decode()
    assert staff.post(page, {"name": "Acme Ltd", "timezone": "Asia/Tokyo"}).status_code == 302
    organisation.refresh_from_db()
    assert (organisation.name, organisation.timezone) == ("Acme Ltd", "Asia/Tokyo")
    assert staff.get("/admin/customers/organisation/add/").status_code == 403
    assert staff.get("/admin/customers/membership/add/").status_code == 403
    assert staff.get("/admin/auth/user/").status_code == 403


def test_a_superuser_adds_organisations_people_and_memberships(organisation: Organisation) -> None:
    root = superuser()
    assert root.post("/admin/customers/organisation/add/", {"name": "Second", "timezone": "UTC"}).status_code == 302
    second = Organisation.objects.get(name="Second")
    password = {"usable_password": "true", "password1": "a-long-passw0rd", "password2": "a-long-passw0rd"}
    none = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    assert root.post("/admin/auth/user/add/", {"username": "new", **password, **none}).status_code == 302
    user = User.objects.get(username="new")
    root.post("/admin/customers/membership/add/", {"organisation": second.pk, "user": user.pk})
    membership = Membership.objects.get(user=user)
    assert membership.organisation == second
    for path in ("/admin/auth/user/", f"/admin/auth/user/{user.pk}/change/", f"/admin/auth/user/{user.pk}/password/"):
        assert root.get(path).status_code == 200
    assert root.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"}).status_code == 403
    root.post(f"/admin/customers/membership/{membership.pk}/delete/", {"post": "yes"})
    assert not Membership.objects.filter(user=user).exists()
