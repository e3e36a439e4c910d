//! A strict, bounded JSON reader (RFC 8259) for text that an attacker may have written.
//!
//! It refuses what general parsers let through and what verifiers then disagree about: duplicate members (RFC 7519 §4,
//! RFC 8725 §2.4), lone surrogates, invalid UTF-8, anything after the value. Depth and members are bounded, so the work is
//! linear in the text. It borrows from its input; only strings with escapes are copied. Why not serde: `docs/design.md`.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// How deep values may nest.
const MAX_DEPTH: u32 = 6;
/// How many members an object, and elements an array, may have.
const MAX_ITEMS: usize = 128;

/// A JSON value; numbers stay text until someone asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Object<'a>),
}

impl<'a> Value<'a> {
    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number, where it is written as an integer within `i64`.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        if let Self::Number(text) = self { text.parse().ok() } else { None }
    }

    /// The number, where it is written as an integer within `u64`.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        if let Self::Number(text) = self { text.parse().ok() } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Value<'a>]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    pub(crate) fn as_object(&self) -> Option<&Object<'a>> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }
}

/// An object's members in the order of the text, names unique.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Object<'a> {
    /// Parses a text that must be one object and nothing else.
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let text = core::str::from_utf8(text).map_err(|_| Malformed)?;
        let mut reader = Reader { text, at: 0 };
        reader.skip_white_space();
        let Value::Object(object) = reader.value(0)? else { return Err(Malformed) };
        reader.skip_white_space();
        if reader.at == text.len() { Ok(object) } else { Err(Malformed) }
    }

    /// The members' names, in the order of the text.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members().map(|(name, _)| name)
    }

    /// The members, in the order of the text.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }
}

