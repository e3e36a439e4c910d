-- A tenant's name is its own, and an identifier stays with the tenant that had it first.

set local lock_timeout = '5s';

-- Nobody means two tenants by two spellings. There is one tenant so far, or none.
create unique index tenants_name on tenants (lower(name));
create index tenants_in_order on tenants (created_at, tenant_id);

-- Whose an identifier is, with those that look like it (case, trailing slashes): APIs and gateways that compare sloppily are left to the
-- one tenant. A row outlives its resource servers: somewhere an API still accepts tokens for the identifier, and they must not be
-- another tenant's to get. The operator can release it.
create table identifier_owners (
    lookalikes text primary key check (char_length(lookalikes) between 1 and 512),
    tenant_id  uuid not null references tenants,
    created_at timestamptz not null default now()
);

create index identifier_owners_by_tenant on identifier_owners (tenant_id);

insert into identifier_owners (lookalikes, tenant_id)
select distinct on (lower(rtrim(identifier, '/'))) lower(rtrim(identifier, '/')), tenant_id
from resource_servers where rtrim(identifier, '/') <> '' order by lower(rtrim(identifier, '/')), created_at;

alter table identifier_owners enable row level security;
alter table identifier_owners force row level security;
create policy confined on identifier_owners using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));
