"""A batch's row in one statement with its plans kept; a small batch with its records in one more of them."""

from importlib import import_module

from django.db import migrations

BEFORE = import_module("usage.migrations.0009_store_at_once")

OPEN_BATCH = """
CREATE FUNCTION tallybook_open_batch(
    usage_event bigint, definition_revision bigint, aliases_revision bigint, source text,
    api_key bigint, person bigint, upload bigint, accepted integer, duplicates integer, conflicts integer,
    rejected integer, records integer, without_quarantine boolean,
    OUT batch bigint, OUT stored_at timestamptz, OUT quarantine_waits boolean, OUT ids bigint[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- A statement of its own: those that follow see what was published while this one waited.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('schema', usage_event));
    quarantine_waits := EXISTS (
        SELECT FROM usage_rejectedrecord AS waiting
        WHERE waiting.usage_event_id = usage_event AND waiting.status = 'open' AND waiting.idempotency_key IS NOT NULL);
    IF without_quarantine AND quarantine_waits THEN
        RETURN;
    END IF;
    INSERT INTO usage_ingestbatch (usage_event_id, source, api_key_id, user_id, upload_id,
                                   accepted, duplicates, conflicts, rejected, received_at)
    SELECT event.id, tallybook_open_batch.source, api_key, person, upload,
           tallybook_open_batch.accepted, tallybook_open_batch.duplicates, tallybook_open_batch.conflicts,
           tallybook_open_batch.rejected, clock_timestamp()
    FROM usage_usageevent AS event JOIN customers_organisation AS organisation ON organisation.id = event.organisation_id
    WHERE event.id = usage_event AND event.archived_at IS NULL
      AND event.revision = definition_revision
      AND organisation.aliases_revision = tallybook_open_batch.aliases_revision
      AND (api_key IS NULL OR EXISTS (
          SELECT FROM customers_apikey AS key
          WHERE key.id = api_key AND key.organisation_id = event.organisation_id
            AND key.revoked_at IS NULL AND 'ingest' = ANY (key.scopes)
            AND (key.expires_at IS NULL OR key.expires_at > clock_timestamp())))
    RETURNING id, received_at INTO batch, stored_at;
    IF batch IS NOT NULL AND accepted > 0 THEN
        INSERT INTO usage_pendingbatch (batch_id, usage_event_id) VALUES (batch, usage_event);
    END IF;
    IF batch IS NOT NULL AND records > 0 THEN
        ids := ARRAY (SELECT nextval('usage_usagerecord_id_seq') FROM generate_series(1, records));
    END IF;
END $$;
"""

STORE_FRESH = """
CREATE FUNCTION tallybook_store_fresh(sent json, OUT batch bigint, OUT microseconds bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    head record;
    stored_at timestamptz;
BEGIN
    SELECT * INTO head FROM json_to_record(sent) AS head (
        usage_event_id bigint, definition_revision bigint, aliases_revision bigint, schema_version integer, source text,
        api_key_id bigint, user_id bigint, upload_id bigint, duplicates integer, rows json);
    SELECT opened.batch, opened.stored_at INTO batch, stored_at
    FROM tallybook_open_batch(head.usage_event_id, head.definition_revision, head.aliases_revision, head.source,
                              head.api_key_id, head.user_id, head.upload_id,
                              json_array_length(head.rows), head.duplicates, 0, 0, 0, true) AS opened;
    IF batch IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO usage_usagerecord (id, usage_event_id, customer_id, timestamp, idempotency_key, data, batch_id,
                                   schema_version, received_at, revision)
    SELECT numbered.id, head.usage_event_id, numbered.customer_id, numbered.timestamp, numbered.key, numbered.data,
           batch, head.schema_version, stored_at, 1
    FROM (SELECT nextval('usage_usagerecord_id_seq') AS id, sent.*
          FROM (SELECT * FROM json_to_recordset(head.rows)
                    AS row (customer_id bigint, "timestamp" timestamptz, key text, data jsonb, index integer)
                ORDER BY index) AS sent) AS numbered
    ORDER BY numbered.key;
    microseconds := extract(epoch FROM stored_at) * 1000000;
END $$;
"""

DROP_OPEN_BATCH = """
DROP FUNCTION tallybook_open_batch(
    bigint, bigint, bigint, text, bigint, bigint, bigint, integer, integer, integer, integer, integer, boolean);
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0009_store_at_once")]

    operations = [
        migrations.RunSQL(BEFORE.BACKWARD, BEFORE.FORWARD),
        migrations.RunSQL(OPEN_BATCH, DROP_OPEN_BATCH),
        migrations.RunSQL(STORE_FRESH, "DROP FUNCTION tallybook_store_fresh(json)"),
    ]
