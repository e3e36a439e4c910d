//! Which requests an edge lets through, and what their tokens need: the route policy (`docs/reference/policy.md`).
//!
//! One implementation for the edge, which decides by it, and the command line, which checks and explains it. Deny by default; of the routes that fit a request the most
//! specific decides. What is compared is the path that the upstream will see; where an upstream might take a path for another one, and that one has other rules, nobody
//! decides: [`Decision::Ambiguous`].

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use crate::ids::TenantId;
use crate::json::{Object, Value};
use crate::oauth::is_scope_token;

/// The longest path that is looked at, in bytes.
const MAX_PATH_BYTES: usize = 4096;
/// Bounds of staleness, in seconds: the issuer is heard from every second, and a head is good for five minutes.
const STALENESS_SECONDS: core::ops::RangeInclusive<u64> = 2..=300;

/// A route policy, sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePolicy {
    /// The most specific first.
    routes: Vec<Route>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its place in the file, from 0 on.
    pub place: usize,
    pattern: Vec<Segment>,
    /// Empty: all.
    methods: Vec<String>,
    /// What a request needs.
    pub access: Access,
}

/// A part of a pattern between slashes. Ordered by how specific it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// This text.
    Literal(String),
    /// `*`: anything, but not nothing.
    One,
    /// `**`, at the end: all below, and the path before it.
    Rest,
}

/// What a request needs to be let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Nothing lets it through.
    Denied,
    /// No token; none is looked at.
    Anonymous,
    /// A token that holds.
    Token(Requirements),
}

/// What a token needs beside holding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// One of these is its `iss`; empty: our own only.
    pub issuers: Vec<String>,
    /// One of these in `aud`; empty: any that the edge takes.
    pub audience: Vec<String>,
    /// All of these.
    pub scopes: Vec<String>,
    /// One of these; empty: any. Our own are UUIDs.
    pub tenants: Vec<String>,
    /// One of these; empty: any.
    pub agent_types: Vec<String>,
    /// How old knowledge of revocations may be.
    pub staleness: Staleness,
}

/// How old knowledge of revocations may be, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staleness {
    /// Up to this age nobody waits.
    pub fresh: u16,
    /// Up to this age, after an attempt to renew it.
    pub usable: u16,
    /// Beyond it: by what was known last, or 503.
    pub serve_unknown: bool,
}

impl Default for Staleness {
    fn default() -> Self {
        Self { fresh: 5, usable: 30, serve_unknown: false }
    }
}

/// What is said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'p> {
    /// The path isn't one that everybody reads alike: 400.
    Ambiguous(Ambiguity),
    /// No route, or one that denies: 403.
    Denied(Option<&'p Route>),
    /// It needs what the route says.
    Route(&'p Route),
}

/// Why a path isn't decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// It doesn't begin with a slash, or is too long.
    Form,
    /// A character that has to be percent-encoded, or one that many servers read as something else (`;`, `\`).
    Character,
    /// A percent sign that begins no encoding, or one of something that must not be encoded, because servers differ in when they decode it.
    Encoding,
    /// `//`, `.` or `..`: servers remove these, or don't.
    Segments,
    /// To a server that ignores case, or a slash at the end, or that decodes first, it is a path with other rules: those of the route at this place.
    Lookalike(usize),
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "The path is too long, or doesn't begin with a slash",
            Self::Character => "The path has a character that must be percent-encoded, or a semicolon",
            Self::Encoding => "The path encodes what must not be encoded",
            Self::Segments => "The path has empty segments or dots for segments",
            Self::Lookalike(_) => {
                "The path is easily taken for another one, with other rules: check case, slashes and encodings"
            }
        })
    }
}

/// What a token lacks: 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It is of another issuer.
    Issuer,
    /// It is for another audience.
    Audience,
    /// It is another tenant's.
    Tenant,
    /// Its agent is of another type.
    AgentType,
    /// A scope (RFC 6750 §3.1).
    Scope,
}

/// Of a token that holds, what routes go by.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'t> {
    /// `iss`.
    pub issuer: &'t str,
    /// Whether that is our own one.
    pub is_ours: bool,
    /// `aud`.
    pub audience: &'t [&'t str],
    /// `scope`.
    pub scopes: &'t [&'t str],
    /// `tenant_id`, or what an operator says it is; empty: none.
    pub tenant: &'t str,
    /// `agent_type`, as `tenant`.
    pub agent_type: &'t str,
}

