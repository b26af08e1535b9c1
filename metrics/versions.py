"""How far the build of a version of a metric is."""

from customers.models import Customer
from metrics.models import Metric


def build_progress(metric: Metric) -> float | None:
    """Return which share of the organisation's customers a build is done with, from 0 to 1; None if none goes on."""
    if metric.status != Metric.Status.BUILDING or metric.built_customer_id is None:
        return None
    customers = Customer.objects.filter(organisation_id=metric.organisation_id)
    everybody = customers.count()
    return round(customers.filter(pk__lt=metric.built_customer_id).count() / everybody, 3) if everybody else 0.0
