//! The revoked set: which tokens were taken back, exactly, in a few bits each.
//!
//! The issuer makes a [`Base`] now and then (immutable, named by its digest) and a [`Head`] all the time (small, signed: which base,
//! plus the [`Delta`] since). A verifier holds a [`RevokedSet`] of the two and asks it about every token. For tokens of other issuers there
//! is a [`ForeignFilter`], and a [`ForeignList`] to be sure. Bytes: `docs/reference/formats.md`.
//!
//! Everything read here may be hostile or damaged: each length is checked before it is used, what is allocated is at most
//! proportional to the input, and nothing panics.

use alloc::vec::Vec;

mod base;
#[cfg(feature = "builder")]
mod builder;
mod bytes;
mod delta;
mod foreign;
mod head;
mod shard_set;

use core::fmt;

pub use base::Base;
#[cfg(feature = "builder")]
pub use builder::{BaseBuilder, Contents};
pub use delta::Delta;
#[cfg(feature = "builder")]
pub use delta::encode_delta;
pub use foreign::{ForeignFilter, ForeignList, Suspicion};
#[cfg(feature = "builder")]
pub use foreign::{ForeignObjects, build_foreign};
pub use head::{HEAD_TYPE, Head, HeadError, MAX_HEAD_BYTES, PreparedHead, hex};

use crate::claims::Claims;
use crate::ids::Coordinate;
use crate::time::UnixTime;
use crate::verify::{Revocation, Revocations};

/// Whose tokens a not-before rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// All; no subject.
    Global = 0,
    /// A tenant's; the subject is its UUID.
    Tenant = 1,
    /// An agent's; the subject is its UUID.
    Agent = 2,
    /// Those obtained with a credential; the subject is its UUID.
    Credential = 3,
    /// Those signed with a key; the subject is its `kid`.
    Key = 4,
}

impl Level {
    /// Its name, as it stands in answers to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Tenant => "tenant",
            Self::Agent => "agent",
            Self::Credential => "credential",
            Self::Key => "key",
        }
    }

    /// The level of that number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Global,
            1 => Self::Tenant,
            2 => Self::Agent,
            3 => Self::Credential,
            4 => Self::Key,
            _ => return None,
        })
    }
}

/// Ends every token of its subject that was issued up to an instant: those with `iat` ≤ `not_before`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    level: Level,
    subject: Vec<u8>,
    not_before: UnixTime,
}

impl Rule {
    /// The subject is what [`Level`] says. [`FormatError::Rule`]: it isn't; a kid has 1 to 255 bytes.
    pub fn new(level: Level, subject: Vec<u8>, not_before: UnixTime) -> Result<Self, FormatError> {
        let sound = match level {
            Level::Global => subject.is_empty(),
            Level::Tenant | Level::Agent | Level::Credential => subject.len() == 16,
            Level::Key => (1..=255).contains(&subject.len()),
        };
        if sound { Ok(Self { level, subject, not_before }) } else { Err(FormatError::Rule) }
    }

    /// Tokens with `iat` up to this are ended.
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }
}

/// Rules in ascending order of (level, subject), each pair once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules(Vec<Rule>);

impl Rules {
    fn not_before(&self, level: Level, subject: &[u8]) -> Option<UnixTime> {
        let place =
            self.0.binary_search_by(|rule| (rule.level, rule.subject.as_slice()).cmp(&(level, subject)));
        place.ok().map(|place| self.0[place].not_before)
    }

    fn read(reader: &mut bytes::Reader<'_>, count: u64) -> Result<Self, FormatError> {
        let mut rules: Vec<Rule> = Vec::new();
        for _ in 0..count {
            let level = Level::from_number(reader.u8()?).ok_or(FormatError::Rule)?;
            let length = usize::from(reader.u8()?);
            let subject = reader.take(length)?.to_vec();
            let not_before = UnixTime(i64::from_le_bytes(reader.array()?));
            let rule = Rule::new(level, subject, not_before)?;
            if rules.last().is_some_and(|last| (last.level, &last.subject) >= (rule.level, &rule.subject)) {
                return Err(FormatError::Rule);
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }

    /// Bytes that [`Self::write`] appends.
    #[cfg(feature = "builder")]
    fn size(rules: &[&Rule]) -> usize {
        rules.iter().map(|rule| 10 + rule.subject.len()).sum()
    }

    /// Appends rules that were [`Self::merged`].
    #[cfg(feature = "builder")]
    fn write(rules: &[&Rule], out: &mut Vec<u8>) {
        for rule in rules {
            out.push(rule.level as u8);
            out.push(u8::try_from(rule.subject.len()).unwrap_or(u8::MAX)); // fits: see `Rule::new`
            out.extend_from_slice(&rule.subject);
            out.extend_from_slice(&rule.not_before.0.to_le_bytes());
        }
    }

    /// Sorted; of several for one subject the latest.
    #[cfg(feature = "builder")]
    fn merged(rules: &[Rule]) -> Vec<&Rule> {
        let mut rules: Vec<&Rule> = rules.iter().collect();
        rules.sort_by(|a, b| {
            (a.level, &a.subject, b.not_before).cmp(&(b.level, &b.subject, a.not_before)) // latest first
        });
        rules.dedup_by(|later, first| (later.level, &later.subject) == (first.level, &first.subject));
        rules
    }
}

/// In which of its two parts a set holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// In the object.
    Base,
    /// In what came since.
    Delta,
}

/// The rule that decides about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// What its subject is.
    pub level: Level,
    /// Tokens with `iat ≤ not_before` are ended.
    pub not_before: UnixTime,
    /// Where it is.
    pub part: Part,
}

