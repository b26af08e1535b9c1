"""A correction as one statement: before-image, marks and change, or nothing if the record is not as it was read."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION tallybook_correct_record(sent json) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    change record;
    old usage_usagerecord;
BEGIN
    SELECT * INTO change FROM json_to_record(sent) AS change (
        record_id bigint, usage_event_id bigint, revision integer, definition_revision bigint,
        customer_id bigint, "timestamp" timestamptz, data jsonb, schema_version integer,
        reason text, actor_id bigint, actor_name text);
    -- A statement of its own: those that follow see what was published while this one waited.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('schema', change.usage_event_id));
    SELECT * INTO old FROM usage_usagerecord AS record
    WHERE record.id = change.record_id AND record.usage_event_id = change.usage_event_id FOR UPDATE;
    IF old.revision IS DISTINCT FROM change.revision OR old.voided_at IS NOT NULL OR NOT EXISTS (
            SELECT FROM usage_usageevent AS event
            WHERE event.id = change.usage_event_id AND event.revision = change.definition_revision) THEN
        RETURN false;
    END IF;
    INSERT INTO usage_recordrevision (usage_event_id, record_id, revision, action, customer_id, sender_customer_id,
                                      timestamp, data, voided_at, reason, actor_id, actor_name, created_at)
    SELECT old.usage_event_id, old.id, old.revision, 'correct', old.customer_id, customer.external_id, old.timestamp,
           old.data, old.voided_at, change.reason, change.actor_id, change.actor_name, clock_timestamp()
    FROM customers_customer AS customer WHERE customer.id = old.customer_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'customer % of record % is not there', old.customer_id, old.id;
    END IF;
    INSERT INTO usage_changedwindow (usage_event_id, customer_id, window_start)
    VALUES (old.usage_event_id, old.customer_id, date_bin('1 hour', old.timestamp, '2000-01-01Z'));
    IF change.customer_id IS NOT NULL OR change.timestamp IS NOT NULL THEN
        INSERT INTO usage_changedwindow (usage_event_id, customer_id, window_start)
        VALUES (old.usage_event_id, coalesce(change.customer_id, old.customer_id),
                date_bin('1 hour', coalesce(change.timestamp, old.timestamp), '2000-01-01Z'));
    END IF;
    PERFORM set_config('tallybook.act', 'correct_record', true);
    UPDATE usage_usagerecord AS record
    SET customer_id = coalesce(change.customer_id, old.customer_id),
        timestamp = coalesce(change.timestamp, old.timestamp),
        data = coalesce(change.data, old.data),
        schema_version = coalesce(change.schema_version, old.schema_version),
        revision = old.revision + 1
    WHERE record.id = old.id AND record.usage_event_id = old.usage_event_id;
    RETURN true;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0010_open_batch")]

    operations = [migrations.RunSQL(FORWARD, "DROP FUNCTION tallybook_correct_record(json)")]
