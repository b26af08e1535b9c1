"""Definitions of metrics: drafted, checked against the usage event's schema, and put in force."""

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from metrics.models import Aggregation, Metric
from usage.schemas import properties_of, types_of
from usage.timestamps import FIRST_MOMENT

FORMULA = ("organisation_id", "code", "version", "usage_event_id", "aggregation", "property")
NUMERIC = {"number", "integer"}


class NotADraft(Exception):
    """The metric cannot be activated, because it is not a draft; `status` says what it is."""

    def __init__(self, status: str) -> None:
        super().__init__(f"only a draft can be activated, this metric's status is {status!r}")
        self.status = status


def check_formula(metric: Metric) -> None:
    """Raise ValidationError, by field, for a formula that does not fit the usage event's schema."""
    if metric.usage_event.organisation_id != metric.organisation_id:
        raise ValidationError({"usage_event": "a usage event of the metric's own organisation was expected"})
    if metric.aggregation == Aggregation.COUNT:
        if metric.property:
            raise ValidationError({"property": "a count takes no property; it counts records"})
        return
    properties = properties_of(metric.usage_event.schema)
    numeric = [name for name, sub in properties.items() if NUMERIC & set(types_of(sub)) or not types_of(sub)]
    if metric.property not in numeric:
        came = f"got '{metric.property}'" if metric.property else "got none"
        expected = ", ".join(f"'{name}'" for name in numeric) or "none is there"
        raise ValidationError({"property": f"a number of the usage event's schema was expected ({expected}), {came}"})


@transaction.atomic
def save_metric(metric: Metric) -> Metric:
    """Store a metric's definition, a new one as a draft; raises ValidationError by field.

    A published formula never changes: of a metric that is no draft any more, only the name and the unit may differ
    from what is stored.
    """
    stored = Metric.objects.select_for_update().filter(pk=metric.pk).first()
    published = stored is not None and stored.status != Metric.Status.DRAFT
    metric.full_clean()
    if stored is None or stored.status == Metric.Status.DRAFT:
        check_formula(metric)
    else:
        # From building to active it may have gone meanwhile; who still sees a draft wants more than a new name.
        seen_as_draft = ["status"] if metric.status == Metric.Status.DRAFT else []
        for field in (*FORMULA, *seen_as_draft):
            if getattr(stored, field) != getattr(metric, field):
                raise ValidationError({field: f"a published formula never changes; this metric is {stored.status}"})
    try:
        with transaction.atomic():
            # Of a published one nothing else: a build moves its position in this row.
            metric.save(update_fields=["name", "unit"] if published else None)
    except IntegrityError:
        metric.validate_constraints()  # somebody else was faster, and is now there to be seen
        raise
    return metric


@transaction.atomic
def activate_metric(metric_id: int) -> Metric:
    """Have a draft built from history and become active; the worker sees to it. Raises NotADraft."""
    metric = Metric.objects.select_for_update().get(pk=metric_id)
    if metric.status != Metric.Status.DRAFT:
        raise NotADraft(metric.status)
    metric.status = Metric.Status.BUILDING
    metric.built_customer_id, metric.built_window_start = 0, FIRST_MOMENT
    metric.save(update_fields=["status", "built_customer_id", "built_window_start"])
    return metric


def metrics_using(usage_event_id: int, properties: set[str]) -> list[str]:
    """Return the codes of the metrics, drafts among them and retired ones not, that use one of the properties."""
    storable = {name for name in properties if "\0" not in name}
    metrics = Metric.objects.filter(usage_event_id=usage_event_id, property__in=storable)
    return sorted(set(metrics.exclude(status=Metric.Status.RETIRED).values_list("code", flat=True)))
