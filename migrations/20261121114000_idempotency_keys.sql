-- Answers of creating requests that carried an Idempotency-Key, to be given again to whoever repeats the request.

create table idempotency_keys (
    tenant_id     uuid not null references tenants,
    agent_id      uuid not null, -- the caller: another one's key of the same name is another key
    key           text collate "C" not null check (char_length(key) between 1 and 255),
    -- SHA-256 over method, path and body: the same key with another request is a mistake of the client's.
    fingerprint   bytea not null check (octet_length(fingerprint) = 32),
    -- The answer, which may hold a secret that is shown once: AES-256-GCM under the server secret `idempotency_seal_key`. Null only
    -- inside the transaction that makes what the request is for.
    sealed_answer bytea,
    -- After this the row doesn't count any more.
    expires_at    timestamptz not null default now() + interval '24 hours',
    primary key (tenant_id, agent_id, key),
    foreign key (tenant_id, agent_id) references agents (tenant_id, agent_id)
);

-- For removing what has expired.
create index idempotency_keys_by_expiry on idempotency_keys (expires_at);

alter table idempotency_keys enable row level security;
alter table idempotency_keys force row level security;
create policy confined on idempotency_keys using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));
