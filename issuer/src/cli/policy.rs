//! `countersign policy`: the edge's route policy, by the very code that decides at the edge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_shared::route_policy::{
    Access, Ambiguity, Decision, Problem, Requirements, Route, RoutePolicy,
};
use serde_json::{Value, json};

use super::Outcome;
use super::output::{self, Format};
use crate::domain::agent::AgentType;

/// What a variable of a Worker may hold, in bytes.
const MAX_VARIABLE: usize = 5 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what is wrong with a policy, with the line, and which routes it has, the most specific first.
    #[command(after_help = "Example:\n  countersign policy check edge-verifier/edge-policy.json")]
    Check(Check),
    /// Say which route decides about a request, why, and what a token for it needs.
    #[command(
        after_help = "Example:\n  countersign policy explain GET /orders/17 --policy edge-verifier/edge-policy.json"
    )]
    Explain(Explain),
    /// Print a policy on one line, for the variable `ROUTE_POLICY`.
    #[command(
        after_help = "Example:\n  wrangler deploy --var \"ROUTE_POLICY:$(countersign policy compact edge-policy.json)\""
    )]
    Compact(Compact),
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The policy's file.
    file: PathBuf,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The request's method.
    #[arg(value_parser = method)]
    method: String,
    /// Its path, as the edge gets it; what begins with `?` isn't looked at.
    path: String,
    /// The policy's file.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Print a JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Compact {
    /// The policy's file.
    file: PathBuf,
}

pub(super) fn run(command: &Command) -> Outcome {
    match command {
        Command::Check(options) => check(options),
        Command::Explain(options) => explain(options),
        Command::Compact(options) => compact(options),
    }
}

fn check(options: &Check) -> Outcome {
    let policy = Read::from_file(&options.file)?;
    let routes: Vec<&Route> = policy.policy.routes().collect();
    let row = |route: &&Route| {
        let methods = if route.methods().is_empty() { "all".to_owned() } else { route.methods().join(" ") };
        vec![policy.line_of(route.place).to_string(), methods, route.path(), needs(&route.access)]
    };
    let rows: Vec<Vec<String>> = routes.iter().map(row).collect();
    let body = json!({ "routes": routes.iter().map(|route| policy.shown(route)).collect::<Vec<_>>() });
    output::list(Format::of(options.json), &body, &["line", "methods", "path", "needs"], &rows)?;
    Ok(())
}

fn explain(options: &Explain) -> Outcome {
    let read = Read::from_file(&options.policy)?;
    let path = options.path.split(['?', '#']).next().unwrap_or_default();
    let decision = read.policy.decide(&options.method, path);
    let fitting: Vec<&Route> = match decision {
        Decision::Ambiguous(Ambiguity::Lookalike(_)) | Decision::Denied(_) | Decision::Route(_) => {
            read.policy.fitting(&options.method, path).collect()
        }
        Decision::Ambiguous(_) => Vec::new(),
    };
    let name = |route: &Route| format!("routes[{}] (line {})", route.place, read.line_of(route.place));
    let (status, said) = match decision {
        Decision::Ambiguous(ambiguity) => {
            let other = match ambiguity {
                Ambiguity::Lookalike(place) => {
                    let [decides, other] =
                        [fitting.first().copied(), read.policy.route(place)].map(|route| {
                            route.map(|route| format!("{} {}", name(route), route.path())).unwrap_or_default()
                        });
                    format!(": {decides} would decide, and {other} about what it is taken for")
                }
                _ => String::new(),
            };
            ("400", format!("refused: {ambiguity}{other}"))
        }
        Decision::Denied(None) => ("403", "denied: no route fits".to_owned()),
        Decision::Denied(Some(route)) => ("403", format!("denied by {}: {}", name(route), route.path())),
        Decision::Route(route) => {
            let methods =
                if route.methods().is_empty() { "all methods".to_owned() } else { route.methods().join(" ") };
            ("", format!("{} decides: {methods} {}", name(route), route.path()))
        }
    };
    let mut fields = vec![("decision", said)];
    if !status.is_empty() {
        fields.push(("answer", status.to_owned()));
    }
    if let Decision::Route(route) = decision {
        fields.push(("needs", needs(&route.access)));
    }
    if fitting.len() > 1 {
        let others = fitting[1..].iter().map(|route| format!("{} {}", name(route), route.path()));
        fields.push(("less specific", others.collect::<Vec<_>>().join(", ")));
    }
    let body = json!({
        "answer": status.parse::<u16>().ok(),
        "decision": fields[0].1,
        "fitting": fitting.iter().map(|route| read.shown(route)).collect::<Vec<_>>(),
    });
    Ok(output::record(Format::of(options.json), &body, &fields)?)
}

