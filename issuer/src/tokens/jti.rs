//! Telling our jtis from made-up ones, without a row for each.

use aws_lc_rs::hmac;
use countersign_shared::{Coordinate, Jti, TenantId};

const LABEL: &[u8] = b"countersign jti v1";

/// The jti of the token at `coordinate`, for an agent of `tenant`.
pub fn mint(key: &hmac::Key, coordinate: Coordinate, tenant: TenantId) -> Jti {
    Jti::new(coordinate, tag(key, coordinate, tenant))
}

/// Whether `jti` was minted here for an agent of `tenant`. The tenant is part of what the tag vouches for, so that no administrator
/// can revoke another tenant's token by its bare jti.
pub fn is_ours(key: &hmac::Key, jti: Jti, tenant: TenantId) -> bool {
    let expected = tag(key, jti.coordinate(), tenant);
    aws_lc_rs::constant_time::verify_slices_are_equal(&expected.to_be_bytes(), &jti.tag().to_be_bytes())
        .is_ok()
}

/// The first 62 bits of the MAC.
fn tag(key: &hmac::Key, Coordinate { shard, serial }: Coordinate, tenant: TenantId) -> u64 {
    let mut context = hmac::Context::with_key(key);
    context.update(LABEL);
    context.update(&shard.get().to_le_bytes());
    context.update(&serial.get().to_le_bytes());
    context.update(tenant.0.as_bytes());
    let mac = context.sign();
    mac.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first) >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_shared::{Serial, Shard};
    use uuid::Uuid;

    #[test]
    fn only_ours_pass() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let tenant = TenantId(Uuid::from_u128(1));
        let coordinate = Coordinate { shard: Shard::new(500_000).unwrap(), serial: Serial::new(9).unwrap() };
        let jti = mint(&key, coordinate, tenant);
        assert!(is_ours(&key, jti, tenant));
        assert_eq!(jti.coordinate(), coordinate);

        assert!(!is_ours(&key, jti, TenantId(Uuid::from_u128(2))), "another tenant's");
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert!(!is_ours(&other, jti, tenant), "another installation's");
        for bit in 0..62 {
            assert!(!is_ours(&key, Jti::new(coordinate, jti.tag() ^ 1 << bit), tenant), "tag bit {bit}");
        }
        let next = Coordinate { serial: Serial::new(10).unwrap(), ..coordinate };
        assert!(!is_ours(&key, Jti::new(next, jti.tag()), tenant), "another serial");
    }
}
