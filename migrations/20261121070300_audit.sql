-- Who did what. Append-only: the database itself refuses anything else.

create table audit_events (
    audit_event_id bigint generated always as identity primary key,
    occurred_at    timestamptz not null default now(),
    -- Null where a failed attempt named no agent that exists. No foreign key: it would lock the tenant's row with every token.
    tenant_id      uuid,
    actor_agent_id uuid,
    action         text not null,
    outcome        text not null check (outcome in ('success', 'failure')),
    target_type    text,
    target_id      text,
    request_id     text,
    client_ip      inet,
    user_agent     text,
    details        jsonb not null default '{}'
);

create index audit_events_by_tenant on audit_events (tenant_id, occurred_at desc);

create function audit_events_refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'audit_events is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end
$$;

create trigger audit_events_append_only before update or delete or truncate on audit_events
    for each statement execute function audit_events_refuse_change();
