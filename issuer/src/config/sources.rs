//! Where settings come from: environment first, then `NAME_FILE` for secrets, then the optional TOML file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::SETTINGS;
use super::secret::Secret;

/// What the environment and the file say, unparsed.
#[derive(Default)]
pub struct Sources {
    environment: BTreeMap<String, Zeroizing<String>>,
    file: BTreeMap<String, Zeroizing<String>>,
    problems: Vec<String>,
}

impl Sources {
    /// Takes `environment` as it is, and `file` (TOML, the same names in lower case) if there is one.
    pub fn read(environment: impl IntoIterator<Item = (String, String)>, file: Option<&Path>) -> Self {
        let environment = environment.into_iter().map(|(name, value)| (name, Zeroizing::new(value)));
        let mut sources = Self { environment: environment.collect(), ..Self::default() };
        if let Some(path) = file {
            sources.read_file(path);
        }
        sources
    }

    fn read_file(&mut self, path: &Path) {
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => return self.problems.push(format!("{shown} can't be read: {error}")),
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            // The error's own text quotes the line, and the line may hold a secret.
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                return self.problems.push(format!("{shown} is not valid TOML: see line {line}"));
            }
        };
        for (key, value) in table {
            if !is_known(&key) {
                self.problems.push(format!("{shown} has the unknown setting `{key}`: remove or correct it"));
                continue;
            }
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                _ => {
                    self.problems.push(format!("`{key}` in {shown} must be a string or an integer"));
                    continue;
                }
            };
            self.file.insert(key.to_ascii_uppercase(), Zeroizing::new(value));
        }
    }

    /// The value of `name`; set to nothing counts as not set.
    fn get(&self, name: &str) -> Option<&str> {
        let found = [&self.environment, &self.file].into_iter().find_map(|source| source.get(name));
        found.map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

fn is_known(key: &str) -> bool {
    let named = |setting: &&super::Setting| {
        let name = setting.name.to_ascii_lowercase();
        key == name || (setting.secret && key.strip_suffix("_file") == Some(&name))
    };
    SETTINGS.iter().any(|setting| named(&setting))
}

/// Reads settings one by one and collects what is wrong, so that all of it is said at once.
pub(super) struct Reader<'s> {
    sources: &'s Sources,
    problems: Vec<String>,
}

impl<'s> Reader<'s> {
    pub(super) fn new(sources: &'s Sources) -> Self {
        Self { sources, problems: sources.problems.clone() }
    }

    pub(super) fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// How many problems there are so far.
    pub(super) const fn problem_count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn text(&self, name: &str) -> Option<&'s str> {
        self.sources.get(name)
    }

    /// A secret: `NAME`, or the content of the file that `NAME_FILE` names.
    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        self.secret_from(name, Readers::Anyone)
    }

    /// The same again, for another look: says nothing of what can't be read.
    pub(super) fn peek(&self, name: &str) -> Option<Secret> {
        if let Some(value) = self.sources.get(name) {
            return Some(Secret::new(value.to_owned()));
        }
        let path = self.sources.get(&format!("{name}_FILE"))?;
        read_secret(Path::new(path), Readers::Anyone).ok()
    }

    /// The same, of which the file must be closed to others.
    pub(super) fn key_material(&mut self, name: &str) -> Option<Secret> {
        self.secret_from(name, Readers::OwnerAndGroup)
    }

    fn secret_from(&mut self, name: &str, readers: Readers) -> Option<Secret> {
        let file_setting = format!("{name}_FILE");
        match (self.sources.get(name), self.sources.get(&file_setting)) {
            (Some(_), Some(_)) => {
                self.problem(format!("{name} and {file_setting} are both set: keep one"));
                None
            }
            (Some(value), None) => Some(Secret::new(value.to_owned())),
            (None, Some(path)) => match read_secret(Path::new(path), readers) {
                Ok(secret) => Some(secret),
                Err(problem) => {
                    self.problem(format!("{file_setting}: {path} {problem}"));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// A secret that must be there; `fix` says what to put.
    pub(super) fn required_secret(&mut self, name: &str, fix: &str) -> Option<Secret> {
        self.required_from(name, fix, Readers::Anyone)
    }

    /// The same, of which the file must be closed to others.
    pub(super) fn required_key_material(&mut self, name: &str, fix: &str) -> Option<Secret> {
        self.required_from(name, fix, Readers::OwnerAndGroup)
    }

    fn required_from(&mut self, name: &str, fix: &str, readers: Readers) -> Option<Secret> {
        let before = self.problems.len();
        let secret = self.secret_from(name, readers);
        if secret.is_none() && self.problems.len() == before {
            self.problem(format!("{name} environment variable is required: {fix}"));
        }
        secret
    }

    /// A text that must be there; `fix` says what to put.
    pub(super) fn required(&mut self, name: &str, fix: &str) -> Option<&'s str> {
        let text = self.sources.get(name);
        if text.is_none() {
            self.problem(format!("{name} environment variable is required: {fix}"));
        }
        text
    }

    /// A value of another type, or `default`.
    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        let Some(text) = self.sources.get(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problem(format!("{name} must be {expected}, not `{text}`"));
            default
        })
    }

    /// An integer within `range`, or `default`.
    pub(super) fn integer(
        &mut self,
        name: &str,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
        unit: &str,
    ) -> u32 {
        let expected = format!("an integer from {} to {}{unit}", range.start(), range.end());
        let value = self.parsed(name, default, &expected);
        if range.contains(&value) {
            return value;
        }
        self.problem(format!("{name} must be {expected}, not `{value}`"));
        default
    }

    /// `value`, unless something was wrong.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems(self.problems)),
        }
    }
}

/// Who may be able to read a secret's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    Anyone,
    OwnerAndGroup,
}

/// The content of a file, without white space around it. The error continues the sentence "`NAME_FILE`: path …".
pub(crate) fn read_secret(path: &Path, readers: Readers) -> Result<Secret, String> {
    let unreadable = |error: io::Error| format!("can't be read: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if readers == Readers::OwnerAndGroup && mode & 0o007 != 0 {
        let mode = mode & 0o777;
        return Err(format!("is open to everybody on this machine (mode {mode:03o}): chmod 600 it"));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(unreadable)?;
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(Secret::new(text.trim().to_owned()))
}

/// All that is wrong with the configuration.
#[derive(Debug)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
