-- Each sealed row names the master key that its data key is under (issuer/src/keys/master): so a wrong one shows as such, and a move to
-- another one can stop at any row. The name is no secret. Null: sealed before
-- rows had names; `countersign keys rewrap` gives it one.
alter table signing_keys add column master_key_id text check (master_key_id ~ '^[ -~]{1,200}$');
alter table server_secrets add column master_key_id text check (master_key_id ~ '^[ -~]{1,200}$');
