-- The publisher reads the entries of shards that still matter; those of the past must not make that slower.
create index revocation_outbox_by_shard on revocation_outbox (shard, seq);
