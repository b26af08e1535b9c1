"""Metrics (the definitions) and their aggregates (the stored state of every hour)."""

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.timezone import now

from customers.exactjson import ExactJSONField
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
    SUM = "sum", "Sum"
    AVG = "avg", "Average"
    MIN = "min", "Smallest value"
    MAX = "max", "Largest value"
    LATEST = "latest", "Latest value"
    UNIQUE_COUNT = "unique_count", "Count of distinct values"
    PERCENTILE = "percentile", "Percentile"
    WEIGHTED_SUM = "weighted_sum", "Sum weighted by time"


class Rounding(models.TextChoices):
    """How a quantity is rounded, at the very end."""

    HALF_UP = "half_up", "Half away from zero"
    HALF_EVEN = "half_even", "Half to even"
    UP = "up", "Away from zero"
    DOWN = "down", "Towards zero"
    CEILING = "ceiling", "Up to the next larger"
    FLOOR = "floor", "Down to the next smaller"


class SqlWindow(models.TextChoices):
    """The calendar window over which the SQL of a metric is calculated."""

    DAY = "day", "Each day"
    MONTH = "month", "Each month"


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
    (built_customer_id, built_window_start) is complete; folds leave the others to the build. While an active metric is
    rebuilt, (rebuilt_customer_id, rebuilt_window_start) is how far that has come; it answers all the while.
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
    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, null=True, blank=True, related_name="metrics")
    aggregation = models.CharField(max_length=20, choices=Aggregation.choices, blank=True)
    property = models.CharField(max_length=255, blank=True, help_text="The member of `data` that is calculated from.")
    expression = models.CharField(
        max_length=500, blank=True, help_text="Arithmetic on properties, in place of one: input + 4 * output."
    )
    percentile = NumericField(null=True, blank=True, help_text="Which one, from 0 to 100.")
    filters = ExactJSONField(default=dict, blank=True, help_text="Which records count; empty: all.")
    group_by = ArrayField(models.CharField(max_length=255), default=list, blank=True)
    rounding_mode = models.CharField(max_length=10, choices=Rounding.choices, blank=True)
    rounding_digits = models.PositiveSmallIntegerField(null=True, blank=True)
    sql = models.TextField(blank=True, help_text="One SELECT, in place of usage event and aggregation.")
    sql_window = models.CharField(max_length=10, choices=SqlWindow.choices, blank=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.DRAFT, editable=False)
    built_customer_id = models.BigIntegerField(null=True, editable=False)
    built_window_start = models.DateTimeField(null=True, editable=False)
    rebuilt_customer_id = models.BigIntegerField(null=True, editable=False)
    rebuilt_window_start = models.DateTimeField(null=True, editable=False)
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
            models.UniqueConstraint(
                fields=["organisation", "code"],
                condition=models.Q(status__in=["draft", "building"]),
                name="metric_one_in_preparation",
                violation_error_message="Another version of this metric is in preparation.",
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


class MetricDistinctValue(models.Model):
    """One distinct value in a stored hour, as a 128-bit hash, and how many records have it; unique counts merge so."""

    pk = models.CompositePrimaryKey("usage_event", "metric", "customer", "window_start", "dimensions", "value_hash")
    usage_event = models.ForeignKey(UsageEvent, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    metric = models.ForeignKey(Metric, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    window_start = models.DateTimeField()
    dimensions = models.TextField(default="", db_collation="C")
    value_hash = models.UUIDField()
    record_count = models.BigIntegerField()


class FoldReport(models.Model):
    """The last fold of a usage event that found something to do: when it ended, how long it took, what it claimed."""

    usage_event = models.OneToOneField(
        UsageEvent, models.PROTECT, primary_key=True, related_name="fold_report", db_constraint=False
    )
    folded_at = models.DateTimeField()
    milliseconds = models.PositiveIntegerField()
    batches = models.PositiveIntegerField()
    windows = models.PositiveIntegerField()
    records = models.PositiveBigIntegerField()


class DriftCheck(models.Model):
    """A comparison of stored aggregates with a recount of the records, and what differed."""

    class Kind(models.TextChoices):
        CLOSED_DAY = "closed_day", "Closed day"
        SAMPLE = "sample", "Sample of customer-days"
        BY_HAND = "by_hand", "By hand"

    metric = models.ForeignKey(Metric, models.PROTECT, related_name="drift_checks")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    start = models.DateTimeField()
    end = models.DateTimeField()
    windows = models.PositiveIntegerField(help_text="Stored hours that were compared, by customer and dimensions.")
    differences = models.PositiveIntegerField()
    samples = ExactJSONField(default=list, help_text="Some of the differences: stored and recounted.")
    checked_at = models.DateTimeField(default=now)
    milliseconds = models.PositiveIntegerField()

    class Meta:
        indexes = [
            models.Index(fields=["metric", "-checked_at"], name="drift_check_by_metric"),
            models.Index(fields=["checked_at"], condition=models.Q(differences__gt=0), name="drift_check_that_differs"),
        ]
