"""Customers keep their organisation and external id for ever, and are never deleted: records point at them unchecked."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION tallybook_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tallybook: % on % is refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER customer_never_deleted BEFORE DELETE ON customers_customer
    FOR EACH STATEMENT EXECUTE FUNCTION tallybook_refuse('usage records may point at it');

CREATE TRIGGER customer_keeps_its_identity BEFORE UPDATE OF external_id, organisation_id ON customers_customer
    FOR EACH ROW
    WHEN (OLD.external_id IS DISTINCT FROM NEW.external_id OR OLD.organisation_id IS DISTINCT FROM NEW.organisation_id)
    EXECUTE FUNCTION tallybook_refuse('processes remember which customer an external id means');
"""

BACKWARD = """
DROP TRIGGER customer_keeps_its_identity ON customers_customer;
DROP TRIGGER customer_never_deleted ON customers_customer;
DROP FUNCTION tallybook_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("customers", "0001_initial")]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
