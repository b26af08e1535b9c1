"""Definitions of usage events: created and republished by acts, remembered compiled for ingestion."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.timezone import now

from customers.exactjson import dumps
from customers.models import Organisation
from usage.models import SchemaVersion, UsageEvent
from usage.schemas import DataSchema, check_schema

REMEMBERED = 5_000


@dataclass(frozen=True, slots=True)
class Definition:
    """What ingestion needs to know of a usage event; a guess, until the database has confirmed it with the batch."""

    usage_event_id: int
    organisation_id: int
    slug: str
    schema_version: int
    schema: DataSchema
    archived: bool


class DefinitionChanged(Exception):
    """The usage event or the API key is no longer what this process believed; nothing was stored."""


_known: dict[tuple[int, str], Definition] = {}


def find_definition(organisation_id: int, slug: str) -> Definition | None:
    """Return the usage event at that address, from memory where it is there; None if there is none."""
    return _known.get((organisation_id, slug)) or load_definition(organisation_id, slug)


def load_definition(organisation_id: int, slug: str) -> Definition | None:
    """Read the definition anew; only what is there and live is remembered."""
    _known.pop((organisation_id, slug), None)
    usage_event = UsageEvent.objects.filter(organisation_id=organisation_id, slug=slug).first()
    if usage_event is None:
        return None
    definition = define(usage_event)
    if not definition.archived:
        if len(_known) >= REMEMBERED:
            _known.clear()
        _known[organisation_id, slug] = definition
    return definition


def confirm_definition(definition: Definition) -> None:
    """Ask the database whether a usage event is live and as believed; raises DefinitionChanged if not."""
    live = UsageEvent.objects.filter(
        pk=definition.usage_event_id, schema_version=definition.schema_version, archived_at=None
    )
    if not live.exists():
        raise DefinitionChanged


def define(usage_event: UsageEvent) -> Definition:
    """Return the compiled definition of a usage event as the row stands."""
    return Definition(
        usage_event_id=usage_event.pk,
        organisation_id=usage_event.organisation_id,
        slug=usage_event.slug,
        schema_version=usage_event.schema_version,
        schema=DataSchema(usage_event.schema),
        archived=usage_event.archived_at is not None,
    )


@transaction.atomic
def create_usage_event(
    organisation: Organisation, *, name: str, slug: str, schema: dict[str, Any], actor: User | None = None
) -> UsageEvent:
    """Store a new usage event with version 1 of its schema.

    Raises ValidationError by field (name, slug), ValueError for a schema that cannot serve.
    """
    check_schema(schema)
    usage_event = UsageEvent(organisation=organisation, name=name, slug=slug, schema=schema)
    usage_event.full_clean()
    try:
        with transaction.atomic():
            usage_event.save()
    except IntegrityError:
        usage_event.validate_constraints()  # somebody else was faster, and is now there to be seen
        raise
    SchemaVersion.objects.create(usage_event=usage_event, version=1, schema=schema, published_by=actor)
    return usage_event


@transaction.atomic
def publish_schema(usage_event: UsageEvent, schema: dict[str, Any], *, actor: User | None = None) -> UsageEvent:
    """Put a new version of the schema in force, at once and for every process; an unchanged one publishes nothing.

    Raises ValueError for a schema that cannot serve. Stored records keep the version that accepted them.
    """
    check_schema(schema)
    locked = UsageEvent.objects.select_for_update().get(pk=usage_event.pk)
    if dumps(locked.schema) != dumps(schema):
        locked.schema = schema
        locked.schema_version += 1
        locked.save(update_fields=["schema", "schema_version"])
        SchemaVersion.objects.create(
            usage_event=locked, version=locked.schema_version, schema=schema, published_by=actor
        )
    return locked


def rename_usage_event(usage_event: UsageEvent, name: str) -> None:
    """Give a usage event another name; its slug stays, because senders post to it. Raises ValidationError by field."""
    usage_event.name = name
    usage_event.clean_fields(exclude={"schema", "organisation"})
    usage_event.save(update_fields=["name"])


def archive_usage_event(usage_event: UsageEvent, *, archived: bool) -> UsageEvent:
    """Stop or resume taking records, at once and for every process; stored records and metrics stay as they are."""
    if archived != (usage_event.archived_at is not None):
        usage_event.archived_at = now() if archived else None
        usage_event.save(update_fields=["archived_at"])
    return usage_event
