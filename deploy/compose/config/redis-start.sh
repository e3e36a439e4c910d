#!/bin/sh
# Redis takes no password from a file of its own, and command lines are public: so the configuration is put together where nobody else looks.
set -eu
umask 077
folder=${REDIS_RUN:-/run/redis}
{
  cat "${REDIS_BASE:-/etc/countersign/redis.conf}"
  printf 'requirepass %s\n' "$(cat "${REDIS_PASSWORD_FILE:-/run/secrets/redis_password}")"
} >"$folder/redis.conf"
# The image's entrypoint goes on as the user redis.
if [ "$(id -u)" = 0 ] && command -v docker-entrypoint.sh >/dev/null; then
  chown redis "$folder/redis.conf"
  exec docker-entrypoint.sh redis-server "$folder/redis.conf"
fi
exec redis-server "$folder/redis.conf"
