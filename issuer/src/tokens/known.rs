//! Signatures that were found to hold a while ago. A token is shown again and again as long as it lives, and its signature is half of what it takes to check
//! it; the rest of it, whether the key is still published above all, is checked each time.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use countersign_shared::{Jwk, Signature};

/// Signatures that are remembered at most: 32 bytes each.
pub(crate) const PLACES: usize = 1 << 16;
const SHARDS: usize = 1 << 6;

type Digest = [u8; 32];

/// Digests of tokens and the keys that signed them, each at the place that it names itself: who comes later takes it. No more than this is ever kept, and
/// memory is taken up as places are.
pub struct KnownSignatures(Box<[Mutex<Box<[Digest]>>]>);

impl Default for KnownSignatures {
    fn default() -> Self {
        let shard = || Mutex::new(vec![[0; 32]; PLACES / SHARDS].into_boxed_slice());
        Self((0..SHARDS).map(|_| shard()).collect())
    }
}

impl KnownSignatures {
    /// Whether `key` signed `token`: as it was found before, or as `check` finds now. Only what holds is remembered.
    ///
    /// A digest takes the whole token, header and signature included, and the kid, which is the key's thumbprint (RFC 7638): another key, or one byte
    /// that is another, is looked at anew.
    pub fn check(&self, key: &Jwk, token: &[u8], check: impl FnOnce() -> Signature) -> Signature {
        let digest = digest(key, token);
        if self.place(&digest, |known| *known == digest) {
            return Signature::Valid;
        }
        let signature = check();
        if signature == Signature::Valid {
            self.place(&digest, |known| *known = digest);
        }
        signature
    }

    fn place<T>(&self, digest: &Digest, act: impl FnOnce(&mut Digest) -> T) -> T {
        let shard = usize::from(digest[0]) % SHARDS;
        let place = usize::from(u16::from_le_bytes([digest[1], digest[2]])) % (PLACES / SHARDS);
        act(&mut self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)[place])
    }
}

fn digest(key: &Jwk, token: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(&key.kid().len().to_le_bytes());
    context.update(key.kid().as_bytes());
    context.update(token);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use countersign_shared::KeySet;

    use super::*;

    const KEYS: &str = r#"{"keys":[
        {"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"two","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    ]}"#;

    #[test]
    fn what_held_is_not_checked_again_and_what_did_not_is() {
        let keys = KeySet::parse(KEYS.as_bytes()).unwrap();
        let [one, two] = keys.keys() else { panic!("two keys") };
        let known = KnownSignatures::default();
        let checked = Cell::new(0);
        let asked = |key: &Jwk, token: &str, outcome| {
            checked.set(0);
            let said = known.check(key, token.as_bytes(), || {
                checked.set(1);
                outcome
            });
            (said, checked.get())
        };
        assert_eq!(asked(one, "a.b.c", Signature::Invalid), (Signature::Invalid, 1));
        assert_eq!(
            asked(one, "a.b.c", Signature::Valid),
            (Signature::Valid, 1),
            "what did not hold isn't remembered"
        );
        assert_eq!(asked(one, "a.b.c", Signature::Invalid), (Signature::Valid, 0));
        for other in ["a.b.d", "a.b.c ", "a.b."] {
            assert_eq!(asked(one, other, Signature::Invalid), (Signature::Invalid, 1), "{other}");
        }
        assert_eq!(asked(two, "a.b.c", Signature::Invalid), (Signature::Invalid, 1), "another key");
    }

    #[test]
    fn every_place_is_used_and_none_beyond() {
        let known = KnownSignatures::default();
        let places = known.0.iter().map(|shard| shard.lock().unwrap().len());
        assert_eq!(places.sum::<usize>(), PLACES);
        known.place(&[0xff; 32], |place| *place = [1; 32]);
        known.place(&[0; 32], |place| assert_eq!(*place, [0; 32]));
    }
}
