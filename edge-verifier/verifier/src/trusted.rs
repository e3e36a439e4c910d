//! Tokens of other issuers that the operator trusts, behind numbers as the rest (see the crate's documentation). Each issuer has a number, from 0 on.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use countersign_shared::trusted::{Source, TYPES, TrustedIssuer, named_issuer};
use countersign_shared::{Algorithm, KeySet};
use wasm_bindgen::prelude::wasm_bindgen;

use super::{Pending, Text, describe_grant, signature, unix_time};

/// The purpose of the keys of issuer 0, to [`super::key`] and [`super::key_name`].
pub(crate) const FIRST_PURPOSE: u32 = 3;

/// Trusts an issuer: the input is its `iss` (UTF-8). Of `algorithms` and `types` each bit stands for one of [`Algorithm::ALL`] and [`TYPES`], the lowest for the first. Its number; −1: not
/// UTF-8. Until [`trust_text`] says more, it is for no audience, its agents are in `sub` and their scopes in `scope`.
#[wasm_bindgen]
pub fn trust(length: usize, clock_leeway: u32, algorithms: u32, types: u32) -> i32 {
    super::with(|verifier| {
        let Some(issuer) = verifier.input_text(length) else { return -1 };
        verifier.trusted.push((
            TrustedIssuer {
                issuer,
                algorithms: chosen(&Algorithm::ALL, algorithms),
                audiences: Vec::new(),
                types: chosen(&TYPES, types),
                clock_leeway: i64::from(clock_leeway),
                agent: "sub".to_owned(),
                tenant: Source::Constant(String::new()),
                agent_type: Source::Constant(String::new()),
                scope: "scope".to_owned(),
            },
            KeySet::default(),
        ));
        i32::try_from(verifier.trusted.len() - 1).unwrap_or(-1)
    })
}

fn chosen<T: Copy>(all: &[T], bits: u32) -> Vec<T> {
    let mut chosen = Vec::with_capacity(all.len());
    for (place, item) in all.iter().enumerate() {
        if bits >> place & 1 == 1 {
            chosen.push(*item);
        }
    }
    chosen
}

/// Says more of an issuer; the input (UTF-8) is: 0: another audience; the claim of the agent (1) and of its scopes (2); the claim of its tenant (3), or the tenant of all
/// (4); the claim of its type (5), or the type of all (6). −1: not UTF-8, or there is no such issuer.
#[wasm_bindgen]
pub fn trust_text(issuer: usize, what: u32, length: usize) -> i32 {
    super::with(|verifier| {
        let text = verifier.input_text(length);
        let (Some(text), Some((trusted, _))) = (text, verifier.trusted.get_mut(issuer)) else { return -1 };
        match what {
            0 => trusted.audiences.push(text),
            1 => trusted.agent = text,
            2 => trusted.scope = text,
            3 => trusted.tenant = Source::Claim(text),
            4 => trusted.tenant = Source::Constant(text),
            5 => trusted.agent_type = Source::Claim(text),
            _ => trusted.agent_type = Source::Constant(text),
        }
        0
    })
}

/// Replaces the keys of an issuer by the JWK Set in the input. The number of those that count, with a line for each that isn't sound in the output; −1 with the reason, and the
/// keys stay as they were.
#[wasm_bindgen]
pub fn load_issuer_keys(issuer: usize, length: usize) -> i32 {
    super::with(|verifier| {
        let jwks = verifier.input.get(..length).unwrap_or_default();
        let Some((trusted, keys)) = verifier.trusted.get_mut(issuer) else { return -1 };
        match KeySet::parse_foreign(jwks, &trusted.algorithms) {
            Ok((read, refused)) => {
                *keys = read;
                let refused: Vec<String> =
                    refused.iter().map(|(kid, error)| format!("{kid}: {error}")).collect();
                verifier.output = refused.join("\n").into_bytes();
                i32::try_from(keys.keys().len()).unwrap_or(i32::MAX)
            }
            Err(error) => {
                verifier.output = error.to_string().into_bytes();
                -1
            }
        }
    })
}

/// The number of the issuer that the token in the input names; −1: none that is trusted. Nothing vouches for it yet.
#[wasm_bindgen]
pub fn issuer_of(length: usize) -> i32 {
    super::with(|verifier| {
        let name = named_issuer(verifier.input.get(..length).unwrap_or_default());
        let place =
            name.and_then(|name| verifier.trusted.iter().position(|(issuer, _)| issuer.issuer == name));
        place.and_then(|place| i32::try_from(place).ok()).unwrap_or(-1)
    })
}

/// First step, on the token in the input, by the keys and demands of one issuer: a handle, or −1 with the refusal in the output.
#[wasm_bindgen]
pub fn prepare_foreign(issuer: usize, length: usize) -> i32 {
    super::with(|verifier| {
        let token = verifier.input.get(..length).unwrap_or_default();
        let Some((trusted, keys)) = verifier.trusted.get(issuer) else {
            return verifier.refuse_for("not_configured");
        };
        match trusted.prepare(token, keys) {
            Ok(prepared) => verifier.pending.put(Pending::Foreign(issuer, prepared)),
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}

/// Last step, at `now` seconds: 0 with the identity in the output, lines as those of [`super::finish`]; −1 with the refusal. Frees the handle.
#[wasm_bindgen]
pub fn finish_foreign(handle: usize, signature_is_valid: bool, now: f64) -> i32 {
    super::with(|verifier| {
        let Some(Pending::Foreign(issuer, prepared)) = verifier.pending.take(handle) else {
            return verifier.refuse_for("not_prepared");
        };
        let Some((trusted, _)) = verifier.trusted.get(issuer) else {
            return verifier.refuse_for("not_configured");
        };
        match prepared.finish(signature(signature_is_valid), trusted, unix_time(now)) {
            Ok(token) => {
                let claims = token.claims();
                verifier.output.clear();
                // Of credentials they say nothing.
                _ = write!(
                    Text(&mut verifier.output),
                    "{}\n{}\n\n{}\n{}\n",
                    claims.agent,
                    claims.tenant,
                    claims.agent_type,
                    claims.jti
                );
                describe_grant(&claims.scope, claims.expires_at, &claims.audience, &mut verifier.output);
                0
            }
            Err(refusal) => verifier.refuse(refusal),
        }
    })
}
