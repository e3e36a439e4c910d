-- Most of the installation's audit events are failures, and none is a token issued: the other indexes of `audit_events` leave out what is rare here.
create index audit_events_installation_by_action on audit_events (action, event_id) where tenant_id = '00000000-0000-0000-0000-000000000000';
create index audit_events_installation_by_target_type on audit_events (target_type, event_id) where tenant_id = '00000000-0000-0000-0000-000000000000';
create index audit_events_installation_by_outcome on audit_events (outcome, event_id) where tenant_id = '00000000-0000-0000-0000-000000000000';
