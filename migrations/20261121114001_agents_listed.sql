-- Lists of agents, by each filter, in the order that cursors go by. Not made concurrently: this is before the first release, so the table is
-- empty or small.

set local lock_timeout = '5s';

-- An index on lower(email) is of no use for reading: row-level security lets only leakproof functions into an index condition, and lower()
-- isn't one.
alter table agents add column email_folded text not null generated always as (lower(email)) stored;

drop index agents_email;
-- Nobody means two mailboxes by two spellings.
create unique index agents_email on agents (tenant_id, email_folded);

create index agents_listed on agents (tenant_id, created_at, agent_id);
create index agents_listed_by_type on agents (tenant_id, agent_type, created_at, agent_id);
create index agents_listed_by_env on agents (tenant_id, deployment_env, created_at, agent_id);
-- Also for how many count towards tenants.max_agents.
create index agents_listed_by_status on agents (tenant_id, status, created_at, agent_id);
create index agents_listed_by_owner on agents (tenant_id, owner, created_at, agent_id);
