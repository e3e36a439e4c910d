//! The verification core of Countersign: what a token is, whether it holds, and whether it was revoked.
//!
//! Nothing here does I/O, reads a clock or draws randomness: a host passes in bytes, the time and the verdict of its
//! signature primitive. So the edge (WebAssembly), the issuer (native) and the tests run the very same decisions.
//!
//! Where to start reading: [`verify`], then [`revocation`].

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod algorithm;
pub mod assertion;
pub mod base64url;
pub mod claims;
pub mod ids;
mod json;
pub mod jwk;
pub mod key_statement;
pub mod oauth;
pub mod revocation;
pub mod route_policy;
pub mod time;
pub mod token;
pub mod trusted;
pub mod verify;

pub use algorithm::Algorithm;
pub use claims::Claims;
pub use ids::{AgentId, Coordinate, CredentialId, Jti, Serial, Shard, TenantId};
pub use jwk::{Jwk, JwkError, KeySet, PublicKey};
pub use key_statement::{KeyStatement, KeyStatementError};
pub use time::UnixTime;
pub use verify::{AuthenticToken, Policy, Prepared, Refusal, Signature, VerifiedToken, prepare};
