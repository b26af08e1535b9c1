"""Every change of an organisation's aliases is told to the processes that remember them."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION tallybook_aliases_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE customers_organisation SET aliases_revision = aliases_revision + 1
    WHERE id IN (OLD.organisation_id, NEW.organisation_id);
    RETURN NULL;
END $$;

CREATE TRIGGER customer_alias_changed AFTER INSERT OR UPDATE OR DELETE ON customers_customeralias
    FOR EACH ROW EXECUTE FUNCTION tallybook_aliases_changed();
"""

BACKWARD = """
DROP TRIGGER customer_alias_changed ON customers_customeralias;
DROP FUNCTION tallybook_aliases_changed();
"""


class Migration(migrations.Migration):
    dependencies = [("customers", "0003_aliases")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
