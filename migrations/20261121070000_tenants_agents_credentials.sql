-- Who exists: tenants, the APIs that their tokens are for, agents, and what agents authenticate with.

create table tenants (
    tenant_id  uuid primary key,
    name       text not null check (char_length(name) between 1 and 200),
    status     text not null default 'active' check (status in ('active', 'suspended')),
    created_at timestamptz not null default now()
);

create table resource_servers (
    resource_server_id     uuid primary key,
    tenant_id              uuid not null references tenants,
    -- The `aud` of its tokens; compared byte for byte (RFC 8707 §2). One in the whole installation: an edge that
    -- accepts an audience accepts it from whichever tenant, so no two may have the same.
    identifier             text not null unique check (char_length(identifier) between 1 and 512),
    -- Null: the issuer's TOKEN_LIFETIME_SECONDS.
    token_lifetime_seconds integer check (token_lifetime_seconds between 1 and 86400),
    is_default             boolean not null default false,
    created_at             timestamptz not null default now()
);

create unique index resource_servers_one_default on resource_servers (tenant_id) where is_default;

create table agents (
    agent_id       uuid primary key,
    tenant_id      uuid not null references tenants,
    email          text not null check (char_length(email) between 3 and 254),
    agent_type     text not null check (agent_type in ('screener', 'classifier', 'orchestrator', 'extractor',
                                                       'summarizer', 'router', 'monitor', 'custom')),
    version        text not null,
    capabilities   text[] not null,
    owner          text not null,
    deployment_env text not null check (deployment_env in ('development', 'staging', 'production')),
    -- All scopes that the agent may ask for: management scopes of the issuer and those of the tenant's own APIs.
    scopes         text[] not null,
    metadata       jsonb not null,
    status         text not null default 'active' check (status in ('active', 'suspended', 'decommissioned')),
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    -- So that a credential can be bound to agent and tenant together.
    unique (tenant_id, agent_id)
);

-- Nobody means two mailboxes by two spellings.
create unique index agents_email on agents (tenant_id, lower(email));

create table credentials (
    credential_id uuid primary key,
    tenant_id     uuid not null,
    agent_id      uuid not null,
    -- HMAC-SHA-256 of the secret under the server's pepper (docs/reference/formats.md).
    secret_hash   bytea not null check (octet_length(secret_hash) = 32),
    status        text not null default 'active' check (status in ('active', 'revoked')),
    created_at    timestamptz not null default now(),
    expires_at    timestamptz,
    foreign key (tenant_id, agent_id) references agents (tenant_id, agent_id)
);

-- The token endpoint's look-up; what can no longer authenticate stays out of its way.
create index credentials_active on credentials (agent_id) where status = 'active';
