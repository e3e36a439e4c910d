//! Resource servers: the APIs that a tenant's tokens are for (RFC 8707).

use countersign_shared::{AgentId, Algorithm, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::config::Identifier;

/// What a resource server is registered with; checked when it was read.
#[derive(Debug, Clone)]
pub struct NewResourceServer {
    /// The `aud` of its tokens.
    pub identifier: Identifier,
    /// What can be changed later.
    pub profile: ResourceServerProfile,
}

/// What its administrator says of a resource server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceServerProfile {
    /// For people.
    pub name: Option<String>,
    /// Life of its tokens in seconds; `None`: the issuer's.
    pub token_lifetime: Option<u32>,
    /// Tokens are for it where none is named. A tenant has one such, or none.
    pub is_default: bool,
    /// The agent that this API itself authenticates as: it may introspect the tokens that are for it.
    pub agent_id: Option<AgentId>,
    /// What its tokens are signed with, from when there is a key for that; `None`: as the installation signs.
    pub signing_algorithm: Option<Algorithm>,
    /// Its tokens say where their status can be read (draft-ietf-oauth-status-list-21), for those who don't hold the revoked set.
    pub status_list: bool,
}

/// A registered resource server.
#[derive(Debug, Clone)]
pub struct RegisteredResourceServer {
    /// Its id.
    pub resource_server_id: Uuid,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The `aud` of its tokens.
    pub identifier: String,
    /// What its administrator says of it.
    pub profile: ResourceServerProfile,
    /// Counts its changes.
    pub revision: i64,
    /// When it was registered.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// The longest `identifier` and all that are easily taken for it have this in common. RFC 8707 §2 compares byte for byte, and so do we; not
/// everybody who looks at an `aud` does.
pub fn lookalikes(identifier: &str) -> String {
    identifier.trim_end_matches('/').to_ascii_lowercase()
}

/// Whether `identifier` can be registered. A URL is written in its canonical form (WHATWG URL), or with one slash more or less at the end of an empty path:
/// `HTTPS://Api.example:443/a/../` would be another identifier than `https://api.example`, and many a library would take one for the other. For
/// the same reason it has no credentials, no empty query, no dot at the end of its host, and nothing percent-encoded that needn't be (RFC 3986 §6.2.2).
/// Plain names are as they are.
pub fn is_registrable(identifier: &Identifier) -> bool {
    let text = identifier.as_str();
    if lookalikes(text).is_empty() {
        return false;
    }
    if !text.contains(':') {
        return true;
    }
    text.parse::<reqwest::Url>().is_ok_and(|url| {
        let bare = url.as_str().strip_suffix('/').filter(|_| url.path() == "/" && url.query().is_none());
        (url.as_str() == text || bare == Some(text))
            && url.username().is_empty()
            && url.password().is_none()
            && url.query() != Some("")
            && !url.host_str().is_some_and(|host| host.ends_with('.'))
            && !has_needless_encoding(text)
    })
}

/// Whether a `%` isn't followed by two digits, or stands for a character that is written as itself (RFC 3986 §2.3).
fn has_needless_encoding(url: &str) -> bool {
    url.split('%').skip(1).any(|rest| {
        let byte = rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_none_or(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_each_url() {
        for text in [
            "https://api.example",
            "https://api.example/",
            "https://api.example/v1",
            "https://api.example/v1/",
            "https://api.example:8443/v1?a=b",
            "https://api.example/a%20b",
            "urn:example:orders",
            "orders",
            "api.example/orders",
        ] {
            assert!(is_registrable(&text.parse().unwrap()), "{text}");
        }
        for text in [
            "HTTPS://api.example",
            "https://API.example",
            "https://api.example:443",
            "https://api.example/a/../b",
            "https://api.example/./",
            "https://user@api.example",
            "https://:secret@api.example",
            "https:api.example",
            "https://api.example/?",
            "https://api.example?",
            "https://api.example./v1",
            "https://api.example/%761",
            "https://api.example/%7Euser",
            "https://api.example/100%",
            "https://api.example/%zz",
            "https://",
            "://api.example",
            "/",
            "//",
        ] {
            assert!(!is_registrable(&text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn lookalikes_are_alike() {
        for text in ["https://api.example/v1", "https://api.example/v1/", "https://api.example/V1//"] {
            assert_eq!(lookalikes(text), "https://api.example/v1");
        }
        assert_ne!(lookalikes("https://api.example/v1"), lookalikes("https://api.example/v11"));
    }
}
