"""Aliases: one id leads to one customer, also when two people give it away at once."""

import pytest
from django.core.exceptions import ValidationError

from customers import resolution
from customers.models import Customer, CustomerAlias, Organisation
from customers.registry import change_customer, enter_customer
from customers.resolution import resolve_customers
from tests.conftest import record, take_in
from tests.threads import run_together
from usage.models import UsageEvent, UsageRecord


def test_usage_by_an_alias_belongs_to_its_customer(compute: UsageEvent) -> None:
    customer, new = enter_customer(compute.organisation_id, "cus_1", aliases=["old"])
    compute.organisation.refresh_from_db()
    take_in(compute, record("old"), record("cus_1"))

    assert new
    assert list(UsageRecord.objects.values_list("customer_id", flat=True)) == [customer.pk] * 2
    assert Customer.objects.count() == 1


def test_aliases_are_replaced_as_a_whole(organisation: Organisation) -> None:
    customer, _ = enter_customer(organisation.pk, "cus_1", aliases=["a", "b"])
    kept = CustomerAlias.objects.get(alias="b").pk
    change_customer(customer.pk, aliases=["b", "c"])

    assert list(CustomerAlias.objects.order_by("alias").values_list("alias", flat=True)) == ["b", "c"]
    assert CustomerAlias.objects.get(alias="b").pk == kept
    change_customer(customer.pk, name="Named")
    assert CustomerAlias.objects.count() == 2
    change_customer(customer.pk, aliases=[])
    assert not CustomerAlias.objects.exists()


def test_an_alias_of_another_organisation_is_free(organisation: Organisation) -> None:
    other = Organisation.objects.create(name="Other")
    enter_customer(organisation.pk, "cus_1", aliases=["a"])
    enter_customer(other.pk, "a", aliases=["cus_1"])

    assert resolve_customers(organisation.pk, ["a"]) != resolve_customers(other.pk, ["a"])


def test_two_who_give_one_alias_away_at_once(organisation: Organisation) -> None:
    for name in ("a", "b"):
        enter_customer(organisation.pk, name)

    refusals: list[dict[str, list[str]]] = []

    def give(name: str) -> None:
        try:
            change_customer(Customer.objects.get(external_id=name).pk, aliases=["shared"])
        except ValidationError as error:
            refusals.append(error.message_dict)

    run_together(lambda: give("a"), lambda: give("b"))
    assert refusals == [{"aliases": ["'shared' is an alias of another customer"]}]
    assert CustomerAlias.objects.count() == 1


def test_a_refused_change_changes_nothing(organisation: Organisation) -> None:
    customer, _ = enter_customer(organisation.pk, "cus_1", aliases=["a"], name="Acme")
    with pytest.raises(ValidationError):
        change_customer(customer.pk, aliases=["b"], email="nobody")
    with pytest.raises(ValidationError):
        change_customer(customer.pk, aliases=["cus_1"], name="New")

    customer.refresh_from_db()
    assert (customer.name, customer.email, [alias.alias for alias in customer.aliases.all()]) == ("Acme", "", ["a"])


def test_an_alias_given_while_usage_looks_for_its_customer(
    organisation: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer, _ = enter_customer(organisation.pk, "cus_1")
    look = resolution._stored
    looked: list[dict[str, int]] = []

    def look_and_be_overtaken(organisation_id: int, sent_ids: list[str]) -> dict[str, int]:
        found = look(organisation_id, sent_ids)
        if not looked:
            looked.append(dict(found))
            change_customer(customer.pk, aliases=["old"])
        return found

    monkeypatch.setattr(resolution, "_stored", look_and_be_overtaken)
    found = resolve_customers(organisation.pk, ["old", "new"])

    assert looked == [{}]
    assert found == {"old": customer.pk, "new": Customer.objects.get(external_id="new").pk}
    assert Customer.objects.count() == 2
