"""Definitions of usage events: created and republished by acts, remembered compiled for ingestion."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.timezone import now

from customers.exactjson import dumps
from customers.models import Organisation
from usage.envelopes import TimeLimits
from usage.models import InvalidRecord, SchemaVersion, UnknownCustomer, UsageEvent
from usage.schema_changes import (
    SchemaChange,
    SchemaChangeRefused,
    check_schema_change,
    check_since,
    is_evidently_harmless,
)
from usage.schemas import DataSchema, check_schema
from usage.tables import publish_tables

REMEMBERED = 5_000
POLICIES = ("unknown_customer", "invalid_record", "max_age", "max_ahead")
CHANGEABLE = ("name", *POLICIES, "archived_at")


@dataclass(frozen=True, slots=True)
class Definition:
    """What ingestion needs to know of a usage event; a guess, until the database has confirmed it with the batch."""

    usage_event_id: int
    organisation_id: int
    slug: str
    revision: int
    aliases_revision: int
    schema_version: int
    schema: DataSchema
    creates_customers: bool
    keeps_rejected: bool
    max_age: timedelta | None
    max_ahead: timedelta | None
    archived: bool

    def time_limits(self) -> TimeLimits:
        """Return the instants that are accepted at this moment."""
        return TimeLimits(
            oldest=now() - self.max_age if self.max_age is not None else None,
            newest=now() + self.max_ahead if self.max_ahead is not None else None,
        )


class DefinitionChanged(Exception):
    """The usage event, the API key or an alias is no longer what this process believed; nothing was stored."""


_known: dict[tuple[int, str], Definition] = {}


def find_definition(organisation_id: int, slug: str) -> Definition | None:
    """Return the usage event at that address, from memory where it is there; None if there is none."""
    return _known.get((organisation_id, slug)) or load_definition(organisation_id, slug)


def load_definition(organisation_id: int, slug: str) -> Definition | None:
    """Read the definition anew; only what is there and live is remembered."""
    _known.pop((organisation_id, slug), None)
    found = UsageEvent.objects.select_related("organisation").filter(organisation_id=organisation_id, slug=slug)
    usage_event = found.first()
    if usage_event is None:
        return None
    definition = define(usage_event)
    if not definition.archived:
        if len(_known) >= REMEMBERED:
            _known.clear()
        _known[organisation_id, slug] = definition
    return definition


def confirm_definition(definition: Definition) -> None:
    """Ask the database whether a usage event is live and all is as believed; raises DefinitionChanged if not."""
    live = UsageEvent.objects.filter(
        pk=definition.usage_event_id,
        revision=definition.revision,
        archived_at=None,
        organisation__aliases_revision=definition.aliases_revision,
    )
    if not live.exists():
        raise DefinitionChanged


def hold_definition(usage_event_id: int) -> Definition:
    """Return the definition as it is and stays until the caller's transaction ends: nobody else can change it."""
    locked = UsageEvent.objects.select_related("organisation").select_for_update(
        of=("self", "organisation"), no_key=True
    )
    return define(locked.get(pk=usage_event_id))


def define(usage_event: UsageEvent) -> Definition:
    """Return the compiled definition of a usage event as the row stands."""
    return Definition(
        usage_event_id=usage_event.pk,
        organisation_id=usage_event.organisation_id,
        slug=usage_event.slug,
        revision=usage_event.revision,
        aliases_revision=usage_event.organisation.aliases_revision,
        schema_version=usage_event.schema_version,
        schema=DataSchema(usage_event.schema),
        creates_customers=usage_event.unknown_customer == UnknownCustomer.CREATE,
        keeps_rejected=usage_event.invalid_record == InvalidRecord.QUARANTINE,
        max_age=usage_event.max_age,
        max_ahead=usage_event.max_ahead,
        archived=usage_event.archived_at is not None,
    )


