-- Credentials of several kinds, rotated with overlap; and what tells every issuer that a record it keeps in memory has changed.

set local lock_timeout = '5s';

alter table credentials
    add column kind text not null default 'client_secret' check (kind in ('client_secret', 'public_key')),
    add column name text check (char_length(name) between 1 and 100),
    -- Of a client secret exactly one is there: the HMAC, or, until its first use, the bcrypt hash that was imported. Of a public
    -- key the JWK. Revoking a credential clears them.
    alter column secret_hash drop not null,
    add column bcrypt_hash text check (char_length(bcrypt_hash) = 60),
    add column public_jwk text check (char_length(public_jwk) <= 4096),
    -- What it was before it was rotated: good until `previous_until`.
    add column previous_secret_hash bytea check (octet_length(previous_secret_hash) = 32),
    add column previous_bcrypt_hash text check (char_length(previous_bcrypt_hash) = 60),
    add column previous_public_jwk text check (char_length(previous_public_jwk) <= 4096),
    add column previous_until timestamptz,
    add column rotated_at timestamptz,
    add column revoked_at timestamptz,
    -- Counts changes: the entity tag. An upgrade from bcrypt isn't one.
    add column revision bigint not null default 1,
    add column updated_at timestamptz not null default now(),
    add constraint credentials_one_verifier check (
        status <> 'active' or num_nonnulls(secret_hash, bcrypt_hash, public_jwk) = 1) not valid,
    add constraint credentials_previous_verifier check (
        num_nonnulls(previous_secret_hash, previous_bcrypt_hash, previous_public_jwk) = num_nonnulls(previous_until)) not valid;

-- For lists; tables are small where this runs first.
create index credentials_by_agent on credentials (tenant_id, agent_id, created_at, credential_id);

-- When a credential last obtained or asked for something. Beside `credentials`, so that writing it neither bloats that table nor tells anybody
-- that the credential changed. No foreign key: it would lock the credential's row. Written in batches (issuer/src/clients/uses.rs).
create table credential_uses (
    credential_id uuid primary key,
    tenant_id     uuid not null,
    last_used_at  timestamptz not null
) with (fillfactor = 70);

-- Client assertions (RFC 7523) that were used, until they can't be used any more. Tokens need no rows, because we make their ids; an assertion's
-- id is the client's own, so that it was seen before can only be known by keeping it (docs/design.md).
create table used_assertions (
    agent_id   uuid not null,
    jti_hash   bytea not null check (octet_length(jti_hash) = 32), -- SHA-256
    tenant_id  uuid not null,
    expires_at timestamptz not null,
    primary key (agent_id, jti_hash)
);

create index used_assertions_by_expiry on used_assertions (expires_at);

alter table credential_uses enable row level security;
alter table credential_uses force row level security;
create policy confined on credential_uses using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));

alter table used_assertions enable row level security;
alter table used_assertions force row level security;
create policy confined on used_assertions using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));

-- Each issuer keeps records of clients in memory (issuer/src/clients/). What changes one of them says so at commit, on the channel
-- `countersign_changed`: `agent:<id>`, `tenant:<id>`, or `all:` where a statement changed very many. What isn't there isn't kept, so new agents,
-- tenants and resource servers needn't be announced; a new credential changes its agent.
create function countersign_announce(kind text, ids uuid[]) returns void language plpgsql as $$
begin
    if cardinality(ids) > 100 then
        perform pg_notify('countersign_changed', 'all:');
    else
        perform pg_notify('countersign_changed', kind || ':' || id) from unnest(ids) as id;
    end if;
end
$$;

create function countersign_agents_changed() returns trigger language plpgsql as $$
begin
    perform countersign_announce('agent', (select array_agg(distinct agent_id) from changed));
    return null;
end
$$;

create function countersign_tenants_changed() returns trigger language plpgsql as $$
begin
    perform countersign_announce('tenant', (select array_agg(distinct tenant_id) from changed));
    return null;
end
$$;

-- A rule is about all, a tenant, an agent, a credential or a signing key; which key will sign isn't known to any record, so that one too
-- concerns all.
create function countersign_rules_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('countersign_changed', 'all:') from changed where level in (0, 4);
    perform countersign_announce('tenant', (select array_agg(distinct encode(subject, 'hex')::uuid) from changed where level = 1));
    perform countersign_announce('agent', (
        select array_agg(distinct agent_id) from (
            select encode(subject, 'hex')::uuid as agent_id from changed where level = 2
            union
            select c.agent_id from changed join credentials c on c.credential_id = encode(subject, 'hex')::uuid where level = 3
        ) as concerned));
    return null;
end
$$;

create function countersign_all_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('countersign_changed', 'all:');
    return null;
end
$$;

create trigger agents_updated after update on agents
    referencing old table as changed for each statement execute function countersign_agents_changed();
create trigger agents_deleted after delete on agents
    referencing old table as changed for each statement execute function countersign_agents_changed();
create trigger credentials_inserted after insert on credentials
    referencing new table as changed for each statement execute function countersign_agents_changed();
create trigger credentials_updated after update on credentials
    referencing old table as changed for each statement execute function countersign_agents_changed();
create trigger credentials_deleted after delete on credentials
    referencing old table as changed for each statement execute function countersign_agents_changed();
create trigger tenants_updated after update on tenants
    referencing old table as changed for each statement execute function countersign_tenants_changed();
create trigger tenants_deleted after delete on tenants
    referencing old table as changed for each statement execute function countersign_tenants_changed();
create trigger resource_servers_updated after update on resource_servers
    referencing old table as changed for each statement execute function countersign_tenants_changed();
create trigger resource_servers_deleted after delete on resource_servers
    referencing old table as changed for each statement execute function countersign_tenants_changed();
create trigger not_before_rules_inserted after insert on not_before_rules
    referencing new table as changed for each statement execute function countersign_rules_changed();
create trigger not_before_rules_updated after update on not_before_rules
    referencing new table as changed for each statement execute function countersign_rules_changed();
create trigger not_before_rules_deleted after delete on not_before_rules
    referencing old table as changed for each statement execute function countersign_rules_changed();

create trigger agents_truncated after truncate on agents for each statement execute function countersign_all_changed();
create trigger credentials_truncated after truncate on credentials for each statement execute function countersign_all_changed();
create trigger tenants_truncated after truncate on tenants for each statement execute function countersign_all_changed();
create trigger resource_servers_truncated after truncate on resource_servers for each statement execute function countersign_all_changed();
create trigger not_before_rules_truncated after truncate on not_before_rules for each statement execute function countersign_all_changed();
