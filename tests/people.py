"""People who sign in to the admin, each with a browser of their own."""

from django.contrib.auth.models import User
from django.test import Client

from customers.models import Membership, Organisation

# What breaks programs that trust their input; none of it may give a 500.
HOSTILE = [
    "\0",
    "a\0b",
    "x" * 100_000,
    "-1",
    "9" * 40,
    "1e999",
    "\N{ARABIC-INDIC DIGIT FIVE}",
    "'",
    "%",
    "NaN",
    "[]",
    "null",
]


def staff_of(*organisations: Organisation, name: str = "olga") -> Client:
    """Return the browser of a member of the staff, who has no Django permission at all."""
    user = User.objects.create_user(name, is_staff=True, first_name="Olga", last_name="Ops")
    for organisation in organisations:
        Membership.objects.create(organisation=organisation, user=user)
    return signed_in(user)


def superuser() -> Client:
    return signed_in(User.objects.create_superuser("root"))


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client
