"""Bar 18: the admin's list of records and the page of a customer, on a large table."""

import os

from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import reverse

from config.settings import MIDDLEWARE
from customers.models import Customer, Membership
from metrics.models import Metric
from tests.benchmarks.measuring import AT_MOST, Report, percentile_95, seconds
from tests.benchmarks.scene import Scene


@override_settings(ROOT_URLCONF="config.urls", MIDDLEWARE=MIDDLEWARE, ALLOWED_HOSTS=["testserver"])
def measure(report: Report, scene: Scene, metric: Metric) -> None:
    """Measure both pages through Django's own stack, signed in as somebody of the organisation."""
    user = User.objects.create_superuser("bench", password=os.urandom(8).hex())
    Membership.objects.create(organisation=scene.organisation, user=user)
    client = Client()
    client.force_login(user)
    customer = Customer.objects.get(pk=scene.customer_ids["cus_00000"])
    addresses = {
        "18a": (
            "admin record list",
            f"{reverse('admin:usage_usagerecord_changelist')}?usage_event={metric.usage_event_id}",
        ),
        "18b": ("admin customer page", reverse("admin:customers_customer_change", args=[customer.pk])),
    }
    for number, (name, address) in addresses.items():
        client.get(address)

        def visit(address: str = address) -> None:
            answer = client.get(address)
            assert answer.status_code == 200, answer.status_code

        times = [seconds(visit) for _ in range(20)]
        report.add(number, f"{name}, 95th percentile", percentile_95(times) * 1000, AT_MOST, 300, " ms")
