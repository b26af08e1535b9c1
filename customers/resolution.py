"""From the customer ids that senders use to customers, with a per-process memory of what was found."""

from collections.abc import Iterable
from contextlib import suppress

from django.db import transaction

from customers.models import Customer, CustomerAlias

REMEMBERED = 200_000

# (organisation id, revision of its aliases) -> the sender's id -> customer id. An external id never changes its
# customer and no customer is ever deleted; an alias may move, and then the revision moves too.
_known: dict[tuple[int, int], dict[str, int]] = {}


def resolve_customers(
    organisation_id: int, sent_ids: Iterable[str], *, aliases_revision: int | None = None, create: bool = True
) -> dict[str, int]:
    """Return the customer's id for each id that senders use: external id or alias.

    Unknown ones are created, unconfirmed, or left out if `create` is false. With a revision of the aliases this
    process's memory of that revision is used. Creating is a transaction of its own, committed before it is remembered,
    so that a caller's rollback cannot leave a memory of a customer that is not there.
    """
    wanted = set(sent_ids)
    known = _known.get((organisation_id, aliases_revision or 0), {})
    with suppress(KeyError):  # mostly all are known
        return {sent_id: known[sent_id] for sent_id in wanted}
    found = {sent_id: known[sent_id] for sent_id in wanted if sent_id in known}
    if unknown := list(wanted - found.keys()):
        stored = _stored(organisation_id, unknown)
        while create and (missing := [sent_id for sent_id in unknown if sent_id not in stored]):
            _create(organisation_id, missing)
            stored |= _stored(organisation_id, missing)
        if aliases_revision is not None:
            _remember(organisation_id, aliases_revision, stored)
        found |= stored
    return found


def _stored(organisation_id: int, sent_ids: list[str]) -> dict[str, int]:
    aliases = CustomerAlias.objects.filter(organisation_id=organisation_id, alias__in=sent_ids)
    own = Customer.objects.filter(organisation_id=organisation_id, external_id__in=sent_ids)
    return dict(aliases.values_list("alias", "customer_id")) | dict(own.values_list("external_id", "id"))


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
        # Who gives an alias waits from here on, for the new rows lock their organisation (customers/registry.py). One
        # that was given meanwhile is seen, and taken instead of a second customer of that id.
        if CustomerAlias.objects.filter(organisation_id=organisation_id, alias__in=external_ids).exists():
            transaction.set_rollback(True)


def _remember(organisation_id: int, aliases_revision: int, customers: dict[str, int]) -> None:
    if not customers or transaction.get_connection().in_atomic_block:
        return
    if sum(map(len, list(_known.values()))) + len(customers) > REMEMBERED:
        _known.clear()
    _known.setdefault((organisation_id, aliases_revision), {}).update(customers)