fn compact(options: &Compact) -> Outcome {
    let read = Read::from_file(&options.file)?;
    let mut policy: Value = serde_json::from_str(&read.text)?;
    // What no request is decided by.
    let drop_notes = |object: &mut Value| {
        if let Some(object) = object.as_object_mut() {
            object.retain(|name, _| name != "description" && name != "$schema");
        }
    };
    drop_notes(&mut policy);
    policy["routes"].as_array_mut().into_iter().flatten().for_each(drop_notes);
    let text = policy.to_string();
    if text.len() > MAX_VARIABLE {
        let problem = format!(
            "{} has {} bytes on one line, and a variable of a Worker holds {MAX_VARIABLE}: put it into edge-verifier/edge-policy.json, which is deployed with the Worker",
            options.file.display(),
            text.len()
        );
        return Err(problem.into());
    }
    Ok(output::json(&policy)?)
}

/// A sound policy and where its parts are in the file.
struct Read {
    text: String,
    policy: RoutePolicy,
    lines: BTreeMap<String, usize>,
}

impl Read {
    fn from_file(file: &Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let shown = file.display();
        let text =
            std::fs::read_to_string(file).map_err(|error| format!("{shown} can't be read: {error}"))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| format!("{shown}:{}: {error}", error.line()))?;
        let (lines, repeated) = Lines::of(&text);
        let mut problems: Vec<(usize, String)> =
            repeated.into_iter().map(|(line, name)| (line, format!("{name}: is there twice"))).collect();
        let parsed = RoutePolicy::parse(text.as_bytes());
        if let Err(found) = &parsed
            && problems.is_empty()
        {
            problems.extend(found.iter().map(|problem| (line_of(&lines, problem), problem.to_string())));
        }
        problems.extend(
            unknown_agent_types(&value)
                .into_iter()
                .map(|problem| (line_of(&lines, &problem), problem.to_string())),
        );
        problems.sort();
        match parsed {
            Ok(policy) if problems.is_empty() => Ok(Self { text, policy, lines }),
            _ => {
                let said: Vec<String> = problems
                    .into_iter()
                    .map(|(line, problem)| format!("{shown}:{line}: {problem}"))
                    .collect();
                Err(said.join("\n").into())
            }
        }
    }

    fn line_of(&self, place: usize) -> usize {
        self.lines.get(&format!("routes[{place}]")).copied().unwrap_or(1)
    }

    fn shown(&self, route: &Route) -> Value {
        json!({
            "place": route.place, "line": self.line_of(route.place), "path": route.path(), "methods": route.methods(), "needs": needs(&route.access),
        })
    }
}

/// What a mistyped type would do is to let nobody in; the edge takes any word for one.
fn unknown_agent_types(policy: &Value) -> Vec<Problem> {
    let routes = policy["routes"].as_array().into_iter().flatten().enumerate();
    let types = routes.flat_map(|(place, route)| {
        let types = &route["agent_types"];
        let types = types.as_array().map_or_else(|| std::slice::from_ref(types), Vec::as_slice);
        types.iter().filter_map(Value::as_str).map(move |agent_type| (place, agent_type))
    });
    types
        .filter(|(_, agent_type)| agent_type.parse::<AgentType>().is_err())
        .map(|(place, agent_type)| Problem {
            place: format!("routes[{place}].agent_types"),
            text: format!("there are no agents of the type {agent_type}"),
        })
        .collect()
}

