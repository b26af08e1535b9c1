"""/api/customers/: who is billed, by the ids that senders use."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client

from customers.models import Customer, CustomerAlias, Organisation
from tests.conftest import record, take_in
from usage.models import UsageEvent

LIST = "/api/customers/"


@pytest.fixture
def patch(client: Client, headers: dict[str, str]) -> Callable[[str, Any], Any]:
    def patch_json(path: str, body: Any) -> Any:
        return client.patch(path, json.dumps(body), content_type="application/json", headers=headers)

    return patch_json


def test_a_customer_is_entered_read_and_changed(
    client: Client, headers: dict[str, str], post: Any, patch: Any, organisation: Organisation
) -> None:
    details = {"name": "Acme", "email": "a@example.com", "timezone": "Europe/Berlin"}
    entered = post(
        LIST, '{"external_id":"cus_1","aliases":["b","a"],"custom_data":{"rate":0.10},' + json.dumps(details)[1:]
    )
    assert entered.status_code == 201, entered.content
    assert b'"rate":0.10' in entered.content
    customer = Customer.objects.get()
    expected = {
        "external_id": "cus_1",
        **details,
        "aliases": ["a", "b"],
        "custom_data": {"rate": 0.1},
        "confirmed": True,
        "archived": False,
        "created_at": customer.created_at.isoformat().replace("+00:00", "Z"),
    }
    assert entered.json() == expected
    assert client.get(f"{LIST}cus_1/", headers=headers).json() == expected
    assert client.get(LIST, headers=headers).json() == {"next": None, "previous": None, "results": [expected]}

    changed = patch(f"{LIST}cus_1/", {"name": "Acme Ltd", "aliases": ["c", "a"], "archived": True})
    assert changed.status_code == 200, changed.content
    assert changed.json() == {**expected, "name": "Acme Ltd", "aliases": ["a", "c"], "archived": True}
    assert patch(f"{LIST}cus_1/", {"archived": False}).json()["archived"] is False


def test_what_usage_named_first_is_completed(post: Any, patch: Any, compute: UsageEvent) -> None:
    take_in(compute, record("cus_1"), record("cus_2"))

    completed = post(LIST, {"external_id": "cus_1", "name": "Acme"})
    assert (completed.status_code, completed.json()["name"], completed.json()["confirmed"]) == (200, "Acme", True)
    again = post(LIST, {"external_id": "cus_1", "name": "Other"})
    assert (again.status_code, again.json()["detail"]) == (
        400,
        "external_id: a customer with the id 'cus_1' exists already",
    )
    assert patch(f"{LIST}cus_2/", {"name": "B"}).json()["confirmed"] is False
    assert patch(f"{LIST}cus_2/", {"confirmed": True}).json()["confirmed"] is True
    assert Customer.objects.count() == 2


STRANGE = ["a/b", "a/", "/", "a b", "é", "%", "%2F", "a?b#c", "x\ny", "'\";--", ".json", "😀", "a\\b", "+", "&="]


@pytest.mark.parametrize("external_id", STRANGE)
def test_any_external_id_has_an_address(client: Client, headers: dict[str, str], post: Any, external_id: str) -> None:
    assert post(LIST, {"external_id": external_id}).status_code == 201

    answer = client.get(f"{LIST}{quote(external_id, safe='')}/", headers=headers)
    assert (answer.status_code, answer.json()["external_id"]) == (200, external_id)


@pytest.mark.parametrize("name", ["%00", "a%00b", "nobody", "%ff", "a" * 5_000])
def test_unknown_customers_are_not_found(
    client: Client, headers: dict[str, str], patch: Any, organisation: Organisation, name: str
) -> None:
    assert client.get(f"{LIST}{name}/", headers=headers).status_code == 404
    assert patch(f"{LIST}{name}/", {"name": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "external_id"),
        ({"external_id": ""}, "external_id"),
        ({"external_id": "x" * 256}, "external_id"),
        ({"external_id": "a\0"}, "external_id"),
        ({"external_id": "new", "email": "nobody"}, "email"),
        ({"external_id": "new", "timezone": "Mars/Base"}, "timezone"),
        ({"external_id": "new", "custom_data": []}, "custom_data"),
        ({"external_id": "new", "custom_data": {"a": "\0"}}, "custom_data"),
        ({"external_id": "new", "custom_data": {"a": 10**70}}, "custom_data"),
        ({"external_id": "new", "colour": "red"}, "colour"),
        ({"external_id": "new", "confirmed": False}, "confirmed"),
        ({"external_id": "new", "aliases": "a"}, "aliases"),
        ({"external_id": "new", "aliases": [""]}, "aliases.0"),
        ({"external_id": "new", "aliases": [str(number) for number in range(101)]}, "aliases"),
        ({"external_id": "new", "aliases": ["known"]}, "aliases"),
        ({"external_id": "new", "aliases": ["alias"]}, "aliases"),
        ({"external_id": "new", "aliases": ["new"]}, "aliases"),
        ({"external_id": "alias"}, "external_id"),
        ({"external_id": "known"}, "external_id"),
    ],
)
def test_what_is_refused_leaves_no_trace(post: Any, organisation: Organisation, body: Any, field: str) -> None:
    known = Customer.objects.create(organisation=organisation, external_id="known")
    CustomerAlias.objects.create(organisation=organisation, customer=known, alias="alias")
    before = [list(model.objects.order_by("pk").values()) for model in (Customer, CustomerAlias, Organisation)]

    answer = post(LIST, body)

    assert answer.status_code == 400, answer.content
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert [list(model.objects.order_by("pk").values()) for model in (Customer, CustomerAlias, Organisation)] == before


def test_the_external_id_is_fixed(patch: Any, organisation: Organisation) -> None:
    Customer.objects.create(organisation=organisation, external_id="a")
    answer = patch(f"{LIST}a/", {"external_id": "b"})

    assert (answer.status_code, answer.json()["detail"]) == (400, "external_id: this field is read-only")


def test_lists_are_filtered_and_paged_by_id(
    client: Client, headers: dict[str, str], organisation: Organisation
) -> None:
    for number in range(7):
        Customer.objects.create(organisation=organisation, external_id=f"c{number}", confirmed=number != 3)
    CustomerAlias.objects.create(organisation=organisation, customer=Customer.objects.get(external_id="c5"), alias="x")

    def listed(query: str) -> list[str]:
        found, link = [], f"{LIST}?{query}"
        while link:
            answer = client.get(link, headers=headers).json()
            found += [row["external_id"] for row in answer["results"]]
            link = answer["next"]
        return found

    assert listed("page_size=3") == [f"c{number}" for number in range(7)]
    assert listed("confirmed=false") == ["c3"]
    assert listed("archived=true") == []
    assert listed("external_id=x") == ["c5"]
    for query in ("colour=red", "confirmed=maybe", "external_id=%00", "page_size=501"):
        assert client.get(f"{LIST}?{query}", headers=headers).status_code == 400
    assert client.get(f"{LIST}?cursor=cD0lMDA%3D", headers=headers).status_code == 404
