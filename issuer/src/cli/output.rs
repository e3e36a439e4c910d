//! What commands print: tables and records for people, JSON for programs. The JSON is that of the HTTP API.

use std::io::{self, Write as _};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// By the option `--json`.
    pub(super) const fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Prints a list: a row each under `headings`, or `list` as JSON.
pub(super) fn list<T: Serialize>(
    format: Format,
    list: &T,
    headings: &[&str],
    rows: &[Vec<String>],
) -> io::Result<()> {
    match format {
        Format::Json => json(list),
        Format::Text => line(&table(headings, rows)),
    }
}

/// Prints one thing: a line for each of `fields`, or `item` as JSON.
pub(super) fn record<T: Serialize>(format: Format, item: &T, fields: &[(&str, String)]) -> io::Result<()> {
    match format {
        Format::Json => json(item),
        Format::Text => {
            let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
            let lines = fields.iter().map(|(name, value)| format!("{name:<width$}  {}", plain(value)));
            line(&lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Prints a sentence, or nothing where a program reads.
pub(super) fn note(format: Format, text: &str) -> io::Result<()> {
    if format == Format::Text { line(text) } else { Ok(()) }
}

/// A time as the API has it; `-` where there is none.
pub(super) fn time(time: impl Into<Option<OffsetDateTime>>) -> String {
    let text = time.into().and_then(|time| time.truncate_to_second().format(&Rfc3339).ok());
    text.unwrap_or_else(|| "-".to_owned())
}

/// Prints a value for programs.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Unlike `println!`, no panic where nobody reads any more, as in `countersign … | head`.
fn line(text: &str) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|heading| heading.to_uppercase()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(&headings)
        .chain(rows)
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let written = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    written.collect::<Vec<_>>().join("\n")
}

/// What others have entered must not steer the operator's terminal.
fn plain(cell: &str) -> String {
    cell.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let rows = [vec!["müller".to_owned(), "x".to_owned()], vec!["a\u{1b}[31m".to_owned(), String::new()]];
        assert_eq!(table(&["name", "state"], &rows), "NAME    STATE\nmüller  x\na\u{fffd}[31m");
    }
}
