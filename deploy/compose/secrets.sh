#!/bin/sh
# Makes the secrets that compose.yaml names, in secrets/ beside it, and .env with their group. What is there already stays as it is.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

# secret NAME COMMAND…: a file with what the command prints, for its owner and the group.
secret() {
  name=$1
  shift
  [ -e "secrets/$name" ] && return
  "$@" >"secrets/$name.partial"
  chmod 640 "secrets/$name.partial"
  mv "secrets/$name.partial" "secrets/$name"
  echo "made secrets/$name"
}

for name in postgres_password database_password redis_password admin_token grafana_password; do
  secret "$name" openssl rand -hex 32
done
secret master_key openssl rand -base64 32
secret backup_key openssl rand -base64 32
secret database_url printf 'postgres://countersign:%s@postgres:5432/countersign\n' "$(cat secrets/database_password)"
secret redis_url printf 'redis://:%s@redis:6379\n' "$(cat secrets/redis_password)"

if [ ! -e .env ]; then
  cp .env.example .env
  echo "made .env: say in it what the issuer is called"
fi
grep -q '^SECRETS_GID=' .env || echo "SECRETS_GID=$(id -g)" >>.env
