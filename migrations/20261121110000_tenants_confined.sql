-- Tenants get their limits, and the database itself confines every query to one tenant.

set local lock_timeout = '5s';

alter table tenants
    -- The one whose administrators may manage the others: bootstrap's.
    add column is_platform boolean not null default false,
    add column plan text not null default 'free' check (plan in ('free', 'paid')),
    -- Tokens a calendar month (UTC). Null: the plan's.
    add column monthly_token_quota bigint check (monthly_token_quota >= 0),
    -- Requests a minute, of the tenant as a whole and of each of its clients. Null: the issuer's settings.
    add column requests_per_minute integer check (requests_per_minute > 0),
    add column client_requests_per_minute integer check (client_requests_per_minute > 0),
    add column max_agents integer check (max_agents > 0),
    -- Counts changes: the entity tag.
    add column revision bigint not null default 1,
    add column updated_at timestamptz not null default now();

alter table tenants drop constraint tenants_status_check;
alter table tenants add constraint tenants_status_check check (status in ('active', 'suspended', 'decommissioned'));

update tenants set is_platform = true, plan = 'paid'
where tenant_id = (select tenant_id from tenants order by created_at, tenant_id limit 1);

-- Its administrators of before get the management scopes that are new.
update agents set scopes = (
    select array_agg(distinct scope order by scope)
    from unnest(scopes || '{audit:read,credentials:read,resource_servers:read,resource_servers:write,tenants:read,tenants:write}') as scope)
where tenant_id = (select tenant_id from tenants where is_platform)
and scopes @> '{agents:read,agents:write,credentials:write,tokens:introspect,tokens:revoke}';

create unique index tenants_one_platform on tenants (is_platform) where is_platform;

alter table agents add column revision bigint not null default 1;

alter table resource_servers
    add column name text check (char_length(name) between 1 and 200),
    -- The agent that this API itself authenticates as: it may introspect the tokens that are for it.
    add column agent_id uuid,
    add column revision bigint not null default 1,
    add column updated_at timestamptz not null default now(),
    add foreign key (tenant_id, agent_id) references agents (tenant_id, agent_id);

-- Each ends the tokens of its subject that were issued up to an instant (countersign-shared, revocation::Level).
create table not_before_rules (
    level      smallint not null check (level between 0 and 4),
    subject    bytea not null, -- a UUID's 16 bytes; a kid's characters; nothing for the global one
    tenant_id  uuid references tenants, -- whose it is; null: the installation's
    not_before bigint not null, -- Unix time: tokens with iat ≤ this are ended
    updated_at timestamptz not null default now(),
    primary key (level, subject)
);

-- The outbox carries them too: an entry is a serial or a rule.
alter table revocation_outbox
    alter column shard drop not null,
    alter column serial drop not null,
    add column rule_level smallint check (rule_level between 0 and 4),
    add column rule_subject bytea,
    add column not_before bigint,
    add constraint revocation_outbox_serial_or_rule check (
        num_nulls(shard, serial) in (0, 2) and num_nulls(rule_level, rule_subject, not_before) in (0, 3)
        and (shard is null) <> (rule_level is null));

create index revocation_outbox_by_not_before on revocation_outbox (not_before) where not_before is not null;

-- By the operator at the command line, who is no agent.
alter table revocations alter column revoked_by drop not null;

-- Row-level security: a transaction sees the tenant that `countersign.tenant` names, nothing where it names none, and everything
-- where it is `*`, which only the issuer's own connections set (issuer/src/storage/mod.rs). Forced, so that it holds for the tables' owner
-- too. Superusers and roles with BYPASSRLS escape it: `countersign serve` refuses to run as one.
alter table tenants enable row level security;
alter table tenants force row level security;
create policy confined on tenants using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));

alter table resource_servers enable row level security;
alter table resource_servers force row level security;
create policy confined on resource_servers using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));

alter table agents enable row level security;
alter table agents force row level security;
create policy confined on agents using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));

alter table credentials enable row level security;
alter table credentials force row level security;
create policy confined on credentials using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));

alter table revocations enable row level security;
alter table revocations force row level security;
create policy confined on revocations using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));

alter table not_before_rules enable row level security;
alter table not_before_rules force row level security;
create policy confined on not_before_rules using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));
