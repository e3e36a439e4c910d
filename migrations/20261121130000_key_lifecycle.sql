-- The life of a signing key. The times say what is: every issuer signs, by its own clock, with the key whose time it is (issuer/src/keys/ring.rs);
-- the states follow, written by one leader (issuer/src/keys/rotation.rs). What must never happen is refused here too.

set local lock_timeout = '5s';

alter table signing_keys
    -- Signs from then on. Null: no instant was named yet.
    add column activates_at timestamptz default now(),
    -- Up to then. Null: until a successor is named.
    add column signs_until timestamptz,
    -- The longest that anything signed with it lives, of all that was possible in its time. It only grows. The default is the longest there is.
    add column longest_lifetime_seconds integer not null default 86400 check (longest_lifetime_seconds > 0),
    -- Verified until then: set by the trigger below.
    add column retires_at timestamptz,
    -- By an operator, before everything signed with it had expired.
    add column retired_early boolean not null default false,
    add column revoked_at timestamptz,
    add column revocation_reason text check (char_length(revocation_reason) between 1 and 500),
    -- Of a system that is being replaced, and only verified with: the public part alone is kept. What is sealed in its row is that part, so that write
    -- access to the table isn't enough to have a key trusted.
    add column public_only boolean not null default false,
    add constraint signing_keys_public_only check (not public_only or state in ('retiring', 'retired')),
    add constraint signing_keys_dated check (state in ('pending', 'retired') or activates_at is not null),
    add constraint signing_keys_ended check (state <> 'retiring' or signs_until is not null),
    add constraint signing_keys_revoked check (revoked_at is null or state = 'retired'),
    add constraint signing_keys_revoked_why check ((revoked_at is null) = (revocation_reason is null));

-- The keys of before are as old as they are.
update signing_keys set activates_at = created_at;

-- Each algorithm that is in use has a key.
drop index signing_keys_one_active;
create unique index signing_keys_one_active on signing_keys (purpose, algorithm) where state = 'active';
-- And one successor at most.
create unique index signing_keys_one_scheduled on signing_keys (purpose, algorithm) where state = 'pending' and activates_at is not null;

create function countersign_key_moves() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        if not (new.state in ('pending', 'active') or (new.state = 'retiring' and new.public_only)) then
            raise exception 'a signing key begins as pending or active, not as %', new.state using errcode = 'check_violation';
        end if;
    elsif new.state <> old.state then
        if not (
            (old.state, new.state) in (('pending', 'active'), ('active', 'retiring'), ('retiring', 'retired'), ('pending', 'retired'))
            or (old.state = 'active' and new.state = 'retired' and new.revoked_at is not null)
        ) then
            raise exception 'signing key %: % can''t become %', new.kid, old.state, new.state using errcode = 'check_violation';
        end if;
        if new.state = 'active' and (new.activates_at is null or new.activates_at > clock_timestamp()) then
            raise exception 'signing key % is not to sign yet', new.kid using errcode = 'check_violation';
        end if;
        if new.state = 'retiring' and new.signs_until is null then
            new.signs_until := now();
        end if;
        if new.state = 'retired' and old.state = 'retiring' and old.retires_at > clock_timestamp()
            and new.revoked_at is null and not new.retired_early
        then
            raise exception 'signing key % is still verified with', new.kid using errcode = 'check_violation';
        end if;
    end if;
    if tg_op = 'UPDATE' then
        if new.longest_lifetime_seconds < old.longest_lifetime_seconds then
            raise exception 'signing key %: what it has signed lives as long as it did', new.kid using errcode = 'check_violation';
        end if;
        if old.revoked_at is not null and new.revoked_at is null then
            raise exception 'signing key % is revoked for good', new.kid using errcode = 'check_violation';
        end if;
    end if;
    -- The last that was signed with it has expired by then, on clocks that are half a minute slow too.
    new.retires_at := new.signs_until + (new.longest_lifetime_seconds + 30) * interval '1 second';
    return new;
