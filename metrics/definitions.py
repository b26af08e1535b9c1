"""Definitions of metrics: drafted, checked, changed as a new version, and put in force."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, transaction

from customers.exactjson import same_json
from metrics.formula_rules import (
    FORMULA,
    check_formula,
    check_storable,
    has_word,
    is_sql,
    properties_used,
)
from metrics.materialization import put_in_force
from metrics.models import Metric
from usage.models import UsageEvent
from usage.table_columns import columns_of, table_name
from usage.timestamps import FIRST_MOMENT

NAMES = ("name", "unit")
IDENTITY = ("organisation_id", "code", "version")
# Beside a metric's own address the API has these.
RESERVED_CODES = {"preview"}
ATTEMPTS = 5


class NotADraft(Exception):
    """The metric cannot be activated, because it is not a draft; `status` says what it is."""

    def __init__(self, status: str) -> None:
        super().__init__(f"only a draft can be activated, this metric's status is {status!r}")
        self.status = status


class CodeTaken(ValidationError):
    """Another metric, or another version of this one, is in the way."""


class Overtaken(ValidationError):
    """Somebody else changed the metric at the same moment."""

    def __init__(self) -> None:
        super().__init__({NON_FIELD_ERRORS: "Somebody else changed this metric at the same moment. Please try again."})


@transaction.atomic
def save_metric(metric: Metric) -> Metric:
    """Store a metric's definition, a new one as a draft; raises ValidationError by field.

    A published formula never changes: of a metric that is no draft any more, only the name and the unit may differ
    from what is stored. `revise_metric` makes a new version of it.
    """
    stored = Metric.objects.select_for_update().filter(pk=metric.pk).first()
    published = stored is not None and stored.status != Metric.Status.DRAFT
    if not published:
        _check_code(metric, stored)
    _check_fields(metric)
    if stored is None or not published:
        check_formula(metric)
    else:
        # From building to active it may have gone meanwhile; who still sees a draft wants more than a new name.
        seen_as_draft = ["status"] if metric.status == Metric.Status.DRAFT else []
        for field in (*IDENTITY, *FORMULA, *seen_as_draft):
            if not _is_already(stored, field, getattr(metric, field)):
                raise ValidationError({field: f"a published formula never changes; this metric is {stored.status}"})
    # Of a published one nothing else: a build moves its position in this row.
    _store(metric, NAMES if published else None)
    return metric


def revise_metric(metric: Metric, changes: Mapping[str, Any]) -> Metric:
    """Change the definition of a metric and return the version that holds it now; raises ValidationError by field.

    `changes` are fields of the model and their new values. A draft is changed itself. Of a published version the name
    and the unit change in place; a changed formula goes to the draft that is in preparation for its code, or becomes
    one: the next version. While a version is being built, no other formula can be drafted.
    """
    for _ in range(ATTEMPTS):
        with suppress(Overtaken), transaction.atomic():
            return _revise(metric, changes)
    raise Overtaken


@transaction.atomic
def activate_metric(metric_id: int) -> Metric:
    """Put a draft in force; raises NotADraft.

    It is built from history first, which the worker sees to. A metric of SQL has nothing to build: it is active at
    once, and the version before it is retired.
    """
    metric = Metric.objects.select_for_update().get(pk=metric_id)
    if metric.status != Metric.Status.DRAFT:
        raise NotADraft(metric.status)
    if is_sql(metric):
        put_in_force(metric)
    else:
        metric.status = Metric.Status.BUILDING
        metric.built_customer_id, metric.built_window_start = 0, FIRST_MOMENT
        metric.save(update_fields=["status", "built_customer_id", "built_window_start"])
    return metric


def metrics_using(usage_event_id: int, properties: set[str]) -> list[str]:
    """Return the codes of the metrics, drafts among them and retired ones not, that use one of the properties.

    Of a metric of SQL only the text is known: it is named if it has the names of the table and of the column in it.
    """
    usage_event = UsageEvent.objects.get(pk=usage_event_id)
    current = Metric.objects.filter(organisation_id=usage_event.organisation_id).exclude(status=Metric.Status.RETIRED)
    of_records = current.filter(usage_event_id=usage_event_id)
    used = {metric.code for metric in of_records if properties & properties_used(metric)}
    table = table_name(usage_event.slug)
    columns = [column.name for column in columns_of(usage_event.schema) if column.property in properties]
    for metric in current.exclude(sql=""):
        if has_word(metric.sql, table) and any(has_word(metric.sql, column) for column in columns):
            used.add(metric.code)
    return sorted(used)


def overlapping(metric: Metric) -> list[Metric]:
    """Return the metrics of other codes, retired ones not, that are calculated from the same usage event's records."""
    if metric.usage_event_id is None:
        return []
    same = Metric.objects.filter(usage_event_id=metric.usage_event_id).exclude(code=metric.code)
    return list(same.exclude(status=Metric.Status.RETIRED).order_by("code", "version"))


