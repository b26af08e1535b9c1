"""The customers that a question names: by external id or by alias, as senders of usage do."""

from collections.abc import Sequence

from customers.models import CustomerAlias
from metrics.asking_sql import customers_of_their_own_id
from metrics.questions import UnknownCustomer


def named_customers(organisation_id: int, customer_ids: Sequence[str]) -> dict[int, str]:
    """Return the customers in the order they are named, id to external id; raises UnknownCustomer."""
    own = customers_of_their_own_id(organisation_id, customer_ids)
    found = {external_id: (pk, external_id) for external_id, pk in own.items()}
    if others := set(customer_ids) - found.keys():
        aliases = CustomerAlias.objects.filter(organisation_id=organisation_id, alias__in=others)
        for alias, pk, external_id in aliases.values_list("alias", "customer_id", "customer__external_id"):
            found[alias] = (pk, external_id)
    for customer_id in customer_ids:
        if customer_id not in found:
            raise UnknownCustomer(customer_id)
    return dict(found[customer_id] for customer_id in customer_ids)