/// The text isn't JSON as this module wants it. Where it fails is of no use to anyone but an attacker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// `text` as a JSON string.
#[cfg(feature = "builder")]
pub(crate) fn quoted(text: &str) -> String {
    use core::fmt::Write as _;

    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..='\x1f' => _ = write!(json, "\\u{:04x}", character as u32),
            _ => json.push(character),
        }
    }
    json.push('"');
    json
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: u32) -> Result<Value<'a>, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        match self.peek().ok_or(Malformed)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Value::String),
            b't' => self.literal("true", Value::Bool(true)),
            b'f' => self.literal("false", Value::Bool(false)),
            b'n' => self.literal("null", Value::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value<'a>, Malformed> {
        // As many as the payload of a token has.
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::with_capacity(12);
        self.items(b'}', |reader| {
            let name = reader.string()?;
            reader.skip_white_space();
            reader.expect(b':')?;
            reader.skip_white_space();
            let value = reader.value(depth + 1)?;
            if members.len() == MAX_ITEMS || members.iter().any(|(other, _)| *other == name) {
                return Err(Malformed);
            }
            members.push((name, value));
            Ok(())
        })?;
        Ok(Value::Object(Object(members)))
    }

    fn array(&mut self, depth: u32) -> Result<Value<'a>, Malformed> {
        let mut elements = Vec::new();
        self.items(b']', |reader| {
            let value = reader.value(depth + 1)?;
            if elements.len() == MAX_ITEMS {
                return Err(Malformed);
            }
            elements.push(value);
            Ok(())
        })?;
        Ok(Value::Array(elements))
    }

    /// From an opening bracket to `close`: items separated by commas, none trailing.
    fn items(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.at += 1;
        self.skip_white_space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            self.skip_white_space();
            let separator = self.peek().ok_or(Malformed)?;
            self.at += 1;
            match separator {
                b',' => self.skip_white_space(),
                end if end == close => return Ok(()),
                _ => return Err(Malformed),
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.peek().ok_or(Malformed)? {
                b'"' => {
                    let text = self.since(start)?;
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                b'\\' => return self.escaped_string(start).map(Cow::Owned),
                0..=0x1f => return Err(Malformed),
                _ => self.at += 1,
            }
        }
    }

    /// The rest of a string from its first escape on; the reader stands on the backslash.
    fn escaped_string(&mut self, start: usize) -> Result<String, Malformed> {
        let mut string = String::from(self.since(start)?);
        loop {
            let run = self.at;
            while !matches!(self.peek().ok_or(Malformed)?, b'"' | b'\\' | 0..=0x1f) {
                self.at += 1;
            }
            string.push_str(self.since(run)?);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => {
                    self.at += 1;
                    string.push(self.escape()?);
                }
                _ => return Err(Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        let escape = self.peek().ok_or(Malformed)?;
        self.at += 1;
        Ok(match escape {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                if (0xd800..0xdc00).contains(&unit) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    let low = self.hex4()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(Malformed);
                    }
                    char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or(Malformed)?
                } else {
                    // `from_u32` refuses a lone low surrogate.
                    char::from_u32(unit).ok_or(Malformed)?
                }
            }
            _ => return Err(Malformed),
        })
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Malformed)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, &digit| {
            char::from(digit).to_digit(16).map(|digit| value << 4 | digit).ok_or(Malformed)
        })
    }

    fn number(&mut self) -> Result<Value<'a>, Malformed> {
        let start = self.at;
        self.skip_if(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(Malformed),
        }
        if self.skip_if(b'.') {
            self.digits()?;
        }
        if self.skip_if(b'e') || self.skip_if(b'E') {
            if !self.skip_if(b'+') {
                self.skip_if(b'-');
            }
            self.digits()?;
        }
        self.since(start).map(Value::Number)
    }

    /// The text from `start` to where the reader stands. Both are between characters always; slicing without asking would bring the text of a panic into the edge's module.
    fn since(&self, start: usize) -> Result<&'a str, Malformed> {
        self.text.get(start..self.at).ok_or(Malformed)
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    fn literal(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, Malformed> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(Malformed)
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, character: u8) -> Result<(), Malformed> {
        if self.skip_if(character) { Ok(()) } else { Err(Malformed) }
    }

    fn skip_if(&mut self, character: u8) -> bool {
        let found = self.peek() == Some(character);
        self.at += usize::from(found);
        found
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &str) -> bool {
        Object::parse(text.as_bytes()).is_ok()
    }

    #[test]
    fn reads_every_kind_of_value() {
        let text = r#" {"a":[1,-2.5e+3,true,false,null,{}], "b\u0062":"\ud83d\ude00\n/\/","c":{"d":[]}} "#;
        let object = Object::parse(text.as_bytes()).unwrap();
        assert_eq!(object.get("bb").unwrap().as_str(), Some("😀\n//"));
        let array = object.get("a").unwrap().as_array().unwrap();
        assert_eq!(array[0].as_i64(), Some(1));
        assert_eq!(array[1], Value::Number("-2.5e+3"));
        assert_eq!(array[1].as_i64(), None);
    }

    #[test]
    fn refuses_what_verifiers_disagree_about() {
        for text in [
            "",
            "[]",
            "null",
            "{",
            "{}x",
            "{} {}",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a" 1}"#,
            r#"{a:1}"#,
            r#"{'a':1}"#,
            r#"{"a":01}"#,
            r#"{"a":+1}"#,
            r#"{"a":.5}"#,
            r#"{"a":1.}"#,
            r#"{"a":1e}"#,
            r#"{"a":NaN}"#,
            r#"{"a":-}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12"}"#,
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\n\n\"}",
            "{\"a\":\"b}",
            "{\"a\":\"\\",
            "\u{feff}{}",
            "{}\0",
            r#"{"a":[1,2}"#,
            r#"{"a":[[[[[[[1]]]]]]]}"#,
        ] {
            assert!(!accepts(text), "{text}");
        }
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}"), Err(Malformed));
        let many = (0..=MAX_ITEMS).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>();
        assert!(accepts(&format!("{{{}}}", many[1..].join(","))));
        assert!(!accepts(&format!("{{{}}}", many.join(","))));
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = Object::parse(&text);
        }

        #[test]
        fn never_panics_near_json(text in r#"[{}\[\]",:\\u0-9a-fA-F.eE+\- tn\n]{0,60}"#) {
            let _ = Object::parse(text.as_bytes());
        }

        #[test]
        fn whatever_it_takes_serde_json_takes(text in r#"\{"[a-c]":[0-9tfn".\-e{}\[\],]{1,12}\}"#) {
            if accepts(&text) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn reads_what_serde_json_writes(members in prop::collection::btree_map(".{0,8}", ".{0,20}", 0..8)) {
            let text = serde_json::to_vec(&members).unwrap();
            let object = Object::parse(&text).unwrap();
            for (name, value) in &members {
                prop_assert_eq!(object.get(name).and_then(Value::as_str), Some(value.as_str()));
            }
        }
    }
}
