#!/bin/bash
# At the first start: the role that issuers run as, and its database. Not the superuser, whom row-level security doesn't bind: `countersign serve` refuses to run as one.
set -euo pipefail
# The password by the environment, so that it is in no command line; psql quotes it.
psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv password DATABASE_PASSWORD
create role countersign login password :'password';
create database countersign owner countersign;
SQL
