//! Revisions: each change of a row counts its revision up by one.

/// What a change takes for granted about what it changes (RFC 9110 §13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// That it is there.
    Any,
    /// That it is in one of these revisions.
    OneOf(Vec<i64>),
}

impl Expected {
    /// Whether `revision` is as expected.
    pub fn admits(&self, revision: i64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(revisions) => revisions.contains(&revision),
        }
    }
}
