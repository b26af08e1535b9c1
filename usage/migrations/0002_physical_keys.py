"""What Django's models cannot say of the tables that grow: keys that lead with the usage event, and vacuum settings."""

from django.db import migrations

FORWARD = """
CREATE SEQUENCE usage_usagerecord_id_seq AS bigint OWNED BY usage_usagerecord.id;

ALTER TABLE usage_usagerecord
    DROP CONSTRAINT usage_usagerecord_pkey, ADD PRIMARY KEY (id, usage_event_id),
    ALTER COLUMN revision SET DEFAULT 1;
ALTER TABLE usage_ingestbatch DROP CONSTRAINT usage_ingestbatch_pkey CASCADE, ADD PRIMARY KEY (id, usage_event_id);
ALTER TABLE usage_pendingbatch DROP CONSTRAINT usage_pendingbatch_pkey, ADD PRIMARY KEY (usage_event_id, batch_id);
ALTER TABLE usage_changedwindow
    DROP CONSTRAINT usage_changedwindow_pkey, ADD PRIMARY KEY (usage_event_id, customer_id, window_start, id);
ALTER TABLE usage_recordrevision
    DROP CONSTRAINT usage_recordrevision_pkey, ADD PRIMARY KEY (id, usage_event_id);

-- Rows come and go every second: vacuum by a number of dead rows, not by a share of a table that is mostly empty.
ALTER TABLE usage_pendingbatch SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE usage_changedwindow SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
"""

BACKWARD = """
ALTER TABLE usage_changedwindow RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
ALTER TABLE usage_pendingbatch RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
ALTER TABLE usage_recordrevision DROP CONSTRAINT usage_recordrevision_pkey, ADD PRIMARY KEY (id);
ALTER TABLE usage_changedwindow DROP CONSTRAINT usage_changedwindow_pkey, ADD PRIMARY KEY (id);
ALTER TABLE usage_pendingbatch DROP CONSTRAINT usage_pendingbatch_pkey, ADD PRIMARY KEY (batch_id);
ALTER TABLE usage_ingestbatch DROP CONSTRAINT usage_ingestbatch_pkey, ADD PRIMARY KEY (id);
ALTER TABLE usage_usagerecord
    DROP CONSTRAINT usage_usagerecord_pkey, ADD PRIMARY KEY (id), ALTER COLUMN revision DROP DEFAULT;
DROP SEQUENCE usage_usagerecord_id_seq;
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
