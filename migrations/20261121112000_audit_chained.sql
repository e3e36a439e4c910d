-- The audit log in two stages, so that its chains put no lock in a request's way: requests insert into `audit_queue`, and one sealer moves
-- what is there into `audit_events`, each event with its place in its tenant's chain (issuer/src/audit, docs/design.md).

set local lock_timeout = '5s';

-- The UUID of an event that is from before: its time, as the issuer makes them (docs/reference/formats.md), and chance.
create function audit_event_id(occurred_at timestamptz) returns uuid language sql as $$
    select (lpad(to_hex(micros / 1000), 12, '0') || '7' || lpad(to_hex(micros % 1000 * 4096 / 1000), 3, '0')
            || substr('89ab', 1 + floor(random() * 4)::int, 1) || right(replace(gen_random_uuid()::text, '-', ''), 15))::uuid
    from (select floor(extract(epoch from occurred_at) * 1000000)::bigint as micros) as time
$$;

-- What isn't sealed yet. No tenant's row is locked by it, and nothing here is ever updated.
create table audit_queue (
    queue_id       bigint generated always as identity primary key,
    event_id       uuid not null,
    occurred_at    timestamptz not null,
    -- Nil: it concerns no tenant, and is in the installation's chain. No foreign key: it would lock the tenant's row with every token.
    tenant_id      uuid not null,
    actor_agent_id uuid,
    action         text not null,
    outcome        text not null check (outcome in ('success', 'failure')),
    target_type    text,
    target_id      text,
    request_id     text,
    -- Text, and `details` as json: both stay what they are to the byte, because hashes are made of them.
    client_ip      text,
    user_agent     text,
    details        json not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- What was there is queued first, in its order.
insert into audit_queue (event_id, occurred_at, tenant_id, actor_agent_id, action, outcome, target_type, target_id, request_id, client_ip,
                         user_agent, details)
select audit_event_id(occurred_at), occurred_at, coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), actor_agent_id, action, outcome,
       target_type, target_id, request_id, host(client_ip), user_agent, details::text::json
from audit_events order by audit_event_id;

drop table audit_events;
drop function audit_event_id;

-- Sealed events. A chain is a tenant's rows in the order of `seq`, without gaps; `recorded_at`, the sealer's time, never goes back in it. So
-- the oldest partitions hold the beginnings of the chains, and can be dropped.
create table audit_events (
    tenant_id      uuid not null,
    seq            bigint not null check (seq > 0),
    recorded_at    timestamptz not null,
    event_id       uuid not null,
    occurred_at    timestamptz not null,
    actor_agent_id uuid,
    action         text not null,
    outcome        text not null check (outcome in ('success', 'failure')),
    target_type    text,
    target_id      text,
    request_id     text,
    client_ip      text,
    user_agent     text,
    details        json not null,
    -- Of the event before it in the chain and all of the above (docs/reference/formats.md).
    hash           bytea not null check (octet_length(hash) = 32),
    primary key (tenant_id, seq, recorded_at)
) partition by range (recorded_at);

-- Lists are in the order of `event_id`, which is that of `occurred_at`. Most rows are tokens issued, so what has few other values is indexed
-- without those: there the first index serves as well.
create index audit_events_by_id on audit_events (tenant_id, event_id);
create index audit_events_by_actor on audit_events (tenant_id, actor_agent_id, event_id) where actor_agent_id is not null;
create index audit_events_by_target on audit_events (tenant_id, target_id, event_id) where target_id is not null;
create index audit_events_by_target_type on audit_events (tenant_id, target_type, event_id) where target_type <> 'token';
create index audit_events_by_action on audit_events (tenant_id, action, event_id) where action <> 'token.issued';
create index audit_events_of_failures on audit_events (tenant_id, event_id) where outcome = 'failure';

create or replace function audit_events_refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'audit_events is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end
$$;

create trigger audit_events_append_only before update or delete or truncate on audit_events
    for each statement execute function audit_events_refuse_change();

