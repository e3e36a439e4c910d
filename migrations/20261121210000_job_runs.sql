-- When each of the issuers' jobs was done last, and is due again (issuer/src/jobs). A row comes with the first run of a job.

create table job_runs (
    name        text primary key check (char_length(name) between 1 and 50),
    -- The last run. While it is under way, and if its process died, there is no end.
    started_at  timestamptz not null,
    finished_at timestamptz,
    -- What it removed: rows, or partitions of the audit log.
    removed     bigint not null default 0 check (removed >= 0),
    -- Whether anything is left to do: a run has its time, and the next one goes on.
    complete    boolean not null default false,
    -- Why it ended before it was done.
    failure     text check (char_length(failure) between 1 and 500),
    -- Before that nobody does it, but who is told to.
    next_at     timestamptz not null
);
