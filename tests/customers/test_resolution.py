"""Resolution: external ids lead to customers, new ones are created once, and memory never lies."""

import random
from collections.abc import Callable

import pytest
from django.db import IntegrityError, transaction

from customers import resolution
from customers.models import Customer, Organisation
from customers.resolution import resolve_customers
from tests.threads import run_together


def remembered() -> set[str]:
    return {external_id for _, external_id in resolution._known}


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
    found = resolve_customers(organisation.pk, ["a", "b"])

    with django_assert_num_queries(0):  # type: ignore[attr-defined]
        assert resolve_customers(organisation.pk, ["b", "a"]) == found
    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        resolution._known.clear()
        assert resolve_customers(organisation.pk, ["b", "a"]) == found


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
        assert "gone" in resolve_customers(organisation.pk, ["gone"])
        raise ZeroDivisionError

    assert not Customer.objects.exists()
    assert remembered() == set()
    assert resolve_customers(organisation.pk, ["gone"]) == {"gone": Customer.objects.get().pk}
    assert remembered() == {"gone"}


def test_memory_is_bounded(organisation: Organisation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "REMEMBERED", 3)

    resolve_customers(organisation.pk, ["a", "b"])
    resolve_customers(organisation.pk, ["c", "d"])

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