@transaction.atomic
def create_usage_event(
    organisation: Organisation,
    *,
    name: str,
    slug: str,
    schema: dict[str, Any],
    actor: User | None = None,
    **policies: Any,
) -> UsageEvent:
    """Store a new usage event with version 1 of its schema; `policies` are fields of POLICIES.

    Raises ValidationError by field (name, slug, policies), ValueError for a schema that cannot serve.
    """
    check_schema(schema)
    usage_event = UsageEvent(organisation=organisation, name=name, slug=slug, schema=schema)
    _set_fields(usage_event, policies)
    usage_event.full_clean()
    try:
        with transaction.atomic():
            usage_event.save()
    except IntegrityError:
        usage_event.validate_constraints()  # somebody else was faster, and is now there to be seen
        raise
    SchemaVersion.objects.create(usage_event=usage_event, version=1, schema=schema, published_by=actor)
    publish_tables(usage_event)
    return usage_event


def change_usage_event(
    usage_event: UsageEvent,
    changes: dict[str, Any],
    *,
    schema: dict[str, Any] | None = None,
    accept_violations: bool = False,
    actor: User | None = None,
) -> UsageEvent:
    """Change the name, the policies (fields of POLICIES), `archived` and the schema, all of it or nothing.

    It holds at once and for every process; the slug stays, because senders post to it. An unchanged schema publishes
    nothing. A schema that takes all that the old one took is published at once; another one only if every stored
    record fits it and no metric loses its property, or if that is accepted. Stored records keep their version.
    Raises ValidationError by field, ValueError for a schema that cannot serve, SchemaChangeRefused (a ValueError).
    """
    _set_fields(usage_event, changes)
    usage_event.clean_fields(exclude={"schema", "organisation"})
    if schema is not None:
        check_schema(schema)
    checked: SchemaChange | None = None
    while True:
        with transaction.atomic():
            locked = UsageEvent.objects.select_for_update().get(pk=usage_event.pk)
            if schema is None or accept_violations or _may_publish(locked, schema, checked):
                _save(locked, changes, schema, actor)
                return locked
        # A long look, and nobody waits for it; what is stored meanwhile is looked at under the lock.
        checked = check_schema_change(locked, schema)
        if not checked.harmless:
            raise SchemaChangeRefused(checked)


def publish_schema(
    usage_event: UsageEvent, schema: dict[str, Any], *, actor: User | None = None, accept_violations: bool = False
) -> UsageEvent:
    """Put a new version of the schema in force; see change_usage_event."""
    return change_usage_event(usage_event, {}, schema=schema, accept_violations=accept_violations, actor=actor)


def rename_usage_event(usage_event: UsageEvent, name: str) -> None:
    """Give a usage event another name. Raises ValidationError by field."""
    change_usage_event(usage_event, {"name": name})


def archive_usage_event(usage_event: UsageEvent, *, archived: bool) -> UsageEvent:
    """Stop or resume taking records, at once and for every process; stored records and metrics stay as they are."""
    return change_usage_event(usage_event, {"archived": archived})


def _may_publish(usage_event: UsageEvent, schema: dict[str, Any], checked: SchemaChange | None) -> bool:
    """Tell whether nothing speaks against it, or it was checked; raises SchemaChangeRefused for what came since."""
    if _same(usage_event, schema):
        return True
    if checked is None or checked.seen.schema_version != usage_event.schema_version:
        return is_evidently_harmless(usage_event, schema)
    if not checked.compatible:
        check_since(usage_event, schema, checked)
    return True


def _save(usage_event: UsageEvent, changes: dict[str, Any], schema: dict[str, Any] | None, actor: User | None) -> None:
    before = {name: getattr(usage_event, name) for name in CHANGEABLE}
    _set_fields(usage_event, changes)
    fields = [name for name in CHANGEABLE if getattr(usage_event, name) != before[name]]
    if schema is not None and not _same(usage_event, schema):
        usage_event.schema = schema
        usage_event.schema_version += 1
        fields += ["schema", "schema_version"]
        SchemaVersion.objects.create(
            usage_event=usage_event, version=usage_event.schema_version, schema=schema, published_by=actor
        )
    if fields:
        usage_event.save(update_fields=fields)
    if "schema" in fields:
        publish_tables(usage_event)


def _same(usage_event: UsageEvent, schema: dict[str, Any]) -> bool:
    return dumps(usage_event.schema) == dumps(schema)


def _set_fields(usage_event: UsageEvent, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if name == "archived":
            if value != (usage_event.archived_at is not None):
                usage_event.archived_at = now() if value else None
        elif name in CHANGEABLE:
            setattr(usage_event, name, value)
        else:
            raise TypeError(f"{name} is no field that changes")