/// What is wrong with a policy, and where: `routes[2].path`, or nothing for all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: String,
    /// What.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.text)
        } else {
            write!(f, "{}: {}", self.place, self.text)
        }
    }
}

impl RoutePolicy {
    /// Reads a policy (JSON). All that is wrong with it is named at once.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems(Vec::new());
        let Ok(policy) = Object::parse(text) else {
            problems
                .add("", "isn't one JSON object, has a member twice, or more than 128 entries in one place");
            return Err(problems.0);
        };
        for name in policy.names() {
            if !["$schema", "description", "version", "routes"].contains(&name) {
                problems.add(name, "is no member of a policy");
            }
        }
        if policy.get("version").and_then(Value::as_u64) != Some(1) {
            problems.add("version", "must be 1");
        }
        let mut routes = Vec::new();
        match policy.get("routes").and_then(Value::as_array) {
            None | Some([]) => problems.add("routes", "must be an array of at least one route"),
            Some(items) => {
                for (place, item) in items.iter().enumerate() {
                    let at = format!("routes[{place}]");
                    match item.as_object() {
                        None => problems.add(&at, "must be an object"),
                        Some(object) => routes.extend(Reader { object, at }.route(place, &mut problems)),
                    }
                }
            }
        }
        for (index, route) in routes.iter().enumerate() {
            routes[..index].iter().for_each(|earlier| problems.compare(earlier, route));
        }
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        // They are few, and the library's sorting would be a tenth of the edge's module.
        let mut sorted: Vec<Route> = Vec::with_capacity(routes.len());
        for route in routes {
            let at = sorted.iter().take_while(|other| other.is_before(&route)).count();
            sorted.insert(at, route);
        }
        Ok(Self { routes: sorted })
    }

    /// The route at that place of the file.
    pub fn route(&self, place: usize) -> Option<&Route> {
        self.routes.iter().find(|route| route.place == place)
    }

    /// All routes, the most specific first.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// The routes that fit a request, the most specific first: the first one decides.
    pub fn fitting<'p>(&'p self, method: &str, path: &str) -> impl Iterator<Item = &'p Route> {
        let (method, path) = (as_routed(method), normal(path));
        self.routes.iter().filter(move |route| route.takes(&method) && route.fits(&path, false))
    }

    /// What is said of a request with that method for that path: the one that the upstream is asked for, without the query.
    pub fn decide(&self, method: &str, path: &str) -> Decision<'_> {
        if let Err(ambiguity) = check_path(path) {
            return Decision::Ambiguous(ambiguity);
        }
        let Some(route) = self.fitting(method, path).next() else { return Decision::Denied(None) };
        // A server that ignores case, or a slash at the end, or that decodes before it looks, may take it for what another route is about.
        let method = as_routed(method);
        let path = plain(path);
        let other = self.routes.iter().find(|other| other.takes(&method) && other.fits(&path, true));
        if let Some(other) = other.filter(|other| other.access != route.access) {
            return Decision::Ambiguous(Ambiguity::Lookalike(other.place));
        }
        if route.access == Access::Denied { Decision::Denied(Some(route)) } else { Decision::Route(route) }
    }
}

impl Route {
    /// Whether `bearer` has what this route needs; else the first thing that it lacks.
    pub fn admits(&self, bearer: &Bearer<'_>) -> Result<(), Lack> {
        let Access::Token(needed) = &self.access else { return Ok(()) };
        let is_one = |own: &[String], text: &str| own.iter().any(|own| own == text);
        // Whoever wrote the route had our own agents in mind, unless it says otherwise: what another issuer calls a tenant or a scope is its own affair.
        let is_from_one =
            if needed.issuers.is_empty() { bearer.is_ours } else { is_one(&needed.issuers, bearer.issuer) };
        if !is_from_one {
            return Err(Lack::Issuer);
        }
        if !needed.audience.is_empty() && !bearer.audience.iter().any(|text| is_one(&needed.audience, text)) {
            return Err(Lack::Audience);
        }
        if !needed.tenants.is_empty() && !is_one(&needed.tenants, bearer.tenant) {
            return Err(Lack::Tenant);
        }
        if !needed.agent_types.is_empty() && !is_one(&needed.agent_types, bearer.agent_type) {
            return Err(Lack::AgentType);
        }
        if !needed.scopes.iter().all(|scope| bearer.scopes.contains(&scope.as_str())) {
            return Err(Lack::Scope);
        }
        Ok(())
    }

