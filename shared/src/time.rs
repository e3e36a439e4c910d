//! Instants, as JWTs write them.

/// Whole seconds since 1970-01-01T00:00:00Z (RFC 7519 §2, `NumericDate`; integers only, since every timestamp we
/// compare is minted by our own issuer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// This instant moved by `seconds`, stopping at the ends of the representable range.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}
