-- Events wait in the queue for a moment: they are put in and taken out, never changed.
create trigger audit_queue_unchanged before update or truncate on audit_queue
    for each statement execute function audit_events_refuse_change();
