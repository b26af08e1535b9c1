"""Usage events (the definitions), usage records (the facts) and what keeps the facts accountable."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.utils.timezone import now

from customers.exactjson import ExactJSONField, OrderedJSONField
from customers.models import ApiKey, Customer, Organisation
from usage.upload_models import Upload

validate_slug = RegexValidator(r"\A[A-Za-z0-9_-]+\Z", "Use letters, digits, underscores and dashes only.", code="slug")


class UnknownCustomer(models.TextChoices):
    """The policy for records whose customer is not known."""

    CREATE = "create", "Create the customer, unconfirmed"
    QUARANTINE = "quarantine", "Refuse the record"


class InvalidRecord(models.TextChoices):
    """The policy for refused records."""

    QUARANTINE = "quarantine", "Keep them in quarantine"
    REFUSE = "refuse", "Only tell the sender"


class UsageEvent(models.Model):
    """The definition of a stream of records: its address and the schema of their data."""

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="usage_events", db_index=False)
    name = models.CharField("usage event name", max_length=200)
    slug = models.CharField("API slug endpoint", max_length=100, validators=[validate_slug], db_collation="C")
    schema = OrderedJSONField("your data schema", help_text="JSON Schema 2020-12 of the records' `data`.")
    schema_version = models.PositiveIntegerField(default=1, editable=False)
    unknown_customer = models.CharField(
        max_length=10,
        choices=UnknownCustomer.choices,
        default=UnknownCustomer.CREATE,
        help_text="What happens to records of a customer that is not known yet.",
    )
    invalid_record = models.CharField(
        max_length=10,
        choices=InvalidRecord.choices,
        default=InvalidRecord.QUARANTINE,
        help_text="What happens to refused records.",
    )
    max_age = models.DurationField(
        "accepted age", null=True, blank=True, help_text="Older timestamps are refused; empty: any age is taken."
    )
    max_ahead = models.DurationField(
        "accepted lead", null=True, blank=True, help_text="Timestamps further in the future are refused; empty: any."
    )
    # Grows with every change of the row, by a trigger: ingestion compares it with what it believes.
    revision = models.PositiveBigIntegerField(default=1, editable=False)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "slug"],
                name="usage_event_slug",
                violation_error_message="A usage event with this API slug endpoint exists already.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_archived(self) -> bool:
        return self.archived_at is not None


class SchemaVersion(models.Model):
    """A schema that was once in force; records keep the number of the version that accepted them."""

    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="schema_versions", db_index=False)
    version = models.PositiveIntegerField()
    schema = OrderedJSONField()
    published_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    published_at = models.DateTimeField(default=now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["usage_event", "version"], name="schema_version_once")]

    def __str__(self) -> str:
        return f"{self.usage_event} v{self.version}"


class IngestBatch(models.Model):
    """The durable receipt of one committed transaction: where its records came from and how many there were."""

    class Source(models.TextChoices):
        API = "api", "API"
        FORM = "form", "Form"
        UPLOAD = "upload", "Upload"
        REPLAY = "replay", "Replay"
        DEMO = "demo", "Demo data"

    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    source = models.CharField(max_length=10, choices=Source.choices)
    api_key = models.ForeignKey(
        ApiKey, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    upload = models.ForeignKey(
        Upload, models.PROTECT, null=True, related_name="batches", db_constraint=False, db_index=False
    )
    accepted = models.PositiveIntegerField()
    duplicates = models.PositiveIntegerField()
    conflicts = models.PositiveIntegerField()
    rejected = models.PositiveIntegerField()
    received_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "ingest batches"
        indexes = [
            models.Index(fields=["upload"], condition=models.Q(upload__isnull=False), name="ingest_batch_by_upload"),
            models.Index(fields=["usage_event", "received_at", "id"], name="ingest_batch_by_time"),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk}"


class RejectedRecord(models.Model):
    """A record that was refused, kept as it came: the text, the reason, how often. Only acts close it."""

    class Status(models.TextChoices):
        OPEN = "open", "Open"
        REPLAYED = "replayed", "Replayed"
        DELIVERED = "delivered", "Delivered later by its sender"
        DISCARDED = "discarded", "Discarded"

    usage_event = models.ForeignKey(
        UsageEvent, models.PROTECT, related_name="rejected_records", db_constraint=False, db_index=False
    )
    batch = models.ForeignKey(
        IngestBatch, models.PROTECT, related_name="rejected_records", db_constraint=False, db_index=False
    )
    fingerprint = models.BinaryField(max_length=32, help_text="SHA-256 of cause and payload.")
    times = models.PositiveIntegerField(default=1)
    idempotency_key = models.TextField("record id", null=True, db_collation="C")
    code = models.CharField(max_length=30)
    pointer = models.TextField()
    message = models.TextField()
    payload = models.TextField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    closing_batch = models.ForeignKey(
        IngestBatch, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    closing_reason = models.TextField(blank=True)
    closed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    closed_by_name = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["usage_event", "fingerprint"], condition=models.Q(status="open"), name="rejected_record_once"
            )
        ]
        indexes = [
            models.Index(
                fields=["usage_event", "idempotency_key"],
                condition=models.Q(status="open", idempotency_key__isnull=False),
                name="rejected_record_by_key",
            ),
            models.Index(fields=["usage_event", "status", "code", "id"], name="rejected_record_by_cause"),
            models.Index(fields=["usage_event", "first_seen_at", "id"], name="rejected_record_by_time"),
            models.Index(fields=["usage_event", "batch"], name="rejected_record_by_batch"),
        ]

    def __str__(self) -> str:
        return f"rejected record {self.pk}"


class QuarantineDay(models.Model):
    """How many refused records an organisation's quarantine kept on a day (UTC), and how many it only counted."""

    pk = models.CompositePrimaryKey("organisation", "day")
    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="+", db_index=False)
    day = models.DateField()
    kept = models.PositiveIntegerField()
    dropped = models.PositiveIntegerField()


