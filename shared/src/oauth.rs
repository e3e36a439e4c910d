//! What the OAuth documents prescribe on the wire.

use crate::verify::Refusal;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The error codes of a protected resource (RFC 6750 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BearerError {
    /// 400: the request is malformed.
    InvalidRequest,
    /// 401: the token doesn't hold.
    InvalidToken,
    /// 403: the token holds and isn't enough.
    InsufficientScope,
}

impl BearerError {
    /// The code as it stands in the challenge.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::InvalidToken => 401,
            Self::InsufficientScope => 403,
        }
    }
}

/// The value of `WWW-Authenticate` (RFC 6750 §3). Without `refusal` the request had no token at all, and then the challenge
/// names no error. `realm` and `scope` must be free of quotes and backslashes.
pub fn challenge(realm: Option<&str>, refusal: Option<&Refusal>, scope: Option<&str>) -> String {
    let mut parameters = Vec::with_capacity(4);
    if let Some(realm) = realm {
        parameters.push(format!("realm=\"{realm}\""));
    }
    if let Some(refusal) = refusal {
        parameters.push(format!("error=\"{}\"", refusal.oauth_error().as_str()));
        parameters.push(format!("error_description=\"{}\"", refusal.description()));
    }
    if let Some(scope) = scope {
        parameters.push(format!("scope=\"{scope}\""));
    }
    if parameters.is_empty() { "Bearer".to_owned() } else { format!("Bearer {}", parameters.join(", ")) }
}

/// Whether `text` is a `scope-token` (RFC 6749 §3.3): one or more of `!`, `#`–`[`, `]`–`~`.
pub fn is_scope_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        assert_eq!(challenge(None, None, None), "Bearer");
        assert_eq!(challenge(Some("api"), None, None), r#"Bearer realm="api""#);
        assert_eq!(
            challenge(None, Some(&Refusal::Expired), None),
            r#"Bearer error="invalid_token", error_description="The token has expired""#
        );
        let refusal = Refusal::InsufficientScope;
        assert_eq!(
            challenge(None, Some(&refusal), Some("a b")),
            r#"Bearer error="insufficient_scope", error_description="The token's scope is not sufficient", scope="a b""#
        );
    }

    #[test]
    fn scope_tokens() {
        assert!(is_scope_token("agents:read"));
        for text in ["", "a b", "a\"b", "a\\b", "ä", "a\n"] {
            assert!(!is_scope_token(text), "{text:?}");
        }
    }
}
