//! What there is: tenants, agents, credentials, scopes, audit events. Types and their rules; no I/O.

pub mod agent;
pub mod audit;
pub mod client_secret;
pub mod credential;
pub mod limit;
pub mod page;
pub mod publication;
pub mod redaction;
pub mod resource_server;
pub mod revision;
pub mod scope;
pub mod signing_key;
pub mod tenant;
pub mod transition;

use std::fmt;

/// A stored word that isn't one of its type's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    /// The type.
    pub kind: &'static str,
    /// The word.
    pub word: String,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no {}", self.word, self.kind)
    }
}

impl std::error::Error for UnknownWord {}

/// An enum whose values have one spelling, in the database and in JSON alike.
macro_rules! text_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// Every word, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$value),)+
                    _ => Err($crate::domain::UnknownWord { kind: stringify!($name), word: word.to_owned() }),
                }
            }
        }
    };
}

pub(crate) use text_enum;
