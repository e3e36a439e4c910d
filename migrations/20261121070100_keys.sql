-- Key material. Every sealed column is AES-256-GCM ciphertext: the value under a data key of its own, the data key under
-- MASTER_KEY, both bound to the row they belong to (issuer/src/keys/envelope.rs).

create table signing_keys (
    kid             text primary key, -- RFC 7638 SHA-256 thumbprint
    purpose         text not null check (purpose in ('token', 'revocation')),
    algorithm       text not null check (algorithm in ('RS256', 'PS256', 'ES256', 'EdDSA')),
    state           text not null check (state in ('pending', 'active', 'retiring', 'retired')),
    public_jwk      text not null, -- JSON, public members only
    sealed_data_key bytea not null,
    sealed_private  bytea not null, -- PKCS#8
    created_at      timestamptz not null default now()
);

create unique index signing_keys_one_active on signing_keys (purpose) where state = 'active';

-- Random values that belong to the installation as a whole: the pepper of client secrets, the key of jti tags. They are
-- not derived from MASTER_KEY, so that it can be replaced without invalidating every secret.
create table server_secrets (
    name            text primary key,
    sealed_data_key bytea not null,
    sealed_value    bytea not null,
    created_at      timestamptz not null default now()
);