end
$$;

create trigger signing_keys_move before insert or update on signing_keys
    for each row execute function countersign_key_moves();

-- One row: what concerns the keys together.
create table key_state (
    singleton            boolean primary key default true check (singleton),
    -- Grows with every change of this table or of `signing_keys`: who has read the keys at this version has the newest.
    version              bigint not null default 1,
    -- The longest that an issuer has told others to keep its JWK Set: no new key signs sooner after it was published.
    jwks_max_age_seconds integer not null default 300 check (jwks_max_age_seconds between 0 and 86400),
    -- When an issuer said so last: only that long after may it be less.
    jwks_max_age_stated_at timestamptz not null default now(),
    -- What tokens are signed with where their resource server doesn't say; and what from an instant on.
    token_algorithm      text not null default 'RS256' check (token_algorithm in ('RS256', 'PS256', 'ES256', 'EdDSA')),
    next_token_algorithm text check (next_token_algorithm in ('RS256', 'PS256', 'ES256', 'EdDSA')),
    next_token_from      timestamptz,
    constraint key_state_next check ((next_token_algorithm is null) = (next_token_from is null))
);

insert into key_state default values;

-- Every issuer hears of it (`keys:` on the channel of all such announcements), and looks by itself twice a second in case it doesn't.
-- To say the same max-age once more is no change that anybody has to hear of. (An update that changes nothing is one: so changes of `signing_keys` are told.)
create function countersign_key_state_changed() returns trigger language plpgsql as $$
begin
    if new.jwks_max_age_stated_at is distinct from old.jwks_max_age_stated_at
        and (new.version, new.jwks_max_age_seconds, new.token_algorithm, new.next_token_algorithm, new.next_token_from)
            is not distinct from (old.version, old.jwks_max_age_seconds, old.token_algorithm, old.next_token_algorithm, old.next_token_from)
    then
        return new;
    end if;
    -- A database restored from a backup counts on from an older number, and an issuer that ran meanwhile could meet the number that it knows with other
    -- keys behind it: `countersign recover` takes it far beyond. Whatever it is set to, it grows.
    new.version := greatest(old.version + 1, new.version);
    perform pg_notify('countersign_changed', 'keys:' || new.version);
    return new;
end
$$;

create trigger key_state_changed before update on key_state
    for each row execute function countersign_key_state_changed();

create function countersign_keys_changed() returns trigger language plpgsql as $$
begin
    update key_state set version = version;
    return null;
end
$$;

create trigger signing_keys_changed after insert or update or delete on signing_keys
    for each row execute function countersign_keys_changed();
create trigger signing_keys_truncated after truncate on signing_keys
    for each statement execute function countersign_keys_changed();

-- Null: what the installation signs with.
alter table resource_servers
    add column signing_algorithm text check (signing_algorithm in ('RS256', 'PS256', 'ES256', 'EdDSA'));

-- A resource server's tokens may live longer from now on: so may those that are signed with today's keys.
create function countersign_lifetime_raised() returns trigger language plpgsql as $$
begin
    if exists (
        select from signing_keys where purpose = 'token' and state in ('pending', 'active')
        and longest_lifetime_seconds < new.token_lifetime_seconds
    ) then
        -- Whoever changes keys holds this (storage/signing_keys.rs).
        perform pg_advisory_xact_lock(hashtextextended('countersign keys', 0));
        update signing_keys set longest_lifetime_seconds = new.token_lifetime_seconds
        where purpose = 'token' and state in ('pending', 'active') and longest_lifetime_seconds < new.token_lifetime_seconds;
    end if;
    return null;
end
$$;

create trigger resource_servers_lifetime after insert or update of token_lifetime_seconds on resource_servers
    for each row when (new.token_lifetime_seconds is not null) execute function countersign_lifetime_raised();
