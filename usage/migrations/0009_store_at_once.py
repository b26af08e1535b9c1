"""A small batch in one round trip: what open_batch and insert_fresh do, as one statement that commits by itself."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION tallybook_store_fresh(
    usage_event bigint, definition_revision bigint, aliases_revision bigint, schema_version integer,
    source text, api_key bigint, person bigint, upload bigint, duplicates integer, rows json,
    OUT batch bigint, OUT stored_at timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- A statement of its own: those that follow see what was published while this one waited.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('schema', usage_event));
    INSERT INTO usage_ingestbatch (usage_event_id, source, api_key_id, user_id, upload_id,
                                   accepted, duplicates, conflicts, rejected, received_at)
    SELECT event.id, tallybook_store_fresh.source, api_key, person, upload,
           json_array_length(rows), tallybook_store_fresh.duplicates, 0, 0, clock_timestamp()
    FROM usage_usageevent AS event JOIN customers_organisation AS organisation ON organisation.id = event.organisation_id
    WHERE event.id = usage_event AND event.archived_at IS NULL
      AND event.revision = definition_revision
      AND organisation.aliases_revision = tallybook_store_fresh.aliases_revision
      AND (api_key IS NULL OR EXISTS (
          SELECT FROM customers_apikey AS key
          WHERE key.id = api_key AND key.organisation_id = event.organisation_id
            AND key.revoked_at IS NULL AND 'ingest' = ANY (key.scopes)
            AND (key.expires_at IS NULL OR key.expires_at > clock_timestamp())))
      AND NOT EXISTS (SELECT FROM usage_rejectedrecord AS waiting
                      WHERE waiting.usage_event_id = usage_event AND waiting.status = 'open'
                        AND waiting.idempotency_key IS NOT NULL)
    RETURNING id, received_at INTO batch, stored_at;
    IF batch IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO usage_pendingbatch (batch_id, usage_event_id) VALUES (batch, usage_event);
    INSERT INTO usage_usagerecord (id, usage_event_id, customer_id, timestamp, idempotency_key, data, batch_id,
                                   schema_version, received_at, revision)
    SELECT numbered.id, usage_event, numbered.customer_id, numbered.timestamp, numbered.key, numbered.data, batch,
           tallybook_store_fresh.schema_version, stored_at, 1
    FROM (SELECT nextval('usage_usagerecord_id_seq') AS id, sent.*
          FROM (SELECT * FROM json_to_recordset(rows)
                    AS row (customer_id bigint, "timestamp" timestamptz, key text, data jsonb, index integer)
                ORDER BY index) AS sent) AS numbered
    ORDER BY numbered.key;
END $$;
"""

BACKWARD = """
DROP FUNCTION tallybook_store_fresh(
    bigint, bigint, bigint, integer, text, bigint, bigint, bigint, integer, json);
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0008_private_database")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