    /// Its pattern as it is written.
    pub fn path(&self) -> String {
        let segments = self.pattern.iter().map(|segment| match segment {
            Segment::Literal(text) => text,
            Segment::One => "*",
            Segment::Rest => "**",
        });
        segments.fold(String::new(), |path, segment| path + "/" + segment)
    }

    /// Its methods; empty: all.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    fn takes(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|own| own == method)
    }

    /// `loosely`: whatever the case, with or without a slash at the end, and whatever is percent-encoded; `path` is [`plain`] then.
    fn fits(&self, path: &str, loosely: bool) -> bool {
        let path = if loosely { path.strip_suffix('/').unwrap_or(path) } else { path };
        let pattern = match self.pattern.split_last() {
            Some((Segment::Literal(last), others)) if loosely && last.is_empty() => others,
            _ => &self.pattern,
        };
        let mut path = segments(path);
        for segment in pattern {
            let fits = match (segment, path.next()) {
                (Segment::Rest, _) => return true,
                (Segment::Literal(own), Some(text)) => {
                    own == text || loosely && plain(own).eq_ignore_ascii_case(text)
                }
                (Segment::One, Some(text)) => !text.is_empty(),
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        path.next().is_none()
    }

    /// Segment by segment, from the left: a text before `*`, that before the end, that before `**`. Then a route with methods before one for all, and as they are written. Of two
    /// routes that fit one request the last never decides: `Problems::compare`.
    fn is_before(&self, other: &Self) -> bool {
        fn ranks(route: &Route) -> impl Iterator<Item = u8> {
            let ranks = route.pattern.iter().map(|segment| match segment {
                Segment::Literal(_) => 0,
                Segment::One => 1,
                Segment::Rest => 3,
            });
            ranks.chain([2])
        }
        match ranks(self).cmp(ranks(other)) {
            Ordering::Equal => {
                (self.methods.is_empty(), self.place) < (other.methods.is_empty(), other.place)
            }
            order => order == Ordering::Less,
        }
    }
}

/// HEAD is answered like GET (RFC 9110 §9.3.2), so it needs the same.
fn as_routed(method: &str) -> String {
    if method == "HEAD" { "GET".to_owned() } else { method.to_owned() }
}

/// What is between its slashes: of `/` one empty text, of nothing nothing.
fn segments(path: &str) -> core::iter::Skip<core::str::Split<'_, char>> {
    path.split('/').skip(1)
}

/// The path with the digits of percent-encodings in upper case: to servers they are alike.
fn normal(path: &str) -> String {
    let mut digits = 0;
    let upper = |character: char| {
        digits = match character {
            '%' => 2,
            _ if digits > 0 => {
                digits -= 1;
                return character.to_ascii_uppercase();
            }
            _ => 0,
        };
        character
    };
    path.chars().map(upper).collect()
}

