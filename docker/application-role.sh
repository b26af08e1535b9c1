#!/bin/sh
# Runs once, when the database container makes its data. The image's own role is a superuser; the application's is not:
# it owns its database, and may make the roles that each organisation's SQL metrics run under.
set -eu
psql --username postgres --set ON_ERROR_STOP=1 --set password="$APPLICATION_PASSWORD" <<'SQL'
CREATE ROLE tallybook LOGIN NOSUPERUSER NOCREATEDB CREATEROLE PASSWORD :'password';
CREATE DATABASE tallybook OWNER tallybook;
SQL
