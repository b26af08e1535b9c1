"""Customers, API keys, organisations and staff in the admin."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils.timezone import now

from customers.archived import still_sending
from customers.models import ApiKey, Customer, CustomerAlias, Membership, Organisation
from tests.conftest import record, take_in
from tests.people import HOSTILE, staff_of, superuser
from usage.models import UsageEvent, UsageRecord

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


# --- aliases, confirming, archiving -----------------------------------------------------------------------------------


def page_of(customer: Customer) -> str:
    return reverse("admin:customers_customer_change", args=[customer.pk])


def aliases_of(customer: Customer) -> list[str]:
    return sorted(customer.aliases.values_list("alias", flat=True))


def test_aliases_are_edited_one_a_line_and_usage_finds_the_customer(staff: Client, compute: UsageEvent) -> None:
    staff.post(f"{CUSTOMERS}add/", {"external_id": "cus_1", "aliases": "old-1\r\n  old-2 \r\n\r\nold-1"})
    customer = Customer.objects.get()
    assert aliases_of(customer) == ["old-1", "old-2"]

    take_in(compute, record("old-2"))
    assert Customer.objects.count() == 1
    assert customer.records.count() == 1

    assert staff.get(page_of(customer)).context["form"]["aliases"].value() == "old-1\nold-2"
    staff.post(page_of(customer), {"name": "One", "aliases": "old-2\nnew"})
    assert aliases_of(customer) == ["new", "old-2"]
    assert [found.external_id for found in staff.get(CUSTOMERS, {"q": "new"}).context["cl"].result_list] == ["cus_1"]
    staff.post(page_of(customer), {"name": "One", "aliases": ""})
    assert aliases_of(customer) == []


def test_an_alias_that_systems_send_with_spaces_stays_as_they_send_it(staff: Client, compute: UsageEvent) -> None:
    customer = Customer.objects.create(organisation=compute.organisation, external_id="cus_1")
    CustomerAlias.objects.create(organisation=compute.organisation, customer=customer, alias=" a  b\n")
    assert staff.get(page_of(customer)).context["form"]["aliases"].value() == "a b"
    staff.post(page_of(customer), {"name": "One", "aliases": "a b"})
    staff.post(page_of(customer), {"name": "One", "aliases": "a b\nc"})
    assert aliases_of(customer) == [" a  b\n", "c"]


def test_aliases_that_cannot_be_are_told_and_change_nothing(staff: Client, organisation: Organisation) -> None:
    first, second = (Customer.objects.create(organisation=organisation, external_id=name) for name in ("one", "two"))
    CustomerAlias.objects.create(organisation=organisation, customer=second, alias="taken")
    for aliases in ("taken", "fine\ntwo", "x" * 256, "\n".join(map(str, range(101))), "a\0b", "x" * 100_000):
        assert list(errors(staff.post(page_of(first), {"name": "changed", "aliases": aliases}))) == ["aliases"], aliases
    for value in HOSTILE:
        assert staff.post(page_of(second), {"aliases": value}).status_code in (200, 302), value[:20]
    first.refresh_from_db()
    assert (first.name, aliases_of(first)) == ("", [])


def test_unconfirmed_customers_are_found_and_confirmed(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("a"), record("b"), record("c"))
    page = staff.get(CUSTOMERS, {"state": "unconfirmed"})
    assert len(page.context["cl"].result_list) == 3
    assert page.content.decode().count('tb-badge-warn">Unconfirmed') == 3
    first, second, third = Customer.objects.order_by("external_id")
    confirm = reverse("admin:customers_customer_confirm", args=[first.pk])
    assert staff.get(confirm).status_code == 403
    staff.post(confirm)
    staff.post(CUSTOMERS, {"action": "confirm", "_selected_action": [second.pk]})
    assert list(Customer.objects.filter(confirmed=True).order_by("pk")) == [first, second]
    assert list(staff.get(CUSTOMERS, {"state": "unconfirmed"}).context["cl"].result_list) == [third]
    for value in HOSTILE:
        assert staff.get(CUSTOMERS, {"state": value[:5_000]}).status_code in (200, 302)


def test_an_archived_customer_that_still_sends_is_flagged(staff: Client, compute: UsageEvent) -> None:
    take_in(compute, record("old", "2025-06-17T00:00:00Z"), record("gone", "2025-06-17T00:00:00Z"))
    old, gone = Customer.objects.get(external_id="old"), Customer.objects.get(external_id="gone")
    archive = reverse("admin:customers_customer_archive", args=[old.pk])
    assert staff.get(archive).status_code == 403
    staff.post(archive, {"archived": "yes"})
    staff.post(CUSTOMERS, {"action": "archive", "_selected_action": [gone.pk]})
    assert Customer.objects.filter(archived_at=None).count() == 0
    assert "Archived, still sending" not in staff.get(CUSTOMERS).content.decode()

    take_in(compute, record("old", (now() + timedelta(minutes=1)).isoformat()))

    assert still_sending(Customer.objects.all()) == {old.pk}
    assert staff.get(CUSTOMERS).content.decode().count("Archived, still sending") == 1
    assert "Its systems still send" in staff.get(page_of(old)).content.decode()
    assert "Its systems still send" not in staff.get(page_of(gone)).content.decode()
    assert staff.get("/admin/usage/usagerecord/").content.decode().count("Archived customer") == 1
    earlier, later = UsageRecord.objects.filter(customer=old).order_by("timestamp")
    for stored, flagged in ((earlier, False), (later, True)):
        text = staff.get(reverse("admin:usage_usagerecord_change", args=[stored.pk])).content.decode()
        assert ("Usage of an archived customer" in text) is flagged

    staff.post(archive, {"archived": "no"})
    old.refresh_from_db()
    assert old.archived_at is None
    assert still_sending(Customer.objects.all()) == set()


def test_customers_of_another_organisation_are_not_touched(compute: UsageEvent) -> None:
    take_in(compute, record("cus_1"))
    customer = Customer.objects.get()
    stranger = staff_of(Organisation.objects.create(name="Other"), name="stranger")
    for name in ("archive", "confirm"):
        page = reverse(f"admin:customers_customer_{name}", args=[customer.pk])
        assert stranger.post(page, {"archived": "yes"}).status_code == 404
        stranger.post(CUSTOMERS, {"action": name, "_selected_action": [customer.pk]})
    stranger.post(page_of(customer), {"aliases": "x"})
    customer.refresh_from_db()
    assert (customer.archived_at, customer.confirmed, aliases_of(customer)) == (None, False, [])


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
