//! What the commands say of keys.

use serde::Serialize;
use time::OffsetDateTime;

use crate::cli::output;
use crate::domain::signing_key::{KeyRecord, KeyState, Purpose};
use crate::keys::rotation::size;

/// A key, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct KeyBody {
    kid: String,
    purpose: &'static str,
    algorithm: &'static str,
    /// Of an RSA key.
    #[serde(skip_serializing_if = "Option::is_none")]
    bits: Option<u32>,
    state: &'static str,
    #[serde(with = "time::serde::rfc3339::option")]
    created_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    signs_from: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    signs_until: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    verifies_until: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    revoked_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_reason: Option<String>,
}

impl From<&KeyRecord> for KeyBody {
    fn from(key: &KeyRecord) -> Self {
        let seconds = |time: Option<OffsetDateTime>| time.map(OffsetDateTime::truncate_to_second);
        Self {
            kid: key.kid.clone(),
            purpose: key.purpose.as_str(),
            algorithm: key.algorithm.as_str(),
            bits: size(key),
            state: key.state.as_str(),
            created_at: seconds(key.created_at),
            signs_from: seconds(key.activates_at),
            signs_until: seconds(key.signs_until),
            verifies_until: seconds(key.revoked_at.or(key.retires_at)),
            revoked_at: seconds(key.revoked_at),
            revocation_reason: key.revocation_reason.clone(),
        }
    }
}

/// What follows from a command.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The key that signs from now on or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<KeyBody>,
    /// The one that it follows, or that the command was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) predecessor: Option<KeyBody>,
    /// One sentence for each thing that will happen, in order.
    pub(super) what_follows: Vec<String>,
    /// What to beware of, or to do.
    pub(super) warnings: Vec<String>,
}

impl Report {
    pub(super) fn print(&self, format: output::Format) -> std::io::Result<()> {
        let warnings = self.warnings.iter().map(|warning| format!("WARNING: {warning}"));
        let lines: Vec<String> = self.what_follows.iter().cloned().chain(warnings).collect();
        if format == output::Format::Text {
            output::note(format, &lines.join("\n"))
        } else {
            output::json(self)
        }
    }
}

/// `2026-11-21T14:05:00Z`, with how long that is from `now` on.
pub(super) fn when(time: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (time - now).whole_seconds();
    let text = output::time(time);
    match seconds {
        ..=0 => format!("{text} (now)"),
        1..120 => format!("{text} (in {seconds} s)"),
        120..7200 => format!("{text} (in {} min)", seconds / 60),
        7200..172_800 => format!("{text} (in {} h)", seconds / 3600),
        _ => format!("{text} (in {} days)", seconds / 86_400),
    }
}

/// How a key is called in a sentence.
pub(super) fn called(key: &KeyRecord) -> String {
    let bits = size(key).map(|bits| format!(" {bits}")).unwrap_or_default();
    format!("{} ({}{bits}, {})", key.kid, key.algorithm.as_str(), purpose(key.purpose))
}

const fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Token => "tokens",
        Purpose::Revocation => "revocation heads",
    }
}

/// What a key does and will do, in a few words.
pub(super) fn outlook(key: &KeyRecord, now: OffsetDateTime) -> String {
    if let Some(revoked) = key.revoked_at {
        let reason = key.revocation_reason.as_deref().unwrap_or_default();
        return format!("revoked {}: {reason}", output::time(revoked));
    }
    match (key.state, key.activates_at, key.signs_until, key.retires_at) {
        (KeyState::Pending, None, _, _) => "published; signs when `keys rotate` says so".to_owned(),
        (KeyState::Pending, Some(from), _, _) => format!("signs from {}", when(from, now)),
        (KeyState::Active, _, None, _) => "signs".to_owned(),
        (KeyState::Active, _, Some(until), _) => format!("signs until {}", when(until, now)),
        (KeyState::Retiring, _, _, Some(until)) => format!("verifies until {}", when(until, now)),
        (KeyState::Retiring | KeyState::Retired, ..) => String::new(),
    }
}
