//! JSON bodies, read field by field so that everything wrong with one is said at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use axum::extract::Request;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::body::{self, BodyError};
use super::error::{ApiError, FieldProblem};

/// Of the names that a request shouldn't have, and of the entries of one array, at most so many are named.
const MAX_PROBLEMS: usize = 100;

/// The members of a JSON object that nobody has asked for yet, and what was wrong with the others.
pub(super) struct Fields {
    members: BTreeMap<String, Value>,
    problems: Vec<FieldProblem>,
}

/// Takes a value, or says what is wrong with it.
pub(super) type Read<T> = Result<T, String>;

impl Fields {
    /// Reads the body of `request`, which must be a JSON object.
    pub(super) async fn read(request: Request) -> Result<Self, ApiError> {
        Self::parse(&read_body(request, &["application/json"]).await?)
    }

    /// From a body that was read already.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(bytes) {
            Ok(Strict(Value::Object(members))) => Ok(Self::of(members)),
            _ => Err(ApiError::Malformed("The body is not a JSON object, or has a member twice.")),
        }
    }

    /// From the members themselves.
    pub(super) fn of(members: serde_json::Map<String, Value>) -> Self {
        Self { members: members.into_iter().collect(), problems: Vec::new() }
    }

    /// A field that must be there.
    pub(super) fn required<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Read<T>) -> Option<T> {
        let value = self.members.remove(name);
        if value.is_none() {
            self.problem(name, "is required".to_owned());
        }
        self.convert(name, value?, read)
    }

    /// A field that may be absent or null.
    pub(super) fn optional<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Read<T>) -> Option<T> {
        let value = self.members.remove(name).filter(|value| !value.is_null())?;
        self.convert(name, value, read)
    }

    /// A field that may be absent; null is a value like any other. For merge patches (RFC 7396), in which it means removal.
    pub(super) fn present<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Read<T>) -> Option<T> {
        let value = self.members.remove(name)?;
        self.convert(name, value, read)
    }

    /// A field that is an object itself; it may be absent or null. What is wrong in it is named `name.field`.
    pub(super) fn nested<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let value = self.members.remove(name).filter(|value| !value.is_null())?;
        let Value::Object(members) = value else {
            self.problem(name, "must be an object".to_owned());
            return None;
        };
        let mut inner = Self::of(members);
        let value = read(&mut inner);
        match inner.finish(value) {
            Ok(value) => Some(value),
            Err(ApiError::Validation(problems)) => {
                for FieldProblem { field, problem } in problems {
                    self.problem(&format!("{name}.{field}"), problem);
                }
                None
            }
            // `finish` knows no other error.
            Err(_) => None,
        }
    }

    /// A field that may be absent or null: an array of 1 to `max` entries. What is wrong with an entry is named `name[place]`, counted from 0.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        max: usize,
        read: impl Fn(Value) -> Read<T>,
    ) -> Option<Vec<T>> {
        let value = self.members.remove(name).filter(|value| !value.is_null())?;
        let entries = match value {
            Value::Array(entries) if (1..=max).contains(&entries.len()) => entries,
            _ => {
                self.problem(name, format!("must be an array of 1 to {max} entries"));
                return None;
            }
        };
        let read: Vec<Read<T>> = entries.into_iter().map(read).collect();
        let bad = read.iter().enumerate().filter_map(|(place, entry)| Some((place, entry.as_ref().err()?)));
        let bad: Vec<(usize, String)> =
            bad.take(MAX_PROBLEMS).map(|(place, said)| (place, said.clone())).collect();
        for (place, problem) in bad {
            self.problem(&format!("{name}[{place}]"), problem);
        }
        read.into_iter().collect::<Result<_, _>>().ok()
    }

    fn convert<T>(&mut self, name: &str, value: Value, read: impl FnOnce(Value) -> Read<T>) -> Option<T> {
        read(value).map_err(|problem| self.problem(name, problem)).ok()
    }

    fn problem(&mut self, field: &str, problem: String) {
        // An unknown name may be anything: as much of it as serves.
        self.problems.push(FieldProblem { field: field.chars().take(64).collect(), problem });
    }

    /// `value`, if nothing was wrong and nothing is left over.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, ApiError> {
        for name in std::mem::take(&mut self.members).into_keys().take(MAX_PROBLEMS) {
            self.problem(&name, "is not a field of this request".to_owned());
        }
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(ApiError::Validation(self.problems)),
        }
    }
}

