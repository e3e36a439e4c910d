//! Pages of a list: where one ends and the next begins.

use time::OffsetDateTime;
use uuid::Uuid;

/// A place in a list that is ordered by time and id: just after the row that has these. It stays where it is whatever is inserted or
/// removed around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The row's time, in whole microseconds as the database has it.
    pub at: OffsetDateTime,
    /// The row's id: several may have one time.
    pub id: Uuid,
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// How many entries, 1 to [`Page::MAX_LIMIT`].
    pub limit: u32,
    /// After which; `None`: from the start.
    pub after: Option<Position>,
}

impl Page {
    /// The most entries of one page.
    pub const MAX_LIMIT: u32 = 100;
    /// How many there are where nobody says.
    pub const DEFAULT_LIMIT: u32 = 50;

    /// How many rows to ask the database for: one more than are shown, which tells whether there is a next page.
    pub fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The page of `rows`, of which there are up to [`Page::rows`].
    pub fn cut<T>(&self, mut rows: Vec<T>, position: impl Fn(&T) -> Position) -> Listed<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(position);
        Listed { items: rows, next }
    }
}

/// One page.
#[derive(Debug)]
pub struct Listed<T> {
    /// Its entries.
    pub items: Vec<T>,
    /// Where the next page begins; `None`: this is the last.
    pub next: Option<Position>,
}