class PendingBatch(models.Model):
    """A batch that no fold has claimed yet; written with the batch, deleted by the fold."""

    batch = models.OneToOneField(
        IngestBatch, models.PROTECT, primary_key=True, related_name="pending", db_constraint=False
    )
    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="+", db_constraint=False, db_index=False)


class UsageRecord(models.Model):
    """One raw fact: this customer, at that time, used this much. Only acts write here; a trigger sees to it.

    The id grows in the order of storing. The physical primary key is (id, usage_event_id), so that the table can be
    distributed by usage event. Its references carry no database constraint: checked once per batch (ingestion),
    not once per row, and what they point at is never deleted.
    """

    id = models.BigIntegerField(primary_key=True)
    usage_event = models.ForeignKey(
        UsageEvent, models.PROTECT, related_name="records", db_constraint=False, db_index=False
    )
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="records", db_constraint=False, db_index=False)
    timestamp = models.DateTimeField()
    idempotency_key = models.TextField("record id", null=True, db_collation="C")
    data = ExactJSONField()
    batch = models.ForeignKey(IngestBatch, models.PROTECT, related_name="records", db_constraint=False, db_index=False)
    schema_version = models.PositiveIntegerField()
    received_at = models.DateTimeField()
    revision = models.PositiveIntegerField(default=1)
    voided_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["usage_event", "idempotency_key"],
                condition=models.Q(idempotency_key__isnull=False),
                name="usage_record_identity",
            )
        ]
        indexes = [
            models.Index(fields=["usage_event", "customer", "timestamp"], name="usage_record_by_customer"),
            models.Index(fields=["usage_event", "timestamp", "id"], name="usage_record_by_time"),
            models.Index(fields=["batch"], name="usage_record_by_batch"),
        ]

    def __str__(self) -> str:
        return f"record {self.pk}"


class RecordRevision(models.Model):
    """What a record said before an act changed it, and who changed it, when and why. Never changed, never deleted."""

    class Action(models.TextChoices):
        CORRECT = "correct", "Corrected"
        VOID = "void", "Voided"
        RESTORE = "restore", "Restored"

    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    record = models.ForeignKey(
        UsageRecord, models.PROTECT, related_name="revisions", db_constraint=False, db_index=False
    )
    revision = models.PositiveIntegerField(help_text="The number that the record had before.")
    action = models.CharField(max_length=10, choices=Action.choices)
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    sender_customer_id = models.CharField(max_length=255)
    timestamp = models.DateTimeField()
    data = ExactJSONField()
    voided_at = models.DateTimeField(null=True)
    reason = models.TextField()
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
    actor_name = models.CharField(max_length=200)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["usage_event", "record", "revision"], name="record_revision_once")
        ]


class ChangedWindow(models.Model):
    """An hour of one customer's usage of one usage event that a correction touched.

    Appended without looking whether it is there already, so that correctors never wait for each other.
    """

    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    window_start = models.DateTimeField()
