//! The description at `/openapi.json`: whole, true, and a fuzzer that knows nothing but it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::support::Issuer;
use crate::support::cli::Cli;
use crate::support::issuer::claims;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

async fn description(issuer: &Issuer) -> Value {
    issuer.get("/openapi.json").send().await.unwrap().json().await.unwrap()
}

/// An operation of the description.
#[derive(Clone)]
struct Operation {
    path: String,
    method: &'static str,
    body: Value,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

fn operations(api: &Value) -> Vec<Operation> {
    let paths = api["paths"].as_object().unwrap().iter();
    let of = |(path, item): (&String, &Value)| {
        let methods = METHODS.into_iter().filter(|method| item.get(method).is_some());
        methods
            .map(|method| Operation { path: path.clone(), method, body: item[method].clone() })
            .collect::<Vec<_>>()
    };
    paths.flat_map(of).collect()
}

#[tokio::test]
async fn it_is_served_with_an_entity_tag_and_printed() {
    let issuer = Issuer::start().await;
    let response = issuer.get("/openapi.json").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let etag = response.headers()["etag"].clone();
    assert!(etag.to_str().unwrap().starts_with('"'), "a strong one");
    let served = response.text().await.unwrap();
    assert_eq!(Cli::bare().run(&["openapi"]).expect_success(), served);

    let again = issuer.get("/openapi.json").header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(again.text().await.unwrap(), "");
    let other = issuer.get("/openapi.json").header("if-none-match", "\"other\"").send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn it_is_sound() {
    let issuer = Issuer::start().await;
    let api = description(&issuer).await;
    assert_eq!(api["openapi"], "3.1.0");
    let tags: BTreeSet<&str> =
        api["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for operation in operations(&api) {
        let name = operation.name();
        let body = &operation.body;
        assert!(ids.insert(body["operationId"].as_str().unwrap().to_owned()), "{name}: its id is taken");
        assert!(body["summary"].is_string(), "{name}: it has no summary");
        assert!(tags.contains(body["tags"][0].as_str().unwrap()), "{name}: {}", body["tags"]);
        let named: Vec<&str> =
            operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let described: Vec<&str> = body["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(named, described, "{name}");
        if operation.path.starts_with("/api/v1/") && !operation.path.starts_with("/api/v1/token") {
            for status in ["401", "403", "503"] {
                assert!(body["responses"].get(status).is_some(), "{name}: {status}");
            }
            assert!(
                !body["security"][0]["bearer"].as_array().unwrap().is_empty(),
                "{name}: no scope is named"
            );
        }
    }
    // What is referred to is there.
    let mut references = Vec::new();
    collect_references(&api, &mut references);
    for reference in references {
        assert!(api.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

/// That every route is in the description is so by how routes are registered (`http::openapi::Routes`), and a unit test walks axum's own list. Here the other
/// way round: what is described is served, with those methods and no others.
#[tokio::test]
async fn what_it_describes_is_served_and_nothing_else() {
    let issuer = Issuer::start().await;
    let api = description(&issuer).await;
    for (path, item) in api["paths"].as_object().unwrap() {
        let described: BTreeSet<String> = METHODS
            .into_iter()
            .filter(|method| item.get(method).is_some())
            .map(str::to_ascii_uppercase)
            .collect();
        let url = format!("{}{}", issuer.url, path.replace(['{', '}'], ""));
        let response = issuer.http.request(Method::OPTIONS, &url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
        let allow = response.headers()["allow"].to_str().unwrap();
        let allowed: BTreeSet<String> =
            allow.split(',').map(str::trim).filter(|method| *method != "HEAD").map(str::to_owned).collect();
        assert_eq!(allowed, described, "{path}");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            if !described.contains(method) {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let response = issuer.http.request(method, &url).send().await.unwrap();
                assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
                assert_eq!(response.headers()["allow"], allow);
            }
        }
    }
}

#[tokio::test]
async fn the_page_runs_only_its_own_script() {
    let issuer = Issuer::start().await;
    let response = issuer.get("/docs").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let page = response.text().await.unwrap();
    for element in ["script", "style"] {
        let inside = page
            .split_once(&format!("<{element}>"))
            .unwrap()
            .1
            .split_once(&format!("</{element}>"))
            .unwrap()
            .0;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, inside.as_bytes());
        let hash = data_encoding::BASE64.encode(digest.as_ref());
        assert!(policy.contains(&format!("{element}-src 'sha256-{hash}'")), "{element}");
    }
    // Nothing is fetched from anywhere else.
    assert!(!page.contains("http://") && !page.contains("https://"), "the page is self-contained");
}

/// Cases for each operation.
const CASES: usize = 200;
/// A slow machine gets through fewer.
const PATIENCE: Duration = Duration::from_secs(40);
/// But it goes on, however long that takes, until each operation had a success: what has one at all has it within so many.
const MOST_CASES: usize = 2 * CASES;
/// How often a request is sent that is told to come again: on a slow machine something may not be done in time, and 503 says just that.
const SENT: u32 = 4;

#[tokio::test]
async fn a_fuzzer_that_knows_nothing_else_finds_nothing() {
    let issuer = Issuer::start().await;
    let api = description(&issuer).await;
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("FUZZ_SEED={seed}");
    let mut fuzzer = Fuzzer::new(&issuer, api, seed).await;
    fuzzer.known.push(BTreeMap::from([("shard".to_owned(), listed_shard(&issuer).await)]));
    let operations = operations(&fuzzer.api);
    let started = Instant::now();
    let mut rounds = 0;
    while rounds < CASES && started.elapsed() < PATIENCE || rounds < MOST_CASES && !fuzzer.never().is_empty()
    {
        for operation in &operations {
            // There is little to vary where nothing is taken.
            let takes = operation.body["requestBody"].is_object()
                || operation.path.contains('{')
                || operation.body["parameters"].as_array().is_some_and(|parameters| !parameters.is_empty());
            // What ends things is rarer: else there would be nothing left to change.
            let ends = operation.method == "delete"
                || operation.path.starts_with("/api/v1/agents/") && operation.path.ends_with("/revoke");
            if if ends { rounds % 5 == 4 } else { takes || rounds % 10 == 0 } {
                fuzzer.attempt(operation).await;
            }
        }
        rounds += 1;
    }
    println!("{rounds} rounds of {} operations in {:?}", operations.len(), started.elapsed());
    for (name, statuses) in &fuzzer.seen {
        println!("{name}: {statuses:?}");
    }
    assert!(fuzzer.findings.is_empty(), "{}", fuzzer.findings.join("\n\n"));
    let never = fuzzer.never();
    assert!(
        never.is_empty(),
        "nothing the fuzzer sent was good enough for {never:?}: the description misses something"
    );
}

/// A shard with a token that is in a status list.
async fn listed_shard(issuer: &Issuer) -> String {
    let token = issuer.management_token(&issuer.administrator).await;
    let body = json!({ "identifier": "https://listed.example", "status_list": true });
    let made = issuer.post("/api/v1/resource-servers").bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    let granted = issuer.grant(&issuer.administrator, &[("resource", "https://listed.example")]).await;
    (claims(granted["access_token"].as_str().unwrap())["exp"].as_i64().unwrap() / 3600).to_string()
}

/// `SplitMix64`: enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        let text = format!("{high:016x}{low:016x}");
        format!("{}-{}-4{}-8{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Caller {
    Administrator,
    Nobody,
    Impostor,
}

/// Texts that have broken something, somewhere.
const ODD: &[&str] = &[
    "",
    " ",
    "\0",
    "a\0b",
    "null",
    "undefined",
    "-1",
    "1e309",
    "../../etc/passwd",
    "%00",
    "%",
    "%zz",
    "'",
    "' or 1=1--",
    "\u{202e}abc",
    "\u{feff}",
    "ﷺ",
    "👩‍👩‍👧‍👦",
    "İ",
    "ß",
    "\u{10ffff}",
    "${7*7}",
    "{{7*7}}",
    "<script>",
    "00000000-0000-0000-0000-000000000000",
    "FFFFFFFF-FFFF-4FFF-8FFF-FFFFFFFFFFFF",
    "{00000000-0000-4000-8000-000000000000}",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "2027-01-01T00:00:00+23:59",
    "a@b@c",
    "\r\nx-injected: 1",
    "*",
    "W/\"1\"",
    "\"",
    "é",
];

struct Fuzzer<'i> {
    issuer: &'i Issuer,
    api: Value,
    random: Random,
    token: String,
    /// Ids that answers had, those of one object together; the newest last.
    known: Vec<BTreeMap<String, String>>,
    /// What must not be lost: the administrator and what is its.
    own: BTreeSet<String>,
    seen: BTreeMap<String, BTreeMap<u16, usize>>,
    findings: Vec<String>,
}

/// A request, and whether the description says that it is wrong.
struct Case {
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    wrong: bool,
}

impl<'i> Fuzzer<'i> {
    /// The operations that had no success yet.
    fn never(&self) -> Vec<String> {
        let refused = |statuses: &BTreeMap<u16, usize>| statuses.keys().all(|status| *status >= 400);
        self.seen.iter().filter(|(_, statuses)| refused(statuses)).map(|(name, _)| name.clone()).collect()
    }

    async fn new(issuer: &'i Issuer, api: Value, seed: u64) -> Self {
        let token = issuer.management_token(&issuer.administrator).await;
        let claims = claims(&token);
        let own = ["sub", "tenant_id", "credential_id"].map(|name| claims[name].as_str().unwrap().to_owned());
        let own = own.into_iter().collect();
        let random = Random(seed);
        Self {
            issuer,
            api,
            random,
            token,
            known: Vec::new(),
            own,
            seen: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    async fn attempt(&mut self, operation: &Operation) {
        let case = self.case(operation);
        let caller = match self.random.below(10) {
            0 => Caller::Nobody,
            1 => Caller::Impostor,
            _ => Caller::Administrator,
        };
        let query: String =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(&case.query).finish();
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}{}{mark}{query}", self.issuer.url, case.path);
        let method = Method::from_bytes(operation.method.to_ascii_uppercase().as_bytes()).unwrap();
        let mut request = self.issuer.http.request(method, &url);
        let bearer = operation.body["security"][0].get("bearer").is_some();
        request = match (caller, bearer) {
            (Caller::Administrator, true) => request.bearer_auth(&self.token),
            (Caller::Impostor, true) => request.bearer_auth(format!("{}A", self.token)),
            (Caller::Administrator, false) => {
                let client = &self.issuer.administrator;
                request.basic_auth(&client.id, Some(&client.secret))
            }
            (Caller::Impostor, false) => request.basic_auth("nobody", Some("nothing")),
            (Caller::Nobody, _) => request,
        };
        for (name, value) in &case.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            // What no client can send isn't sent.
            let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else { return };
            request = request.header(name, value);
        }
        if let Some(body) = &case.body {
            request = request.body(body.clone());
        }
        let shown = || {
            let body = String::from_utf8_lossy(case.body.as_deref().unwrap_or_default()).into_owned();
            format!("{} {url:.300} {:?} by {caller:?}\n  {body:.600}", operation.method, case.headers)
        };
        let mut sent = 1;
        let response = loop {
            let response = match request.try_clone().unwrap().send().await {
                Ok(response) => response,
                Err(error) => return self.findings.push(format!("{}: no answer: {error:?}", shown())),
            };
            if response.status() != StatusCode::SERVICE_UNAVAILABLE || sent == SENT {
                break response;
            }
            // It was described, or it is a finding however the next one goes.
            let headers = response.headers().clone();
            let body = response.bytes().await.unwrap();
            if !headers.contains_key("retry-after")
                || operation.body["responses"]["503"].is_null()
                || serde_json::from_slice::<Value>(&body).is_err()
            {
                let answer = String::from_utf8_lossy(&body).into_owned();
                return self.findings.push(format!("{}\n  503: not as described\n  {answer:.600}", shown()));
            }
            tokio::time::sleep(Duration::from_millis(500) * sent).await;
            sent += 1;
        };
        let status = response.status().as_u16();
        *self.seen.entry(operation.name()).or_default().entry(status).or_default() += 1;
        let headers = response.headers().clone();
        let body = response.bytes().await.unwrap();
        if let Err(problem) = self.check(operation, status, &headers, &body) {
            let answer = String::from_utf8_lossy(&body).into_owned();
            self.findings.push(format!("{}\n  {status}: {problem}\n  {answer:.600}", shown()));
        }
        if case.wrong && status < 400 {
            self.findings.push(format!("{}\n  {status}: the description forbids this", shown()));
        }
        if bearer && caller != Caller::Administrator && !(400..500).contains(&status) {
            self.findings.push(format!("{}\n  {status}: without authority", shown()));
        }
        if bearer && caller == Caller::Administrator && status == 401 {
            // It ended its own tokens, which it may.
            tokio::time::sleep(Duration::from_secs(3)).await;
            self.token = self.issuer.management_token(&self.issuer.administrator).await;
        }
    }

    fn check(
        &mut self,
        operation: &Operation,
        status: u16,
        headers: &reqwest::header::HeaderMap,
        body: &[u8],
    ) -> Result<(), String> {
        // What isn't implemented, and is described as such, is no failure.
        if status >= 500 && status != 501 {
            return Err("a failure of ours".to_owned());
        }
        for name in [
            "x-request-id",
            "x-content-type-options",
            "content-security-policy",
            "referrer-policy",
            "cache-control",
        ] {
            if !headers.contains_key(name) {
                return Err(format!("no {name}"));
            }
        }
        let documented = &operation.body["responses"][status.to_string()];
        if documented.is_null() {
            return Err("the description doesn't know this status".to_owned());
        }
        for (name, header) in documented["headers"].as_object().into_iter().flatten() {
            if header["required"] == true && !headers.contains_key(name) {
                return Err(format!("the header {name} is described as required"));
            }
        }
        let media_type =
            headers.get("content-type").map(|value| value.to_str().unwrap().split(';').next().unwrap());
        let Some(contents) = documented["content"].as_object() else {
            return if body.is_empty() { Ok(()) } else { Err("no body is described".to_owned()) };
        };
        let Some(content) = media_type.and_then(|media_type| contents.get(media_type)) else {
            return Err(format!("{media_type:?} isn't described"));
        };
        if media_type == Some("application/json") {
            let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            self.remember(&value);
            validate(&self.api, &content["schema"], &value, "$")?;
        }
        Ok(())
    }

    /// Keeps the ids of every object in `value`.
    fn remember(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                let mut ids: BTreeMap<String, String> = members
                    .iter()
                    .filter(|(name, _)| name.ends_with("_id"))
                    .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                    .collect();
                if let Some(client) = ids.get("client_id").cloned() {
                    ids.entry("agent_id".to_owned()).or_insert(client);
                }
                ids.retain(|_, id| !self.own.contains(id));
                if !ids.is_empty() && self.known.last() != Some(&ids) {
                    self.known.push(ids);
                }
                members.values().for_each(|value| self.remember(value));
            }
            Value::Array(values) => values.iter().for_each(|value| self.remember(value)),
            _ => {}
        }
    }

    fn case(&mut self, operation: &Operation) -> Case {
        let parameters: Vec<Value> = operation.body["parameters"].as_array().cloned().unwrap_or_default();
        let names: Vec<String> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect();
        let known = self.known.iter().rev().filter(|ids| names.iter().all(|name| ids.contains_key(name)));
        let fitting: Vec<BTreeMap<String, String>> = known.take(50).cloned().collect();
        let ids = if fitting.is_empty() {
            BTreeMap::new()
        } else {
            fitting[self.random.below(fitting.len())].clone()
        };
        let mut path = operation.path.clone();
        for name in &names {
            let id = match self.random.below(10) {
                // Not the empty one: that is another path.
                0 => ODD[1 + self.random.below(ODD.len() - 1)].to_owned(),
                1 => self.random.uuid(),
                _ => ids.get(name).cloned().unwrap_or_else(|| self.random.uuid()),
            };
            path = path.replace(&format!("{{{name}}}"), &percent_encode(&id));
        }

        let (mut query, mut headers, mut wrong) = (Vec::new(), Vec::new(), false);
        for parameter in parameters.iter().filter(|parameter| parameter["in"] != "path") {
            let name = parameter["name"].as_str().unwrap().to_owned();
            if parameter["required"] != true && self.random.chance(60) {
                continue;
            }
            let value = if self.random.chance(25) {
                ODD[self.random.below(ODD.len())].to_owned()
            } else if name.eq_ignore_ascii_case("if-match") {
                "*".to_owned()
            } else {
                let schema = parameter["schema"].clone();
                match self.generate(&schema, &name, 0) {
                    Value::String(text) => text,
                    other => other.to_string(),
                }
            };
            if parameter["in"] == "query" { query.push((name, value)) } else { headers.push((name, value)) }
        }
        if self.random.chance(4) {
            query.push((ODD[self.random.below(ODD.len())].to_owned(), "1".to_owned()));
        }
        for name in [
            "accept",
            "accept-encoding",
            "content-encoding",
            "if-none-match",
            "range",
            "x-request-id",
            "origin",
            "forwarded",
            "x-forwarded-for",
        ] {
            if self.random.chance(3) {
                headers.push((name.to_owned(), ODD[self.random.below(ODD.len())].to_owned()));
            }
        }
        let body = self.body(operation, &mut headers, &mut wrong);
        Case { path, query, headers, body, wrong }
    }

    fn body(
        &mut self,
        operation: &Operation,
        headers: &mut Vec<(String, String)>,
        wrong: &mut bool,
    ) -> Option<Vec<u8>> {
        let contents = operation.body["requestBody"]["content"].as_object()?;
        let media_types: Vec<&str> = contents.keys().map(String::as_str).collect();
        let media_type = self.random.pick(&media_types).to_owned();
        let schema = contents[&media_type]["schema"].clone();
        let mut value = self.generate(&schema, "", 0);
        if self.random.chance(40) {
            *wrong = self.spoil(&schema, &mut value) && media_type.ends_with("json");
        }
        let sent = match self.random.below(40) {
            0 => "text/plain".to_owned(),
            1 => String::new(),
            2 => format!("{media_type}; charset=latin1"),
            _ => media_type.clone(),
        };
        *wrong |= sent.is_empty() || sent == "text/plain";
        if !sent.is_empty() {
            headers.push(("content-type".to_owned(), sent));
        }
        let mut bytes = if media_type.ends_with("json") {
            value.to_string().into_bytes()
        } else {
            form(&value).into_bytes()
        };
        match self.random.below(40) {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes.extend_from_slice(b"\xff\xfe"),
            2 => bytes = vec![b' '; 65 * 1024],
            3 => bytes = "[".repeat(10_000).into_bytes(),
            4 => bytes = b"{\"a\":1,\"a\":1}".to_vec(),
            5 => bytes.clear(),
            _ => return Some(bytes),
        }
        *wrong = false; // or not: a form may be anything
        Some(bytes)
    }

    /// A value that the schema allows.
    fn generate(&mut self, schema: &Value, name: &str, depth: usize) -> Value {
        let schema = resolve(&self.api, schema);
        if let Some(words) = schema["enum"].as_array() {
            return words[self.random.below(words.len())].clone();
        }
        if let Some(variants) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            let variant = variants[self.random.below(variants.len())].clone();
            return self.generate(&variant, name, depth);
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => vec!["object"],
        };
        let bound = |keyword: &str, default: u64| {
            usize::try_from(schema[keyword].as_u64().unwrap_or(default)).unwrap()
        };
        match self.random.pick(&types) {
            "null" => Value::Null,
            "boolean" => json!(self.random.chance(50)),
            "integer" | "number" => {
                let (low, high) =
                    (schema["minimum"].as_i64().unwrap_or(0), schema["maximum"].as_i64().unwrap_or(1000));
                json!([low, high, low.midpoint(high)][self.random.below(3)])
            }
            "array" => {
                let most = bound("maxItems", 8);
                let count = [bound("minItems", 0), 1.min(most), most][self.random.below(3)];
                let items: Vec<Value> =
                    (0..count).map(|_| self.generate(&schema["items"], name, depth + 1)).collect();
                let mut seen = BTreeSet::new();
                let unique = items
                    .into_iter()
                    .filter(|item| schema["uniqueItems"] != true || seen.insert(item.to_string()));
                unique.collect()
            }
            "string" => json!(self.string(&schema, name)),
            _ => self.object(&schema, depth),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut members = Map::new();
        let mut names: Vec<&String> =
            schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
        if let Some(most) = schema["maxProperties"].as_u64().map(|most| usize::try_from(most).unwrap()) {
            while names.len() > most {
                names.remove(self.random.below(names.len()));
            }
        }
        let all = schema["minProperties"].as_u64().is_some_and(|least| least == names.len() as u64);
        for name in names {
            if all || required.contains(name.as_str()) || self.random.chance(30) {
                let value = self.generate(&schema["properties"][name], name, depth + 1);
                members.insert(name.clone(), value);
            }
        }
        if schema["additionalProperties"].is_object() && depth < 4 {
            let most = schema["maxProperties"].as_u64().unwrap_or(3);
            for _ in 0..[0, 1, most][self.random.below(3)] {
                let name = self.string(&resolve(&self.api, &schema["propertyNames"]), "");
                members.insert(name, self.generate(&schema["additionalProperties"].clone(), "", depth + 1));
            }
        }
        Value::Object(members)
    }

    fn string(&mut self, schema: &Value, name: &str) -> String {
        match schema["format"].as_str() {
            Some("uuid") => {
                let fitting: Vec<&String> =
                    self.known.iter().rev().take(50).filter_map(|ids| ids.get(name)).collect();
                if fitting.is_empty() || self.random.chance(20) {
                    return self.random.uuid();
                }
                return fitting[self.random.below(fitting.len())].clone();
            }
            Some("date-time") => {
                let year = 2027 + self.random.below(5);
                return format!("{year}-01-01T00:00:00Z");
            }
            Some("email") => return format!("fuzz-{:x}@example.com", self.random.next()),
            Some("uri") => return format!("https://fuzz-{:x}.example", self.random.next()),
            _ => {}
        }
        let bound = |keyword: &str, default: u64| {
            usize::try_from(schema[keyword].as_u64().unwrap_or(default)).unwrap()
        };
        let (low, high) = (bound("minLength", 0), bound("maxLength", 40));
        let length = [low, high, (low + 12).min(high), (low + 1).min(high)][self.random.below(4)];
        // A pattern that isn't "no control characters" is of ASCII letters and digits at least.
        let free = schema["pattern"].as_str().is_none_or(|pattern| pattern.starts_with("^[^"));
        let alphabet: Vec<char> = if free && self.random.chance(40) {
            "aß中👩\u{301}\"\\ '&=+%;".chars().collect()
        } else {
            ('a'..='z').chain('0'..='9').collect()
        };
        (0..length).map(|_| alphabet[self.random.below(alphabet.len())]).collect()
    }

    /// Makes `value` break the schema. Whether it surely does.
    fn spoil(&mut self, schema: &Value, value: &mut Value) -> bool {
        let schema = resolve(&self.api, schema);
        let wrong_values = [
            json!([1]),
            json!(-1),
            json!(1.5),
            json!(true),
            json!("x".repeat(5000)),
            json!({"a": {"b": []}}),
            json!("\u{7}"),
            json!([[[]]]),
        ];
        let Some(members) = value.as_object_mut().filter(|_| !self.random.chance(10)) else {
            *value = [json!([]), json!(null), json!("{}"), json!(1)][self.random.below(4)].clone();
            return true;
        };
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let names: Vec<&String> = properties.keys().collect();
        match self.random.below(4) {
            0 => {
                members.insert(ODD[self.random.below(ODD.len())].to_owned(), json!(1));
            }
            1 if !names.is_empty() => {
                members.remove(names[self.random.below(names.len())]);
            }
            2 if !names.is_empty() => {
                let odd = ODD[self.random.below(ODD.len())];
                members.insert(names[self.random.below(names.len())].clone(), json!(odd));
            }
            _ if !names.is_empty() => {
                let wrong = wrong_values[self.random.below(wrong_values.len())].clone();
                members.insert(names[self.random.below(names.len())].clone(), wrong);
            }
            _ => {}
        }
        validate(&self.api, &schema, value, "$").is_err()
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || byte == b'-' {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn form(value: &Value) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in value.as_object().into_iter().flatten() {
        form.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    form.finish()
}

/// What a reference stands for, its siblings added.
fn resolve(api: &Value, schema: &Value) -> Value {
    let Some(reference) = schema["$ref"].as_str() else { return schema.clone() };
    let mut found = resolve(api, api.pointer(reference.trim_start_matches('#')).unwrap());
    for (keyword, value) in schema.as_object().unwrap().iter().filter(|(keyword, _)| *keyword != "$ref") {
        if keyword == "properties" {
            for (name, more) in value.as_object().unwrap() {
                for (keyword, value) in more.as_object().unwrap() {
                    found["properties"][name][keyword] = value.clone();
                }
            }
        } else {
            found[keyword] = value.clone();
        }
    }
    found
}

/// Whether `value` is what `schema` allows, as far as JSON Schema 2020-12 is used here. A keyword that isn't known is an error: it would not be looked at.
#[expect(clippy::too_many_lines, reason = "a line or two for each keyword")]
fn validate(api: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(api, schema);
    let Some(keywords) = schema.as_object() else { return Ok(()) };
    let fail = |what: &str| Err(format!("{at}: {what}: {:.200}", value.to_string()));
    for (keyword, expected) in keywords {
        let number = expected.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
        let holds = match (keyword.as_str(), value) {
            ("type", _) => {
                let allowed: Vec<&str> = expected
                    .as_str()
                    .into_iter()
                    .chain(expected.as_array().into_iter().flatten().filter_map(Value::as_str))
                    .collect();
                allowed.into_iter().any(|allowed| is_type(allowed, value))
            }
            ("enum", _) => expected.as_array().unwrap().contains(value),
            ("const", _) => expected == value,
            ("required", Value::Object(members)) => {
                expected.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
            }
            ("properties", Value::Object(members)) => {
                for (name, schema) in expected.as_object().unwrap() {
                    if let Some(member) = members.get(name) {
                        validate(api, schema, member, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            ("additionalProperties", Value::Object(members)) => {
                let others =
                    members.iter().filter(|(name, _)| schema["properties"].get(name.as_str()).is_none());
                for (name, member) in others {
                    match expected {
                        Value::Bool(true) => {}
                        Value::Bool(false) => return fail(&format!("`{name}` isn't described")),
                        schema => validate(api, schema, member, &format!("{at}.{name}"))?,
                    }
                }
                true
            }
            ("propertyNames", Value::Object(members)) => {
                members.keys().all(|name| validate(api, expected, &json!(name), at).is_ok())
            }
            ("minProperties", Value::Object(members)) => members.len() >= number,
            ("maxProperties", Value::Object(members)) => members.len() <= number,
            ("items", Value::Array(items)) => {
                for (place, item) in items.iter().enumerate() {
                    validate(api, expected, item, &format!("{at}[{place}]"))?;
                }
                true
            }
            ("minItems", Value::Array(items)) => items.len() >= number,
            ("maxItems", Value::Array(items)) => items.len() <= number,
            ("uniqueItems", Value::Array(items)) => {
                items.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() == items.len()
            }
            ("minLength", Value::String(text)) => text.chars().count() >= number,
            ("maxLength", Value::String(text)) => text.chars().count() <= number,
            ("minimum", Value::Number(given)) => given.as_f64() >= expected.as_f64(),
            ("maximum", Value::Number(given)) => given.as_f64() <= expected.as_f64(),
            ("pattern", Value::String(text)) if expected.as_str().unwrap().starts_with(r"^[^\x00") => {
                !text.chars().any(char::is_control)
            }
            ("format", Value::String(text)) => is_format(expected.as_str().unwrap(), text),
            ("oneOf", _) => {
                expected
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|schema| validate(api, schema, value, at).is_ok())
                    .count()
                    == 1
            }
            ("anyOf", _) => {
                expected.as_array().unwrap().iter().any(|schema| validate(api, schema, value, at).is_ok())
            }
            ("allOf", _) => {
                expected.as_array().unwrap().iter().all(|schema| validate(api, schema, value, at).is_ok())
            }
            (
                "description"
                | "title"
                | "default"
                | "example"
                | "examples"
                | "pattern"
                | "deprecated"
                | "readOnly"
                | "writeOnly"
                | "required"
                | "properties"
                | "additionalProperties"
                | "propertyNames"
                | "minProperties"
                | "maxProperties"
                | "items"
                | "minItems"
                | "maxItems"
                | "uniqueItems"
                | "minLength"
                | "maxLength"
                | "minimum"
                | "maximum"
                | "format",
                _,
            ) => true,
            (unknown, _) => return fail(&format!("the keyword {unknown} isn't known to this test")),
        };
        if !holds {
            return fail(&format!("{keyword} {expected:.200}"));
        }
    }
    Ok(())
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

fn is_format(name: &str, text: &str) -> bool {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    match name {
        "uuid" => text.len() == 36 && text.parse::<uuid::Uuid>().is_ok(),
        "date-time" => OffsetDateTime::parse(text, &Rfc3339).is_ok(),
        "email" => text.contains('@'),
        "uri" => text.parse::<reqwest::Url>().is_ok(),
        _ => true,
    }
}

#[test]
fn the_test_s_own_eyes_are_good() {
    let api = json!({ "components": { "schemas": { "Text": { "type": "string", "minLength": 1 } } } });
    let schema = json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "$ref": "#/components/schemas/Text", "maxLength": 3 }, "b": { "oneOf": [{ "type": "null" }, { "type": "integer", "maximum": 3 }] } },
    });
    let holds = |value: Value| validate(&api, &schema, &value, "$").is_ok();
    assert!(
        holds(json!({ "a": "abc" }))
            && holds(json!({ "a": "a", "b": null }))
            && holds(json!({ "a": "a", "b": 3 }))
    );
    for wrong in [
        json!({}),
        json!({ "a": "" }),
        json!({ "a": "abcd" }),
        json!({ "a": 1 }),
        json!({ "a": "a", "b": 4 }),
        json!({ "a": "a", "c": 1 }),
        json!([]),
    ] {
        assert!(!holds(wrong.clone()), "{wrong}");
    }
    assert!(validate(&api, &json!({ "contains": {} }), &json!([]), "$").is_err());
}
