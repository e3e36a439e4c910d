//! Access tokens: minting, checking, revoking.

pub mod check;
pub mod jti;
pub mod known;
pub mod live;
pub mod mint;
pub mod revoke;
pub mod serials;
