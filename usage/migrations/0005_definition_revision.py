"""Every change of a usage event counts its revision up, and the quarantine's table gets its physical key."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION tallybook_next_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision = OLD.revision + 1;
    RETURN NEW;
END $$;

CREATE TRIGGER usage_event_counts_its_changes BEFORE UPDATE ON usage_usageevent
    FOR EACH ROW EXECUTE FUNCTION tallybook_next_revision();

ALTER TABLE usage_rejectedrecord
    DROP CONSTRAINT usage_rejectedrecord_pkey, ADD PRIMARY KEY (id, usage_event_id);
"""

BACKWARD = """
ALTER TABLE usage_rejectedrecord DROP CONSTRAINT usage_rejectedrecord_pkey, ADD PRIMARY KEY (id);
DROP TRIGGER usage_event_counts_its_changes ON usage_usageevent;
DROP FUNCTION tallybook_next_revision();
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0004_quarantine")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
