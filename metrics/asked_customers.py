"""The customers that a question names: by external id or by alias, as senders of usage do."""

from collections.abc import Sequence

from customers.models import Customer
from customers.resolution import resolve_customers
from metrics.questions import UnknownCustomer


def named_customers(organisation_id: int, customer_ids: Sequence[str]) -> dict[int, str]:
    """Return the customers in the order they are named, id to external id; raises UnknownCustomer."""
    ids = resolve_customers(organisation_id, customer_ids, create=False)
    for customer_id in customer_ids:
        if customer_id not in ids:
            raise UnknownCustomer(customer_id)
    external_ids = dict(Customer.objects.filter(pk__in=ids.values()).values_list("pk", "external_id"))
    return {ids[customer_id]: external_ids[ids[customer_id]] for customer_id in customer_ids}
