"""Organisations, their staff, their API keys, and the customers that they bill."""

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils.timezone import now

from customers.exactjson import ExactJSONField
from customers.zones import validate_zone


class Organisation(models.Model):
    """The tenant: nothing of one organisation is ever seen by another."""

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False, help_text="The `organisation` header.")
    name = models.CharField(max_length=200)
    timezone = models.CharField(
        "time zone", max_length=64, default="UTC", validators=[validate_zone], help_text="Default zone of its periods."
    )
    # Grows with every change of its customers' aliases, by a trigger: ingestion compares it with what it believes.
    aliases_revision = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(default=now, editable=False)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A person of the staff works for an organisation, and sees what belongs to it."""

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.organisation}"


class Scope(models.TextChoices):
    """What a key may do: post usage, read under /api/, write definitions."""

    INGEST = "ingest"
    READ = "read"
    MANAGE = "manage"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def live(self) -> "ApiKeyQuerySet":
        """Keys that are neither revoked nor expired, by the clock that ingestion asks too: the database's."""
        return self.filter(revoked_at=None).filter(models.Q(expires_at=None) | models.Q(expires_at__gt=Now()))


class ApiKey(models.Model):
    """A secret of one organisation's systems. Only its SHA-256 is kept: 32 random bytes need no slow hash."""

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=200)
    prefix = models.CharField(max_length=12, editable=False, help_text="The start of the secret, to tell keys apart.")
    secret_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope.choices))
    created_at = models.DateTimeField(default=now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Customer(models.Model):
    """Who is billed. The organisation's systems call it by `external_id`; records point at it by its own id."""

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="customers", db_index=False)
    external_id = models.CharField(
        "customer id", max_length=255, db_collation="C", help_text="The `customer_id` of the records."
    )
    name = models.CharField(max_length=255, blank=True)
    email = models.EmailField(blank=True)
    timezone = models.CharField("time zone", max_length=64, blank=True, validators=[validate_zone])
    custom_data = ExactJSONField(default=dict, blank=True)
    confirmed = models.BooleanField(
        default=True, help_text="Off for a customer that usage named before anybody entered it here."
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "external_id"], name="customer_external_id")]

    def __str__(self) -> str:
        return f"{self.external_id} · {self.name}" if self.name else self.external_id


class CustomerAlias(models.Model):
    """Another id by which the organisation's systems call a customer."""

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="+", db_index=False)
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="aliases")
    alias = models.CharField(max_length=255, db_collation="C")

    class Meta:
        verbose_name_plural = "customer aliases"
        constraints = [models.UniqueConstraint(fields=["organisation", "alias"], name="customer_alias_once")]

    def __str__(self) -> str:
        return self.alias
