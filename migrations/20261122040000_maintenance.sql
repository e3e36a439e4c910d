-- Whether the installation is in maintenance (docs/operations/maintenance.md). One row while it is, none else.

create table maintenance (
    only_row boolean primary key default true check (only_row),
    -- No tokens are issued either.
    tokens   boolean not null,
    -- Told to whoever is turned away.
    reason   text check (char_length(reason) between 1 and 200),
    since    timestamptz not null default clock_timestamp()
);

-- Every issuer hears of it, whoever changes it.
create function maintenance_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('countersign_changed', 'maintenance:');
    return null;
end;
$$;

create trigger maintenance_changed after insert or update or delete on maintenance
    for each statement execute function maintenance_changed();