/// Where the problem is, or what it is missing from.
fn line_of(lines: &BTreeMap<String, usize>, problem: &Problem) -> usize {
    let mut place = problem.place.as_str();
    loop {
        match (lines.get(place), place.rsplit_once('.')) {
            (Some(line), _) => return *line,
            (None, Some((parent, _))) => place = parent,
            (None, None) => return 1,
        }
    }
}

fn needs(access: &Access) -> String {
    let Access::Token(Requirements { issuers, audience, scopes, tenants, agent_types, staleness }) = access
    else {
        return if *access == Access::Denied { "denied" } else { "nothing (anonymous)" }.to_owned();
    };
    let mut needs = vec!["a token".to_owned()];
    let mut also = |what: &str, words: &[String], between: &str| {
        if !words.is_empty() {
            needs.push(format!("{what} {}", words.join(between)));
        }
    };
    also("from", issuers, " or ");
    also("for", audience, " or ");
    also("with", scopes, " and ");
    also("of tenant", tenants, " or ");
    also("of a", agent_types, " or ");
    let unknown = if staleness.serve_unknown { "then served unknown" } else { "then refused" };
    needs.push(format!("revocations {} s fresh, {} s usable, {unknown}", staleness.fresh, staleness.usable));
    needs.join(", ")
}

fn method(text: &str) -> Result<String, String> {
    let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if is_method { Ok(text.to_owned()) } else { Err("must be a method in capitals, as GET".to_owned()) }
}

/// On which lines the values of a JSON text begin: `routes[0].path`. The text is known to be sound, and so is its depth: `serde_json` has read it.
struct Lines<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
    found: BTreeMap<String, usize>,
    repeated: Vec<(usize, String)>,
}

impl<'t> Lines<'t> {
    /// And on which ones a member comes a second time.
    fn of(text: &'t str) -> (BTreeMap<String, usize>, Vec<(usize, String)>) {
        let mut lines =
            Self { text: text.as_bytes(), at: 0, line: 1, found: BTreeMap::new(), repeated: Vec::new() };
        lines.value("");
        (lines.found, lines.repeated)
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at).filter(|byte| byte.is_ascii_whitespace()) {
            self.line += usize::from(*byte == b'\n');
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn value(&mut self, place: &str) {
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                self.note(place);
                self.at += 1;
                let mut index = 0;
                while let Some(byte) = self.peek() {
                    match byte {
                        b'}' | b']' => {
                            self.at += 1;
                            return;
                        }
                        b',' => self.at += 1,
                        _ if open == b'[' => {
                            self.value(&format!("{place}[{index}]"));
                            index += 1;
                        }
                        _ => {
                            let name = self.string();
                            let dot = if place.is_empty() { "" } else { "." };
                            self.peek();
                            self.at += 1; // the colon
                            self.value(&format!("{place}{dot}{name}"));
                        }
                    }
                }
            }
            Some(b'"') => {
                self.note(place);
                self.string();
            }
            _ => {
                self.note(place);
                while self.text.get(self.at).is_some_and(|byte| !b",]} \t\r\n".contains(byte)) {
                    self.at += 1;
                }
            }
        }
    }

    fn note(&mut self, place: &str) {
        if self.found.insert(place.to_owned(), self.line).is_some() {
            self.repeated.push((self.line, place.to_owned()));
        }
    }

    /// The string that begins here, with its escapes resolved.
    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.at += 1,
                _ => {}
            }
        }
        self.text.get(start..self.at).and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default()
    }
}
