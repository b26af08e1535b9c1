"""Plans that do not go by how many rows a usage event had when the table was last analyzed.

A usage event that is newer than the statistics would be taken for empty, and then every index that begins with it looks
as good as the right one: looking a thousand identities up read all its records a thousand times. Without statistics of
that column each usage event is taken for one of two hundred, and the index that names more of what is asked for wins.
"""

from django.db import migrations

TABLES = ("usage_usagerecord", "usage_recordrevision", "usage_rejectedrecord")

# What was gathered before stays in force otherwise; before PostgreSQL 18 only a superuser could take it away.
FORGET = """
DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        PERFORM pg_clear_attribute_stats(current_schema(), '{table}', 'usage_event_id', false);
    END IF;
END $$
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0011_correct_record")]

    operations = [
        operation
        for table in TABLES
        for operation in (
            migrations.RunSQL(
                f"ALTER TABLE {table} ALTER COLUMN usage_event_id SET STATISTICS 0",
                f"ALTER TABLE {table} ALTER COLUMN usage_event_id SET STATISTICS -1",
            ),
            migrations.RunSQL(FORGET.format(table=table), migrations.RunSQL.noop),
        )
    ]