def _revise(metric: Metric, changes: Mapping[str, Any]) -> Metric:
    """Try once. It never holds two versions at a time: a build holds its own while it waits for the one it retires."""
    stored = Metric.objects.get(pk=metric.pk)
    if stored.code != metric.code:
        raise ValidationError({"code": f"the metric's present code was expected, got '{metric.code}'"})
    keeps_formula = all(_is_already(stored, field, value) for field, value in changes.items() if field not in NAMES)
    if stored.status == Metric.Status.DRAFT or keeps_formula:
        return _change(stored, changes)
    _check_same_code(stored, changes.get("code", stored.code))
    newest = Metric.objects.filter(organisation_id=stored.organisation_id, code=stored.code).order_by("-version")[0]
    if newest.status == Metric.Status.BUILDING:
        refusal = f"version {newest.version} is being built; the formula can be changed again when it is active"
        raise ValidationError({NON_FIELD_ERRORS: refusal})
    if newest.status == Metric.Status.DRAFT:
        return _change(newest, changes)
    kept = {field: getattr(stored, field) for field in ("organisation_id", "code", *NAMES, *FORMULA)}
    try:
        return save_metric(_with(Metric(**kept, version=newest.version + 1), changes))
    except CodeTaken as error:
        raise Overtaken from error


def _change(seen: Metric, changes: Mapping[str, Any]) -> Metric:
    """Change one version, unless it was published since it was seen."""
    locked = Metric.objects.select_for_update().get(pk=seen.pk)
    if (locked.status == Metric.Status.DRAFT) != (seen.status == Metric.Status.DRAFT):
        raise Overtaken
    return save_metric(_with(locked, changes))


def _check_fields(metric: Metric) -> None:
    """Check each field by itself, and the code against others; what may be null has its rule in check_formula."""
    check_storable(metric)
    without = ["filters", "group_by", "percentile", "rounding_digits"]
    without += ["usage_event"] if metric.usage_event_id is None else []
    metric.full_clean(exclude=without, validate_constraints=False)
    _check_unique(metric)


def _check_unique(metric: Metric) -> None:
    """One message is enough; which rule is broken first depends on how far somebody else has come."""
    try:
        metric.validate_constraints()
    except ValidationError as error:
        is_new = metric._state.adding and metric.version == 1
        message = "A metric with this code exists already." if is_new else error.messages[0]
        raise CodeTaken({NON_FIELD_ERRORS: message}) from None


def _check_code(metric: Metric, stored: Metric | None) -> None:
    if metric.code in RESERVED_CODES:
        raise ValidationError({"code": f"another code was expected, '{metric.code}' is an address of the API"})
    if stored is not None and stored.version > 1:
        _check_same_code(stored, metric.code)


def _check_same_code(stored: Metric, code: str) -> None:
    if code != stored.code:
        raise ValidationError({"code": f"the code '{stored.code}' stays; earlier versions carry it"})


def _with(metric: Metric, changes: Mapping[str, Any]) -> Metric:
    """Return the metric's definition with the changes made."""
    for field, value in changes.items():
        if field not in (*NAMES, "code", "usage_event", *FORMULA):
            raise TypeError(f"{field} is no field that changes")
        setattr(metric, field, value)
    return metric


def _is_already(metric: Metric, field: str, value: Any) -> bool:
    return same_json(getattr(metric, field), value)


def _store(metric: Metric, fields: tuple[str, ...] | None) -> None:
    try:
        with transaction.atomic():
            metric.save(update_fields=fields)
    except IntegrityError:
        _check_unique(metric)  # somebody else was faster, and is now there to be seen
        raise Overtaken from None
