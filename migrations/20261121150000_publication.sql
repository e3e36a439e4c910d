-- What the publisher remembers between its leaders, and says to the other issuers.

set local lock_timeout = '5s';

-- Base objects that lie, or may lie, in a store that deletes none by itself. One is deleted when no head can refer to it any more: an hour and some minutes after the
-- last head that named it was signed, whoever signed that.
create table published_objects (
    place         text not null, -- `kv` and the id of the namespace
    sha256        bytea not null check (octet_length(sha256) = 32),
    stored_at     timestamptz not null default now(),
    -- Since when another one is in force; null: it is, or may be next.
    superseded_at timestamptz,
    primary key (place, sha256)
);

create index published_objects_superseded on published_objects (superseded_at) where superseded_at is not null;

-- One row, written once a second at most while nothing happens: what any issuer answers when it is asked how publishing goes.
create table publisher_report (
    singleton       boolean primary key default true check (singleton),
    reported_at     timestamptz,
    report          jsonb,
    -- When every isolate that listens had been sent the position in the report.
    acknowledged_at timestamptz,
    check (num_nulls(reported_at, report) in (0, 2))
) with (fillfactor = 50);

insert into publisher_report default values;

-- The formats have one byte for its length.
alter table revocation_outbox
    add constraint revocation_outbox_subject_fits check (octet_length(rule_subject) between 0 and 255) not valid;