-- Where each chain ends: what it takes to notice that its last rows are gone.
create table audit_chains (
    tenant_id   uuid primary key,
    seq         bigint not null check (seq > 0),
    hash        bytea not null check (octet_length(hash) = 32),
    recorded_at timestamptz not null
);

-- Where each chain begins, after its beginning was dropped: the last event that went.
create table audit_checkpoints (
    tenant_id   uuid not null,
    seq         bigint not null check (seq > 0),
    hash        bytea not null check (octet_length(hash) = 32),
    pruned_at   timestamptz not null default now(),
    primary key (tenant_id, seq)
);

create trigger audit_checkpoints_append_only before update or delete or truncate on audit_checkpoints
    for each statement execute function audit_events_refuse_change();

-- Makes the partition of the week that begins on `week`, a Monday (UTC). It is attached rather than made as a partition: that doesn't wait for
-- those who read.
create function audit_add_partition(week date) returns void language plpgsql as $$
declare
    partition constant text := 'audit_events_' || to_char(week, 'YYYYMMDD');
begin
    if to_regclass(partition) is not null then
        return;
    end if;
    execute format('create table %I (like audit_events including defaults including constraints)', partition);
    execute format('create trigger audit_events_append_only before update or delete or truncate on %I
                    for each statement execute function audit_events_refuse_change()', partition);
    perform audit_confine(partition);
    execute format('alter table audit_events attach partition %I for values from (%L) to (%L)', partition,
                   week::timestamp at time zone 'UTC', (week + 7)::timestamp at time zone 'UTC');
end
$$;

-- As for other tables (20261121110000_tenants_confined.sql); the installation's own events are the platform's to see, and nobody's to write.
create function audit_confine(relation text) returns void language plpgsql as $$
begin
    execute format('alter table %I enable row level security', relation);
    execute format('alter table %I force row level security', relation);
    execute format($policy$create policy confined on %I using (
            (select current_setting('countersign.tenant', true)) in ('*', tenant_id::text)
            or tenant_id = '00000000-0000-0000-0000-000000000000' and (
                select exists (select from tenants
                               where is_platform and tenant_id::text = current_setting('countersign.tenant', true))))
        with check ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text))$policy$, relation);
end
$$;

select audit_confine(relation)
from unnest('{audit_queue,audit_events,audit_chains,audit_checkpoints}'::text[]) as relation;

-- Drops the oldest partition if all of it was recorded before `cutoff`, and leaves each chain's checkpoint. Returns the partition's name, how many
-- events it had and of how many chains; nothing where there is none to drop.
create function audit_drop_partition(cutoff timestamptz) returns table (dropped text, events bigint, chains bigint) language plpgsql as $$
declare
    partition text;
    week      date;
begin
    select relname, to_date(right(relname, 8), 'YYYYMMDD') into partition, week
    from pg_inherits join pg_class on pg_class.oid = inhrelid
    where inhparent = 'audit_events'::regclass order by relname limit 1;
    if partition is null or (week + 7)::timestamp at time zone 'UTC' > cutoff then
        return;
    end if;
    -- From chain to chain by the index: a partition may have millions of rows of few tenants.
    return query execute format('
        with recursive chain as (
            (select tenant_id from %1$I order by tenant_id limit 1)
            union all
            select (select tenant_id from %1$I where tenant_id > chain.tenant_id order by tenant_id limit 1)
            from chain where chain.tenant_id is not null
        ), ends as (
            select chain.tenant_id, first.seq as first, last.seq as last, last.hash
            from chain
            cross join lateral (select seq from %1$I where tenant_id = chain.tenant_id order by seq limit 1) first
            cross join lateral (select seq, hash from %1$I where tenant_id = chain.tenant_id order by seq desc limit 1) last
        ), checkpoints as (
            insert into audit_checkpoints (tenant_id, seq, hash) select tenant_id, last, hash from ends
            on conflict do nothing
        )
        select %1$L::text, coalesce(sum(last - first + 1), 0)::bigint, count(*) from ends', partition);
    execute format('drop table %I', partition);
end
$$;
