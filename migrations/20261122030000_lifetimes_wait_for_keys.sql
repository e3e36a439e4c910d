-- A resource server's tokens may live longer from now on. Whether any key has to remember that is looked at only once nobody is changing keys: one that
-- is being made just then isn't seen before, and wouldn't be kept for as long as its tokens live.

set local lock_timeout = '5s';

create or replace function countersign_lifetime_raised() returns trigger language plpgsql as $$
begin
    -- Whoever changes keys holds this, and reads the lifetimes when it has it (storage/signing_keys.rs). Held until this transaction ends, so that the
    -- next reads this one's.
    perform pg_advisory_xact_lock(hashtextextended('countersign keys', 0));
    update signing_keys set longest_lifetime_seconds = new.token_lifetime_seconds
    where purpose = 'token' and state in ('pending', 'active') and longest_lifetime_seconds < new.token_lifetime_seconds;
    return null;
end
$$;
