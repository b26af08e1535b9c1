"""Metrics (the definitions) and their aggregates (the stored state of every hour)."""

from django.core.validators import RegexValidator
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.timezone import now

from customers.models import Customer, Organisation
from usage.models import UsageEvent, UsageRecord

validate_code = RegexValidator(r"\A[A-Za-z0-9_-]+\Z", "Use letters, digits, underscores and dashes only.", code="code")


class NumericField(models.Field):
    """PostgreSQL's numeric without bounds: as many digits as the sum needs. Django's own field insists on bounds."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "numeric"


class Aggregation(models.TextChoices):
    """What is calculated from the records of a window."""

    COUNT = "count", "Count of records"
    SUM = "sum", "Sum of a property"


class MetricQuerySet(models.QuerySet["Metric"]):
    def newest(self) -> "MetricQuerySet":
        """The newest version of each code."""
        later = Metric.objects.filter(
            organisation=models.OuterRef("organisation"),
            code=models.OuterRef("code"),
            version__gt=models.OuterRef("version"),
        )
        return self.filter(~models.Exists(later))


class Metric(models.Model):
    """One version of the definition of a billable quantity. A published formula never changes.

    While the metric is being built, every window whose (customer, window_start) lies below
    (built_customer_id, built_window_start) is complete; folds leave the others to the build.
    """

    class Status(models.TextChoices):
        DRAFT = "draft"
        BUILDING = "building"
        ACTIVE = "active"
        RETIRED = "retired"

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="metrics", db_index=False)
    code = models.CharField(
        max_length=100, validators=[validate_code], db_collation="C", help_text="Its name in the API and on invoices."
    )
    version = models.PositiveIntegerField(default=1, editable=False)
    name = models.CharField(max_length=200)
    unit = models.CharField(max_length=50, blank=True, help_text="What one of it is called: hours, calls, GB.")
    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="metrics")
    aggregation = models.CharField(max_length=20, choices=Aggregation.choices)
    property = models.CharField(max_length=255, blank=True, help_text="The number in `data` that a sum adds up.")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.DRAFT, editable=False)
    built_customer_id = models.BigIntegerField(null=True, editable=False)
    built_window_start = models.DateTimeField(null=True, editable=False)
    activated_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=now, editable=False)

    objects = MetricQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "code", "version"],
                name="metric_version",
                violation_error_message="A metric with this code exists already.",
            ),
            models.UniqueConstraint(
                fields=["organisation", "code"], condition=models.Q(status="active"), name="metric_one_active"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class MetricAggregate(models.Model):
    """The state of one metric for one customer in one hour [window_start, +1 h), by dimensions.

    State, not results: windows merge, an average divides by the values that were there, and skipped records can be
    told (record_count - value_count). A column that the metric's aggregation does not use stays null.
    """

    pk = models.CompositePrimaryKey("usage_event", "metric", "customer", "window_start", "dimensions")
    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    metric = models.ForeignKey(Metric, models.PROTECT, related_name="aggregates", db_constraint=False, db_index=False)
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    window_start = models.DateTimeField()
    dimensions = models.TextField(default="", db_collation="C")
    record_count = models.BigIntegerField()
    value_count = models.BigIntegerField()
    sum = NumericField(null=True)
    min = NumericField(null=True)
    max = NumericField(null=True)
    latest_value = NumericField(null=True)
    latest_timestamp = models.DateTimeField(null=True)
    latest_record = models.ForeignKey(
        UsageRecord, models.PROTECT, null=True, related_name="+", db_constraint=False, db_index=False
    )
