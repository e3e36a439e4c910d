-- Tokens have no rows. What is kept: up to where serials were leased, what was revoked, and what of that is published.

create table serial_shards (
    shard       integer primary key check (shard between 0 and 16777215),
    next_serial bigint not null check (next_serial between 0 and 68719476736)
);

create table revocations (
    jti        uuid primary key,
    tenant_id  uuid not null references tenants,
    revoked_by uuid not null, -- the agent that asked for it
    revoked_at timestamptz not null default now()
);

-- Written in the transaction of the change it announces. `seq` stays null until the publisher's leader, reading committed
-- rows only, gives it one: the order of publication is made there, so a slow transaction cannot be skipped.
create table revocation_outbox (
    outbox_id bigint generated always as identity primary key,
    seq       bigint unique check (seq > 0),
    shard     integer not null check (shard between 0 and 16777215),
    serial    bigint not null check (serial between 0 and 68719476735),
    queued_at timestamptz not null default now()
);

create index revocation_outbox_unpublished on revocation_outbox (outbox_id) where seq is null;

-- One row. (epoch, seq) is what verifiers never go back from.
create table publisher_state (
    singleton   boolean primary key default true check (singleton),
    epoch       bigint not null check (epoch > 0),
    seq         bigint not null check (seq >= 0),
    -- The base object that heads name: absent until the first was stored.
    base_seq    bigint check (base_seq >= 0),
    base_sha256 bytea check (octet_length(base_sha256) = 32)
);

insert into publisher_state (epoch, seq) values (1, 0);
