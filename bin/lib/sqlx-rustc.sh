#!/usr/bin/env bash
# A RUSTC_WORKSPACE_WRAPPER (see sqlx.mjs): compiles a crate with sqlx's macros asking the database at QUERY_DATABASE_URL and
# writing what it says to QUERY_DATA_DIR, in a folder for each crate that is emptied first. Cargo keeps what it builds
# with a wrapper apart from what it builds without: ordinary builds stay up to date, and so does this one.
set -euo pipefail

crate=unknown
kind=
previous=
for argument in "$@"; do
  [ "$previous" = --crate-name ] && crate=$argument
  [ "$argument" = --test ] && kind=-test
  previous=$argument
done

folder="$QUERY_DATA_DIR/$crate$kind"
rm -rf "$folder"
mkdir -p "$folder"
DATABASE_URL=$QUERY_DATABASE_URL SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$folder exec "$@"
