"""Triggers, all per statement: records change only by an announced act, and their history does not change at all."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION tallybook_refuse_unannounced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('tallybook.act', true), '') = '' THEN
        RAISE EXCEPTION 'tallybook: % on % is refused: correct, void or restore records through their acts',
            TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER usage_record_only_by_acts BEFORE UPDATE OR DELETE ON usage_usagerecord
    FOR EACH STATEMENT EXECUTE FUNCTION tallybook_refuse_unannounced();

CREATE TRIGGER record_revision_for_ever BEFORE UPDATE OR DELETE ON usage_recordrevision
    FOR EACH STATEMENT EXECUTE FUNCTION tallybook_refuse('the history of a record is kept as it is');

CREATE TRIGGER schema_version_for_ever BEFORE UPDATE OR DELETE ON usage_schemaversion
    FOR EACH STATEMENT EXECUTE FUNCTION tallybook_refuse('records name the version that accepted them');

CREATE TRIGGER usage_event_never_deleted BEFORE DELETE ON usage_usageevent
    FOR EACH STATEMENT EXECUTE FUNCTION tallybook_refuse('usage records may point at it');

CREATE TRIGGER usage_event_keeps_its_address BEFORE UPDATE OF slug, organisation_id ON usage_usageevent
    FOR EACH ROW
    WHEN (OLD.slug IS DISTINCT FROM NEW.slug OR OLD.organisation_id IS DISTINCT FROM NEW.organisation_id)
    EXECUTE FUNCTION tallybook_refuse('senders post to it, and processes remember it');
"""

BACKWARD = """
DROP TRIGGER usage_event_keeps_its_address ON usage_usageevent;
DROP TRIGGER usage_event_never_deleted ON usage_usageevent;
DROP TRIGGER schema_version_for_ever ON usage_schemaversion;
DROP TRIGGER record_revision_for_ever ON usage_recordrevision;
DROP TRIGGER usage_record_only_by_acts ON usage_usagerecord;
DROP FUNCTION tallybook_refuse_unannounced();
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_physical_keys"), ("customers", "0002_kept_for_ever")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
