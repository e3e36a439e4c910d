-- A database restored from a backup counts the changes of its keys on from an older number. An issuer that ran meanwhile could meet the number that
-- it knows with other keys behind it: `countersign recover` takes it far beyond (issuer/src/management/recovery.rs).

set local lock_timeout = '5s';

create or replace function countersign_key_state_changed() returns trigger language plpgsql as $$
begin
    if new.jwks_max_age_stated_at is distinct from old.jwks_max_age_stated_at
        and (new.version, new.jwks_max_age_seconds, new.token_algorithm, new.next_token_algorithm, new.next_token_from)
            is not distinct from (old.version, old.jwks_max_age_seconds, old.token_algorithm, old.next_token_algorithm, old.next_token_from)
    then
        return new;
    end if;
    -- Whatever it is set to, it grows.
    new.version := greatest(old.version + 1, new.version);
    perform pg_notify('countersign_changed', 'keys:' || new.version);
    return new;
end
$$;
