-- When an issuer said last that its JWK Set may be kept for `jwks_max_age_seconds`: only that long after may it be less.

set local lock_timeout = '5s';

alter table key_state add column jwks_max_age_stated_at timestamptz not null default now();

-- To say the same once more is no change that anybody has to hear of. (An update that changes nothing is one: so changes of `signing_keys` are told.)
create or replace function countersign_key_state_changed() returns trigger language plpgsql as $$
begin
    if new.jwks_max_age_stated_at is distinct from old.jwks_max_age_stated_at
        and (new.version, new.jwks_max_age_seconds, new.token_algorithm, new.next_token_algorithm, new.next_token_from)
            is not distinct from (old.version, old.jwks_max_age_seconds, old.token_algorithm, old.next_token_algorithm, old.next_token_from)
    then
        return new;
    end if;
    new.version := old.version + 1;
    perform pg_notify('countersign_changed', 'keys:' || new.version);
    return new;
end
$$;