/// All that a verifier knows to be revoked.
#[derive(Debug, Clone, Default)]
pub struct RevokedSet {
    base: Base,
    delta: Delta,
}

impl RevokedSet {
    /// The set that `base` and what came since make together.
    pub const fn new(base: Base, delta: Delta) -> Self {
        Self { base, delta }
    }

    /// Takes the newer delta of a head that refers to the same base.
    pub fn set_delta(&mut self, delta: Delta) {
        self.delta = delta;
    }

    /// The object.
    pub const fn base(&self) -> &Base {
        &self.base
    }

    /// What came since.
    pub const fn delta(&self) -> &Delta {
        &self.delta
    }

    /// Where it is that the token at `coordinate` is revoked; `None`: it isn't. For people who ask: [`Self::contains`] decides.
    pub fn part_of(&self, coordinate: Coordinate) -> Option<Part> {
        let in_delta = self.delta.contains(coordinate).then_some(Part::Delta);
        in_delta.or_else(|| self.base.contains(coordinate).then_some(Part::Base))
    }

    /// Whether the token at `coordinate` is revoked: no false positives, no false negatives.
    pub fn contains(&self, coordinate: Coordinate) -> bool {
        self.delta.contains(coordinate) || self.base.contains(coordinate)
    }

    /// Of all rules that touch a token with these claims the latest, whatever their levels. (Precedence between levels is how others let revoked
    /// tokens back in.)
    pub fn ruling(&self, claims: &Claims) -> Option<Ruling> {
        let subjects: [(Level, &[u8]); 5] = [
            (Level::Global, &[]),
            (Level::Tenant, claims.tenant.0.as_bytes()),
            (Level::Agent, claims.subject.0.as_bytes()),
            (Level::Credential, claims.credential.0.as_bytes()),
            (Level::Key, claims.key_id.as_bytes()),
        ];
        let parts = [(Part::Base, self.base.rules()), (Part::Delta, self.delta.rules())];
        let found = subjects.iter().flat_map(|(level, subject)| {
            parts.map(|(part, rules)| {
                let not_before = rules.not_before(*level, subject)?;
                Some(Ruling { level: *level, not_before, part })
            })
        });
        found.flatten().max_by_key(|ruling| ruling.not_before)
    }
}

impl Revocations for RevokedSet {
    fn verdict(&self, claims: &Claims) -> Revocation {
        if self.contains(claims.jti.coordinate()) {
            Revocation::Revoked
        } else if self.ruling(claims).is_some_and(|ruling| claims.issued_at <= ruling.not_before) {
            Revocation::Superseded
        } else {
            Revocation::Clear
        }
    }
}

/// Why an artifact is refused. What was held before stays in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes aren't those that the head named.
    Digest,
    /// The text ends early, or goes on.
    Length,
    /// Another format, or a newer version.
    Version,
    /// The shard table is out of order or out of range.
    Shard,
    /// A shard's words contradict its table entry.
    Words,
    /// A rule is malformed or out of order.
    Rule,
    /// A number isn't in its shortest form or out of range.
    Number,
    /// The head's payload isn't what it must be.
    Head,
    /// A filter's header is out of range.
    Filter,
    /// A list is out of order, or its offsets don't fit its text.
    List,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest => "the object's SHA-256 is not the one that the head names",
            Self::Length => "the artifact is truncated or has trailing bytes",
            Self::Version => "the artifact is of another format or version",
            Self::Shard => "the shard table is malformed",
            Self::Words => "a shard's words contradict the shard table",
            Self::Rule => "a not-before rule is malformed",
            Self::Number => "a number is malformed or out of range",
            Self::Head => "the head's payload is malformed",
            Self::Filter => "the filter's header is malformed",
            Self::List => "the list is out of order or its offsets are wrong",
        })
    }
}

impl core::error::Error for FormatError {}