/// The body of `request`, which must be declared as one of `media_types`.
pub(super) async fn read_body(request: Request, media_types: &[&str]) -> Result<Vec<u8>, ApiError> {
    let (parts, body) = request.into_parts();
    if !media_types.iter().any(|media_type| body::is_media_type(&parts.headers, media_type)) {
        return Err(ApiError::UnsupportedMediaType);
    }
    body::read(body).await.map_err(|error| match error {
        BodyError::TooLarge => ApiError::PayloadTooLarge,
        BodyError::Incomplete => ApiError::Malformed("The body did not arrive whole."),
    })
}

/// A JSON value in which no object has a member twice: readers disagree about which one counts.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StrictVisitor;
        impl<'de> Visitor<'de> for StrictVisitor {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut members = serde_json::Map::new();
                while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member comes twice"));
                    }
                }
                Ok(Strict(Value::Object(members)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Strict, A::Error> {
                let mut values = Vec::new();
                while let Some(Strict(value)) = sequence.next_element()? {
                    values.push(value);
                }
                Ok(Strict(Value::Array(values)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Strict, E> {
                Ok(Strict(text.into()))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Strict, E> {
                Ok(Strict(truth.into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Strict, E> {
                Ok(Strict(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Strict, E> {
                Ok(Strict(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Strict, E> {
                Ok(Strict(number.into()))
            }

            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }
        }
        deserializer.deserialize_any(StrictVisitor)
    }
}

/// Text of 1 to `max` characters, none of them a control character.
pub(super) fn text(max: usize) -> impl Fn(Value) -> Read<String> {
    move |value| match value {
        Value::String(text)
            if (1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control) =>
        {
            Ok(text)
        }
        _ => Err(format!("must be a string of 1 to {max} characters, without control characters")),
    }
}

/// Null, or what `read` takes.
pub(super) fn or_null<T>(read: impl FnOnce(Value) -> Read<T>) -> impl FnOnce(Value) -> Read<Option<T>> {
    |value| if value.is_null() { Ok(None) } else { read(value).map(Some) }
}

/// `true` or `false`.
#[expect(clippy::needless_pass_by_value, reason = "as all readers of fields")]
pub(super) fn boolean(value: Value) -> Read<bool> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

/// A whole number from `min` to `max`.
pub(super) fn whole<T>(min: T, max: T) -> impl FnOnce(Value) -> Read<T>
where
    T: TryFrom<u64> + PartialOrd + fmt::Display,
{
    move |value| {
        let number = value.as_u64().and_then(|number| T::try_from(number).ok());
        let number = number.filter(|number| (&min..=&max).contains(&number));
        number.ok_or_else(|| format!("must be a whole number from {min} to {max}"))
    }
}

/// One of the words of `T`.
pub(super) fn word<T: std::str::FromStr>(words: &'static [&'static str]) -> impl Fn(Value) -> Read<T> {
    move |value| {
        let parsed = value.as_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| format!("must be one of {}", words.join(", ")))
    }
}

/// Up to `max` different strings, each as `read` takes it.
pub(super) fn set(
    max: usize,
    read: impl Fn(Value) -> Read<String>,
) -> impl FnOnce(Value) -> Read<Vec<String>> {
    move |value| {
        let Value::Array(values) = value else { return Err("must be an array of strings".to_owned()) };
        if values.len() > max {
            return Err(format!("must have at most {max} entries"));
        }
        let mut seen = BTreeSet::new();
        let entries = values.into_iter().enumerate().map(|(place, value)| {
            let entry = read(value).map_err(|problem| format!("entry {place} {problem}"))?;
            if seen.insert(entry.clone()) { Ok(entry) } else { Err(format!("entry {place} comes twice")) }
        });
        entries.collect()
    }
}

/// An object of up to `max` strings, names up to 64 characters, values up to 512.
pub(super) fn strings(max: usize) -> impl FnOnce(Value) -> Read<BTreeMap<String, String>> {
    move |value| {
        let Value::Object(members) = value else { return Err("must be an object of strings".to_owned()) };
        if members.len() > max {
            return Err(format!("must have at most {max} members"));
        }
        let members = members.into_iter().map(|(name, value)| {
            let name = text(64)(Value::String(name)).map_err(|problem| format!("a name {problem}"))?;
            let value = text(512)(value).map_err(|problem| format!("`{name}` {problem}"))?;
            Ok((name, value))
        });
        members.collect()
    }
}
