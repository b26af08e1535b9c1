"""The register of customers: entered, completed, changed, archived, and the other ids that they are known by."""

import logging
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.timezone import now

from customers.models import Customer, CustomerAlias, Organisation

log = logging.getLogger(__name__)

MAX_ALIASES = 100


@transaction.atomic
def enter_customer(
    organisation_id: int, external_id: str, *, aliases: Iterable[str] = (), **details: Any
) -> tuple[Customer, bool]:
    """Enter a customer, confirmed; returns it and whether it is new.

    One that only usage has named so far is completed. Raises ValidationError by field for an id that is taken, by a
    confirmed customer or as an alias, and for details that cannot be kept; then nothing was changed.
    """
    _lock_ids(organisation_id)
    known = (
        Customer.objects.select_for_update().filter(organisation_id=organisation_id, external_id=external_id).first()
    )
    if known is not None and known.confirmed:
        raise ValidationError({"external_id": f"a customer with the id '{external_id}' exists already"})
    if CustomerAlias.objects.filter(organisation_id=organisation_id, alias=external_id).exists():
        raise ValidationError({"external_id": f"'{external_id}' is an alias of another customer"})
    customer = known or Customer(organisation_id=organisation_id, external_id=external_id)
    _fill(customer, {**details, "confirmed": True})
    _set_aliases(customer, set(aliases) or None)
    log.info("entered customer=%d new=%s", customer.pk, known is None)
    return customer, known is None


@transaction.atomic
def change_customer(
    customer_id: int, *, aliases: Iterable[str] | None = None, archived: bool | None = None, **details: Any
) -> Customer:
    """Change details of a customer, its aliases (as a whole), or whether it is archived; what is None stays.

    Raises ValidationError by field; then nothing was changed.
    """
    organisation_id = Customer.objects.values_list("organisation_id", flat=True).get(pk=customer_id)
    if aliases is not None:
        _lock_ids(organisation_id)
    customer = Customer.objects.select_for_update().get(pk=customer_id)
    if archived is not None and archived != (customer.archived_at is not None):
        customer.archived_at = now() if archived else None
    _fill(customer, details)
    _set_aliases(customer, None if aliases is None else set(aliases))
    log.info("changed customer=%d fields=%s", customer.pk, "+".join(details))
    return customer


def _lock_ids(organisation_id: int) -> None:
    """Nobody else gives ids to the organisation's customers until the transaction ends.

    Creating a customer for its usage waits too: its foreign key locks this row against FOR UPDATE.
    """
    Organisation.objects.select_for_update().get(pk=organisation_id)


def _fill(customer: Customer, details: dict[str, Any]) -> None:
    for name, value in details.items():
        setattr(customer, name, value)
    customer.full_clean(exclude={"organisation"}, validate_unique=False, validate_constraints=False)
    customer.save()


def _set_aliases(customer: Customer, aliases: set[str] | None) -> None:
    """Make these the customer's aliases; what is an alias already is left alone, so that its row is not churned."""
    if aliases is None:
        return
    _check_aliases(customer, aliases)
    CustomerAlias.objects.filter(customer=customer).exclude(alias__in=aliases).delete()
    known = set(CustomerAlias.objects.filter(customer=customer).values_list("alias", flat=True))
    CustomerAlias.objects.bulk_create(
        CustomerAlias(organisation_id=customer.organisation_id, customer=customer, alias=alias)
        for alias in sorted(aliases - known)
    )


def _check_aliases(customer: Customer, aliases: set[str]) -> None:
    if len(aliases) > MAX_ALIASES:
        raise ValidationError({"aliases": f"at most {MAX_ALIASES} aliases were expected, got {len(aliases)}"})
    for alias in sorted(aliases):
        if not 0 < len(alias) <= 255 or "\0" in alias:
            raise ValidationError({"aliases": "aliases of 1 to 255 characters, without null characters, were expected"})
    others = Customer.objects.filter(organisation_id=customer.organisation_id)
    ids = others.filter(external_id__in=aliases).order_by("external_id").values_list("external_id", flat=True)
    if taken := ids.first():
        raise ValidationError({"aliases": f"'{taken}' is the id of a customer"})
    elsewhere = CustomerAlias.objects.filter(organisation_id=customer.organisation_id, alias__in=aliases)
    if other := elsewhere.exclude(customer=customer).order_by("alias").first():
        raise ValidationError({"aliases": f"'{other.alias}' is an alias of another customer"})
