//! Making what isn't there yet: a key for tokens, an Ed25519 key for heads, the server's secrets.

use aws_lc_rs::{hmac, rand};
use countersign_shared::Algorithm;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::envelope::{self, Context, SealKey};
use super::import::Imported;
use super::schedule::size;
use super::{KeyError, MasterKey, generate, seal};
use crate::clock;
use crate::config::Signing;
use crate::domain::signing_key::{KeyState, Purpose};
use crate::storage::{Database, server_secrets, signing_keys};

const PEPPER: &str = "client_secret_pepper";
const JTI_TAG: &str = "jti_tag_key";
const IDEMPOTENCY: &str = "idempotency_seal_key";

/// All of them, the oldest first: whether `MASTER_KEY` is the right one shows with it, also where the newer ones aren't made yet.
const NAMES: [&str; 3] = [PEPPER, JTI_TAG, IDEMPOTENCY];

/// Random values of the installation, as keys.
pub struct ServerSecrets {
    /// For client secrets.
    pub pepper: hmac::Key,
    /// For the tags of jtis.
    pub jti_tag: hmac::Key,
    /// For the answers that are kept for requests with an `Idempotency-Key`.
    pub idempotency: SealKey,
}

/// Makes the keys and secrets that are missing; the first key of tokens is `first`, or one as `signing` says. Safe to run from several processes at once; returns the kids of new keys.
pub async fn provision(
    database: &Database,
    master: &MasterKey,
    signing: &Signing,
    first: Option<&Imported>,
) -> Result<Vec<String>, KeyError> {
    // With a wrong master key new keys would be sealed that the right one can't open.
    load_secrets(database, master).await?;

    let mut transaction = database.begin_installation().await?;
    super::lock(&mut transaction, master).await?;
    for name in NAMES {
        let mut value = Zeroizing::new([0; 32]);
        rand::fill(&mut *value).map_err(|_| KeyError::Unusable("the system has no randomness".into()))?;
        let sealed = envelope::seal(master, &secret_context(name), &*value)?;
        server_secrets::insert_if_missing(&mut transaction, name, &sealed).await?;
    }
    let mut made = Vec::new();
    for purpose in [Purpose::Token, Purpose::Revocation] {
        if !signing_keys::has_active(&mut transaction, purpose).await? {
            let algorithm = match purpose {
                Purpose::Token => signing.token_algorithm,
                Purpose::Revocation => Algorithm::EdDsa,
            };
            let mut record = match first.filter(|_| purpose == Purpose::Token) {
                Some(imported) => seal(master, purpose, &imported.0)?,
                None => seal(master, purpose, &generate::generate(algorithm, signing.rsa_bits).await?)?,
            };
            if let Some(bits) = size(&record).filter(|bits| *bits != signing.rsa_bits) {
                warn!(
                    "the first key has {bits} bits, and TOKEN_SIGNING_RSA_BITS is {}: a key of that size follows by itself",
                    signing.rsa_bits
                );
            }
            record.state = KeyState::Active;
            record.activates_at = Some(clock::precise());
            signing_keys::insert(&mut transaction, &record).await?;
            if purpose == Purpose::Token {
                signing_keys::set_token_algorithm(&mut transaction, algorithm, None).await?;
                // Nobody can have been told to keep a JWK Set yet.
                signing_keys::first_max_age(&mut transaction, signing.jwks_max_age).await?;
            }
            made.push(record.kid);
        } else if first.is_some() && purpose == Purpose::Token {
            info!(
                "JWT_PRIVATE_KEY is left aside: there are keys already, and `countersign keys import` takes others in"
            );
        }
    }
    Database::commit(transaction).await?;
    Ok(made)
}

/// Opens the server's secrets; `None` where there are none yet.
pub async fn load_secrets(
    database: &Database,
    master: &MasterKey,
) -> Result<Option<ServerSecrets>, KeyError> {
    let mut values = Vec::with_capacity(NAMES.len());
    for name in NAMES {
        let Some(sealed) = server_secrets::find(database, name).await? else { return Ok(None) };
        let value = envelope::open(master, &secret_context(name), &sealed)
            .map_err(|error| KeyError::opening(error, name, master))?;
        values.push(value);
    }
    let [pepper, jti_tag, idempotency] = values.try_into().map_err(|_| KeyError::Damaged(PEPPER.into()))?;
    Ok(Some(ServerSecrets {
        pepper: hmac::Key::new(hmac::HMAC_SHA256, &pepper),
        jti_tag: hmac::Key::new(hmac::HMAC_SHA256, &jti_tag),
        idempotency: SealKey::new(&idempotency).ok_or_else(|| KeyError::Damaged(IDEMPOTENCY.into()))?,
    }))
}

pub(super) fn secret_context(name: &str) -> Context<'_> {
    let purpose = if name == IDEMPOTENCY { "aes-256-gcm" } else { "hmac" };
    Context { table: "server_secrets", purpose, id: name }
}
