-- Token Status Lists (issuer/src/status_lists): for verifiers that know no revoked set of ours.

set local lock_timeout = '5s';

alter table resource_servers
    -- Whether its tokens say where their status can be read.
    add column status_list boolean not null default false;

alter table serial_shards
    -- Serials below it are those of tokens that ended with a recovery, and of which nothing else may be known.
    add column status_floor bigint not null default 0 check (status_floor between 0 and 68719476736);

-- Tokens that say where their status can be read, for as long as they may live. Others have no rows: a not-before rule ends them wherever it is known, and
-- a list has to say it of each. Written with the token's audit event.
create table status_tokens (
    shard         integer not null check (shard between 0 and 16777215),
    serial        bigint not null check (serial between 0 and 68719476735),
    -- No foreign keys: they would lock rows of tenants and agents with every token.
    tenant_id     uuid not null,
    agent_id      uuid not null,
    credential_id uuid not null,
    kid           text not null,
    issued_at     bigint not null, -- `iat`
    primary key (shard, serial)
);

alter table status_tokens enable row level security;
alter table status_tokens force row level security;
create policy confined on status_tokens using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));
