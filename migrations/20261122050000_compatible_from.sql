-- The oldest release that works on this schema, as the newest migration that it knows. A binary that knows that one runs on a schema newer than its own, so that an
-- issuer that dies while the release after it is rolled out comes back; one that doesn't know it refuses. A migration that takes away what a release still uses says
-- so in its last statement: update schema_compatibility set compatible_from = (the newest migration of the first release that doesn't).
create table schema_compatibility (
    singleton bool primary key default true check (singleton),
    compatible_from bigint not null
);

insert into schema_compatibility (compatible_from) values (20261121210000);
