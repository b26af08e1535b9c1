#!/bin/sh
# Runs once, when the database container makes its data. The image's own role is a superuser; the application's is not:
# it owns its database, and may make the roles that each organisation's SQL metrics run under.
set -eu
psql --username postgres --set ON_ERROR_STOP=1 --set password="$APPLICATION_PASSWORD" <<'SQL'
CREATE ROLE tallybook LOGIN NOSUPERUSER NOCREATEDB CREATEROLE PASSWORD :'password';
CREATE DATABASE tallybook OWNER tallybook;
\connect tallybook
-- Readers of one organisation may not hold the locks that ingestion and folds wait for, nor store or fill the disk.
DO $$
DECLARE function regprocedure;
BEGIN
    FOR function IN SELECT oid FROM pg_proc WHERE proname ~ '^pg_(try_)?advisory_(xact_)?lock' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallybook', function);
    END LOOP;
    FOR function IN SELECT oid FROM pg_proc WHERE proname ~ '^(lo_|lowrite|loread|pg_logical_emit_message)' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END $$;
GRANT SET ON PARAMETER temp_file_limit TO tallybook;
SQL
