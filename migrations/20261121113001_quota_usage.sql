-- How much of its monthly quota a tenant has used. A row is written once for an allowance of tokens, not once for a token.

create table quota_usage (
    tenant_id      uuid not null references tenants,
    -- The month's first day, UTC.
    month          date not null check (extract(day from month) = 1),
    -- Tokens handed to issuing processes as allowances: those issued, and those that a process still holds.
    granted        bigint not null check (granted >= 0),
    -- The newest allowance: how the process that took it learns its size.
    last_allowance bigint not null check (last_allowance > 0),
    primary key (tenant_id, month)
);

alter table quota_usage enable row level security;
alter table quota_usage force row level security;
create policy confined on quota_usage using ((select current_setting('countersign.tenant', true)) in ('*', tenant_id::text));
