"""From the customer ids that senders use to customers, with a per-process memory of what was found."""

from collections.abc import Iterable

from django.db import transaction

from customers.models import Customer

REMEMBERED = 200_000

# (organisation id, external id) -> customer id. Never stale: an external id never changes its customer,
# and no customer is ever deleted.
_known: dict[tuple[int, str], int] = {}


def resolve_customers(organisation_id: int, external_ids: Iterable[str], *, create: bool = True) -> dict[str, int]:
    """Return the customer's id for each external id; unknown ones are created, unconfirmed, or left out.

    Creating is a transaction of its own, committed before this process remembers it, so that a caller's rollback
    cannot leave a memory of a customer that is not there.
    """
    found: dict[str, int] = {}
    unknown: list[str] = []
    for external_id in set(external_ids):
        customer_id = _known.get((organisation_id, external_id))
        if customer_id is None:
            unknown.append(external_id)
        else:
            found[external_id] = customer_id
    if unknown:
        stored = _stored(organisation_id, unknown)
        missing = [external_id for external_id in unknown if external_id not in stored]
        if missing and create:
            _create(organisation_id, missing)
            stored |= _stored(organisation_id, missing)
        _remember(organisation_id, stored)
        found |= stored
    return found


def _stored(organisation_id: int, external_ids: list[str]) -> dict[str, int]:
    rows = Customer.objects.filter(organisation_id=organisation_id, external_id__in=external_ids)
    return dict(rows.values_list("external_id", "id"))


def _create(organisation_id: int, external_ids: list[str]) -> None:
    # In key order: two requests that create the same customers must not wait for each other in a circle.
    with transaction.atomic():
        Customer.objects.bulk_create(
            [
                Customer(organisation_id=organisation_id, external_id=external_id, confirmed=False)
                for external_id in sorted(external_ids)
            ],
            ignore_conflicts=True,
        )


def _remember(organisation_id: int, customers: dict[str, int]) -> None:
    if transaction.get_connection().in_atomic_block:
        return
    if len(_known) + len(customers) > REMEMBERED:
        _known.clear()
    for external_id, customer_id in customers.items():
        _known[organisation_id, external_id] = customer_id
