"""Resolution: external ids lead to customers, new ones are created once, and memory never lies."""

import random
from collections.abc import Callable

import pytest
from django.db import IntegrityError, transaction

from customers import resolution
from customers.models import Customer, CustomerAlias, Organisation
from customers.resolution import resolve_customers
from tests.threads import run_together


def remembered() -> set[str]:
    return {sent_id for known in resolution._known.values() for sent_id in known}


def test_known_customers_are_found_and_unknown_ones_created_unconfirmed(organisation: Organisation) -> None:
    known = Customer.objects.create(organisation=organisation, external_id="known", name="K")

    found = resolve_customers(organisation.pk, ["known", "new", "known", "new"])

    assert found == {"known": known.pk, "new": Customer.objects.get(external_id="new").pk}
    assert list(Customer.objects.order_by("id").values_list("external_id", "confirmed")) == [
        ("known", True),
        ("new", False),
    ]
    assert resolve_customers(organisation.pk, []) == {}


def test_what_is_remembered_needs_no_query(
    organisation: Organisation, django_assert_num_queries: Callable[..., object]
) -> None:
    found = resolve_customers(organisation.pk, ["a", "b"], aliases_revision=1)

    with django_assert_num_queries(0):  # type: ignore[attr-defined]
        assert resolve_customers(organisation.pk, ["b", "a"], aliases_revision=1) == found
    for revision in (2, None):
        with django_assert_num_queries(2):  # type: ignore[attr-defined]
            assert resolve_customers(organisation.pk, ["b", "a"], aliases_revision=revision) == found
    with django_assert_num_queries(2):  # type: ignore[attr-defined]
        resolution._known.clear()
        assert resolve_customers(organisation.pk, ["b", "a"], aliases_revision=1) == found


def test_an_alias_leads_to_its_customer_and_an_external_id_goes_before_an_alias(organisation: Organisation) -> None:
    one, two = (Customer.objects.create(organisation=organisation, external_id=name) for name in ("one", "two"))
    other = Organisation.objects.create(name="Other")
    for alias in ("uno", "two"):
        CustomerAlias.objects.create(organisation=organisation, customer=one, alias=alias)

    assert resolve_customers(organisation.pk, ["one", "uno", "two", "UNO"], create=False) == {
        "one": one.pk,
        "uno": one.pk,
        "two": two.pk,
    }
    assert resolve_customers(other.pk, ["uno"], create=False) == {}


def test_an_alias_that_moves_is_looked_up_anew(organisation: Organisation) -> None:
    one, two = (Customer.objects.create(organisation=organisation, external_id=name) for name in ("one", "two"))
    alias = CustomerAlias.objects.create(organisation=organisation, customer=one, alias="x")
    organisation.refresh_from_db()
    before = organisation.aliases_revision
    assert resolve_customers(organisation.pk, ["x"], aliases_revision=before) == {"x": one.pk}

    alias.customer = two
    alias.save()

    organisation.refresh_from_db()
    assert organisation.aliases_revision > before
    assert resolve_customers(organisation.pk, ["x"], aliases_revision=organisation.aliases_revision) == {"x": two.pk}


def test_unknown_ids_are_left_out_where_none_is_to_be_created(organisation: Organisation) -> None:
    assert resolve_customers(organisation.pk, ["new"], create=False) == {}
    assert not Customer.objects.exists()


def test_one_id_means_another_customer_in_another_organisation(organisation: Organisation) -> None:
    other = Organisation.objects.create(name="Other")

    here, there = resolve_customers(organisation.pk, ["a"]), resolve_customers(other.pk, ["a"])

    assert here["a"] != there["a"]
    assert Customer.objects.get(pk=there["a"]).organisation == other
    assert resolve_customers(organisation.pk, ["a"]) == here


def test_ids_are_compared_byte_by_byte(organisation: Organisation) -> None:
    names = ["a", "A", "a ", "é", "e\u0301", "1", "01", "ß", "ss", "\u200b", "\ufeff"]

    assert len(set(resolve_customers(organisation.pk, names).values())) == len(names)


def test_a_caller_s_rollback_leaves_no_memory(organisation: Organisation) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert "gone" in resolve_customers(organisation.pk, ["gone"], aliases_revision=1)
        raise ZeroDivisionError

    assert not Customer.objects.exists()
    assert remembered() == set()
    found = resolve_customers(organisation.pk, ["gone"], aliases_revision=1)
    assert found == {"gone": Customer.objects.get().pk}
    assert remembered() == {"gone"}


def test_memory_is_bounded(organisation: Organisation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "REMEMBERED", 3)

    resolve_customers(organisation.pk, ["a", "b"], aliases_revision=1)
    resolve_customers(organisation.pk, ["c", "d"], aliases_revision=1)

    assert remembered() == {"c", "d"}


def test_many_at_once_agree_on_one_customer_for_each_id(organisation: Organisation) -> None:
    names = [f"cus_{number:03}" for number in range(150)]
    answers: list[dict[str, int]] = []

    def resolver(seed: int) -> Callable[[], None]:
        shuffled = random.Random(seed).sample(names, 100)
        return lambda: answers.append(resolve_customers(organisation.pk, shuffled))

    run_together(*(resolver(seed) for seed in range(8)))

    stored = dict(Customer.objects.values_list("external_id", "id"))
    assert len(stored) == Customer.objects.count()
    assert all(answer[name] == stored[name] for answer in answers for name in answer)
    assert [len(answer) for answer in answers] == [100] * 8


def test_an_organisation_that_is_not_there_gets_no_customers(organisation: Organisation) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        resolve_customers(organisation.pk + 1, ["a"])
        transaction.get_connection().check_constraints()

    assert not Customer.objects.exists()