/// The path with that decoded which needn't have been encoded: `%40` isn't `@` (RFC 3986 §2.2), but is to servers that decode before they look.
fn plain(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    for (place, part) in path.split('%').enumerate() {
        let decoded = if place == 0 { None } else { encoded(part.as_bytes()).filter(|byte| is_reserved(*byte)) };
        match (decoded, part.get(2..)) {
            (Some(byte), Some(rest)) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            _ => {
                plain.push_str(if place == 0 { "" } else { "%" });
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Whether all servers that there are read the path alike.
fn check_path(path: &str) -> Result<(), Ambiguity> {
    if !path.starts_with('/') || path.len() > MAX_PATH_BYTES {
        return Err(Ambiguity::Form);
    }
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'%' => {
                let decoded = encoded(bytes.get(at + 1..).unwrap_or_default()).ok_or(Ambiguity::Encoding)?;
                // Unreserved characters are written as themselves (RFC 3986 §2.3); slashes, backslashes, semicolons and controls are read before decoding
                // by some and after it by others; and what is decoded twice is something else then.
                let decoded_twice =
                    decoded == b'%' && encoded(bytes.get(at + 3..).unwrap_or_default()).is_some();
                if is_unreserved(decoded)
                    || matches!(decoded, b'/' | b'\\' | b';' | 0..=0x1f | 0x7f)
                    || decoded_twice
                {
                    return Err(Ambiguity::Encoding);
                }
                at += 2;
            }
            _ if byte == b'/' || is_reserved(byte) || is_unreserved(byte) => {}
            _ => return Err(Ambiguity::Character),
        }
        at += 1;
    }
    let mut segments = segments(path).peekable();
    while let Some(segment) = segments.next() {
        // The last one may be empty: a slash at the end.
        if segment == "." || segment == ".." || segment.is_empty() && segments.peek().is_some() {
            return Err(Ambiguity::Segments);
        }
    }
    Ok(())
}

/// The byte that two hexadecimal digits at the beginning of `text` stand for.
fn encoded(text: &[u8]) -> Option<u8> {
    let digit =
        |place: usize| char::from(*text.get(place)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(0)? << 4 | digit(1)?)
}

/// Of `pchar` (RFC 3986 §3.3) what isn't unreserved, without the semicolon.
const fn is_reserved(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

struct Problems(Vec<Problem>);

impl Problems {
    /// Once in the edge's module, not once for each mistake that there is.
    #[inline(never)]
    fn add(&mut self, place: &str, text: &str) {
        self.0.push(Problem { place: place.to_owned(), text: text.to_owned() });
    }

    /// Two routes for the same requests, or for requests that no server need tell apart.
    fn compare(&mut self, earlier: &Route, later: &Route) {
        let overlap = earlier.methods.is_empty() == later.methods.is_empty()
            && (earlier.methods.is_empty() || earlier.methods.iter().any(|method| later.takes(method)));
        let share = earlier.methods.is_empty() || later.methods.is_empty() || overlap;
        let at = format!("routes[{}].path", later.place);
        if earlier.pattern == later.pattern {
            if overlap {
                self.add(&at, &format!("is that of routes[{}], with a method in common", earlier.place));
            }
        } else if share
            && earlier.access != later.access
            && earlier.path().trim_end_matches('/').eq_ignore_ascii_case(later.path().trim_end_matches('/'))
        {
            let text = format!(
                "differs from that of routes[{}] by case or a slash at its end only, and needs something else: no request would be decided",
                earlier.place
            );
            self.add(&at, &text);
        }
    }
}

/// Members of a route that only go with a token.
const OF_TOKENS: [&str; 8] = [
    "issuers",
    "audience",
    "scopes",
    "tenants",
    "agent_types",
    "fresh_seconds",
    "usable_seconds",
    "when_unknown",
];

struct Reader<'o, 't> {
    object: &'o Object<'t>,
    at: String,
}

impl Reader<'_, '_> {
    #[inline(never)]
    fn refuse(&self, name: &str, text: &str, problems: &mut Problems) {
        problems.add(&format!("{}.{name}", self.at), text);
    }

    /// `None`: with problems.
    fn route(&self, place: usize, problems: &mut Problems) -> Option<Route> {
        let before = problems.0.len();
        for name in self.object.names() {
            let known = ["path", "methods", "description", "anonymous", "deny"].contains(&name);
            if !known && !OF_TOKENS.contains(&name) {
                self.refuse(name, "is no member of a route", problems);
            }
        }
        let pattern = self.pattern(problems);
        let methods = self.texts("methods", "methods in capitals, as GET", &is_method, problems);
        if methods.iter().any(|method| method == "HEAD") {
            self.refuse("methods", "must not name HEAD: it goes with GET", problems);
        }
        let access = self.access(problems);
        (problems.0.len() == before).then_some(Route { place, pattern, methods, access })
    }

    fn pattern(&self, problems: &mut Problems) -> Vec<Segment> {
        let Some(path) = self.object.get("path").and_then(Value::as_str) else {
            self.refuse("path", "must be a path, as /orders/*", problems);
            return Vec::new();
        };
        if let Err(ambiguity) = check_path(path) {
            self.refuse("path", &format!("can't be that of a request: {ambiguity}"), problems);
        }
        let path = normal(path);
        let mut segments = segments(&path).peekable();
        let mut pattern = Vec::new();
        while let Some(segment) = segments.next() {
            pattern.push(match segment {
                "*" => Segment::One,
                "**" if segments.peek().is_none() => Segment::Rest,
                text => {
                    if text.contains('*') {
                        self.refuse(
                            "path",
                            "must have `*` for a whole segment, `**` for the last one only",
                            problems,
                        );
                    }
                    Segment::Literal(text.to_owned())
                }
            });
        }
        pattern
    }

    fn access(&self, problems: &mut Problems) -> Access {
        let mut flag = |name: &str| match self.object.get(name) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(_) => {
                self.refuse(name, "must be true or false", problems);
                false
            }
        };
        let (anonymous, denied) = (flag("anonymous"), flag("deny"));
        if anonymous || denied {
            let open = if denied { "deny" } else { "anonymous" };
            if anonymous && denied {
                self.refuse("anonymous", "contradicts `deny`", problems);
            }
            for name in OF_TOKENS.into_iter().filter(|name| self.object.get(name).is_some()) {
                self.refuse(name, &format!("has no effect beside `{open}`: remove one of them"), problems);
            }
            return if denied { Access::Denied } else { Access::Anonymous };
        }
        let is_audience = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_agent_type = |text: &str| {
            (1..=32).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let issuers = self.texts("issuers", "issuers, as their tokens name them", &is_audience, problems);
        let takes_others = !issuers.is_empty();
        let is_tenant = |text: &str| text.parse::<TenantId>().is_ok() || takes_others && is_audience(text);
        Access::Token(Requirements {
            issuers,
            audience: self.texts("audience", "identifiers of resource servers", &is_audience, problems),
            scopes: self.texts("scopes", "scopes (RFC 6749 §3.3)", &is_scope_token, problems),
            tenants: self.texts("tenants", "UUIDs in lower-case hyphenated form", &is_tenant, problems),
            agent_types: self.texts("agent_types", "agent types", &is_agent_type, problems),
            staleness: self.staleness(problems),
        })
    }

    fn staleness(&self, problems: &mut Problems) -> Staleness {
        let usual = Staleness::default();
        let mut seconds = |name: &str, usual: u16| {
            let Some(value) = self.object.get(name) else { return usual };
            let value = value.as_u64().filter(|seconds| STALENESS_SECONDS.contains(seconds));
            value.and_then(|seconds| u16::try_from(seconds).ok()).unwrap_or_else(|| {
                self.refuse(name, "must be a whole number of seconds from 2 to 300", problems);
                usual
            })
        };
        let fresh = seconds("fresh_seconds", usual.fresh);
        // Who asks for less than is usual, or more, means both bounds.
        let usable = seconds("usable_seconds", usual.usable.max(fresh));
        if usable < fresh {
            self.refuse("usable_seconds", "must not be less than fresh_seconds", problems);
        }
        let serve_unknown = match self.object.get("when_unknown").map(Value::as_str) {
            None | Some(Some("refuse")) => false,
            Some(Some("serve")) => true,
            Some(_) => {
                self.refuse("when_unknown", "must be \"refuse\" or \"serve\"", problems);
                false
            }
        };
        Staleness { fresh, usable, serve_unknown }
    }

    /// One text or an array of different ones; empty where there is no such member.
    fn texts(
        &self,
        name: &str,
        what: &str,
        is_one: &dyn Fn(&str) -> bool,
        problems: &mut Problems,
    ) -> Vec<String> {
        let Some(value) = self.object.get(name) else { return Vec::new() };
        let values = value.as_array().unwrap_or(core::slice::from_ref(value));
        let texts: Vec<&str> = values.iter().filter_map(Value::as_str).filter(|text| is_one(text)).collect();
        let repeats = texts.iter().enumerate().any(|(place, text)| texts[..place].contains(text));
        if values.is_empty() || texts.len() < values.len() || repeats {
            let text = format!("must be an array of different {what}; without any, leave it out");
            self.refuse(name, &text, problems);
        }
        texts.into_iter().map(str::to_owned).collect()
    }
}

fn is_method(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}
