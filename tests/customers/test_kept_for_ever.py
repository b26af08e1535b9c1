"""Customers keep their identity and are never deleted, whoever asks the database."""

import pytest
from django.db import IntegrityError, connection, transaction

from customers.models import Customer, Organisation


@pytest.fixture
def customer(db: None) -> Customer:
    organisation = Organisation.objects.create(name="Acme")
    return Customer.objects.create(organisation=organisation, external_id="cus_1", name="First")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM customers_customer", "DELETE on customers_customer is refused: usage records may point at it"),
        ("DELETE FROM customers_customer WHERE false", "DELETE on customers_customer is refused"),
        (
            "UPDATE customers_customer SET external_id = 'cus_2'",
            "UPDATE on customers_customer is refused: processes remember which customer an external id means",
        ),
        ("UPDATE customers_customer SET organisation_id = organisation_id + 1", "processes remember"),
        ("UPDATE customers_customer SET external_id = upper(external_id)", "processes remember"),
    ],
)
def test_the_database_refuses(customer: Customer, statement: str, message: str) -> None:
    before = list(Customer.objects.values())

    with pytest.raises(IntegrityError, match=message), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)

    assert list(Customer.objects.values()) == before


def test_the_orm_cannot_either(customer: Customer) -> None:
    with pytest.raises(IntegrityError, match="is refused"), transaction.atomic():
        customer.delete()
    customer.external_id = "cus_2"
    with pytest.raises(IntegrityError, match="is refused"), transaction.atomic():
        customer.save()

    assert Customer.objects.get().external_id == "cus_1"


def test_everything_else_of_a_customer_may_change(customer: Customer) -> None:
    customer.name, customer.email, customer.timezone, customer.confirmed = "Second", "a@b.example", "Asia/Tokyo", False
    customer.save()

    stored = Customer.objects.get()
    assert (stored.external_id, stored.name, stored.timezone, stored.confirmed) == (
        "cus_1",
        "Second",
        "Asia/Tokyo",
        False,
    )
