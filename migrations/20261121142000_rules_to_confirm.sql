-- Not-before rules that end tokens together with their holder, until it is certain that they reach far enough: a rule's time is taken before its
-- transaction commits, and others issue tokens until it has. Who commits looks at that and removes the row; what is left
-- behind by a process that died in between is written again by any other (issuer/src/storage/not_before.rs).

create table rules_to_confirm (
    confirm_id uuid primary key,
    tenant_id  uuid not null references tenants,
    level      smallint not null,
    subject    bytea not null,
    created_at timestamptz not null default now()
);

create index rules_to_confirm_by_age on rules_to_confirm (created_at);

alter table rules_to_confirm enable row level security;
alter table rules_to_confirm force row level security;
create policy confined on rules_to_confirm using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));
