"""Archived customers whose systems go on: their usage is taken all the same, and people must see it."""

from collections.abc import Iterable

from django.db.models import Exists, OuterRef

from customers.models import Customer


def still_sending(customers: Iterable[Customer]) -> set[int]:
    """Return the ids of those that are archived and have usage of a later time.

    Records lie above this app: it knows them by the names of their relations only. One look per customer and usage
    event, through the index (usage_event, customer, timestamp).
    """
    archived = [customer.pk for customer in customers if customer.archived_at is not None]
    if not archived:
        return set()
    later = Customer.objects.filter(
        pk=OuterRef("pk"),
        records__usage_event__organisation_id=OuterRef("organisation_id"),
        records__timestamp__gt=OuterRef("archived_at"),
        records__voided_at=None,
    )
    # In the list of columns, so that it is asked customer by customer and stops at the first record.
    asked = Customer.objects.filter(pk__in=archived).annotate(sends=Exists(later))
    return {pk for pk, sends in asked.values_list("pk", "sends") if sends}
