-- Out of the queue goes only what is in its chain by then: what waits to be sealed can't be removed unnoticed.
create function audit_queue_refuse_loss() returns trigger language plpgsql
-- From event to event by the index, whatever the statistics say: a week may have millions of events.
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
begin
    if exists (select from taken
               where not exists (select from audit_events sealed
                                 where sealed.tenant_id = taken.tenant_id and sealed.event_id = taken.event_id
                                       -- The sealer's time, in this very transaction: weeks of the past needn't be looked at.
                                       and sealed.recorded_at >= now() - interval '1 hour')) then
        raise exception 'audit_queue is append-only: DELETE refused of what is not sealed' using errcode = 'insufficient_privilege';
    end if;
    return null;
end
$$;

create trigger audit_queue_only_sealed after delete on audit_queue referencing old table as taken
    for each statement execute function audit_queue_refuse_loss();

-- It names the table that it guards: there are several.
create or replace function audit_events_refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: % refused', tg_table_name, tg_op using errcode = 'insufficient_privilege';
end
$$;
