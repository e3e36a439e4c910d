-- Keys of a system that is being replaced. Of one that only has to be verified with, the public part alone is kept; what is sealed in its row is
-- that part, so that write access to the table isn't enough to have a key trusted.
alter table signing_keys
    add column public_only boolean not null default false,
    add constraint signing_keys_public_only check (not public_only or state in ('retiring', 'retired'));

-- As before (20261121130000), but a key without a private part begins as retiring.
create or replace function countersign_key_moves() returns trigger language plpgsql as $$
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
