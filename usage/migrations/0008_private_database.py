"""What PostgreSQL gives to every role of the cluster, taken back: the roles of SQL metrics and BI tools need none of it.

Temporary tables, and the schema `public` with all that is in it. A role of your own that reads there (backups do not
need it) gets `GRANT USAGE ON SCHEMA public`. Where the database is not the application's, this changes nothing.
"""

from django.db import migrations

FORWARD = """
DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
"""

BACKWARD = """
GRANT USAGE ON SCHEMA public TO PUBLIC;
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("usage", "0007_list_indexes")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
