//! What `bin/bench edge` and the differential test call of the jsonwebtoken crate.

use std::cell::RefCell;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde::Deserialize;
use wasm_bindgen::prelude::wasm_bindgen;

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

thread_local! {
    static HELD: RefCell<Option<(DecodingKey, Validation)>> = const { RefCell::new(None) };
}

/// Holds the key (a JWK) and what is demanded. Why not, or nothing.
#[wasm_bindgen]
pub fn configure(jwk: &str, algorithm: &str, issuer: &str, audience: &str) -> String {
    hold(jwk, algorithm, issuer, audience).err().map_or_else(String::new, |error| error.to_string())
}

fn hold(jwk: &str, algorithm: &str, issuer: &str, audience: &str) -> Result<(), Box<dyn std::error::Error>> {
    let key = DecodingKey::from_jwk(&serde_json::from_str::<Jwk>(jwk)?)?;
    let mut validation = Validation::new(algorithm.parse::<Algorithm>()?);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    HELD.replace(Some((key, validation)));
    Ok(())
}

/// The `kid` by which a user of the library would choose the key; empty where there is none, or no header that it can read.
#[wasm_bindgen]
pub fn kid(token: &str) -> String {
    decode_header(token).ok().and_then(|header| header.kid).unwrap_or_default()
}

/// Whether the token holds; its subject's length, or 0.
#[wasm_bindgen]
pub fn verify(token: &str) -> usize {
    HELD.with_borrow(|held| {
        let Some((key, validation)) = held else { return 0 };
        decode::<Claims>(token, key, validation).map_or(0, |data| data.claims.sub.len())
    })
}
