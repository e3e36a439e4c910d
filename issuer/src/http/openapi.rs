//! The description of the API (`OpenAPI` 3.1): what the handlers' annotations say, and what is so for all of them, which is said here once.
//!
//! A handler's annotation names its own errors by their codes: `(status = 404, description = "AGENT_NOT_FOUND")`. The schema, and what
//! the codes mean, come from the catalogue; so do the answers that follow from what a request carries (a bearer token, a body, an id).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, RefOr, Schema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::catalogue::{Code, OauthCode};
use super::is_oauth;
use crate::app::App;

/// A JSON body's media type.
const JSON: &str = "application/json";

/// Routes and what their handlers say of themselves. There is no other way to register a route, so none is left out of the description.
#[derive(Default)]
pub(super) struct Routes {
    router: OpenApiRouter<Arc<App>>,
    /// Names that stand for two schemas.
    clashes: Vec<String>,
}

impl Routes {
    /// Adds what `routes!` made.
    pub(super) fn routes(mut self, routes: UtoipaMethodRouter<Arc<App>>) -> Self {
        let known = self.router.get_openapi().components.as_ref().map(|components| &components.schemas);
        let clashes = |(name, schema): &&(String, RefOr<Schema>)| {
            known.and_then(|known| known.get(name)).is_some_and(|known| known != schema)
        };
        self.clashes.extend(routes.0.iter().filter(clashes).map(|(name, _)| name.clone()));
        Self { router: self.router.routes(routes), ..self }
    }

    pub(super) fn into_parts(self) -> (Router<Arc<App>>, OpenApi) {
        debug_assert!(self.clashes.is_empty(), "two schemas have one name: {:?}", self.clashes);
        self.router.split_for_parts()
    }
}

/// `routes` once more, at another path.
pub(super) fn alias<S>(path: &str, routes: UtoipaMethodRouter<S>) -> UtoipaMethodRouter<S> {
    let (schemas, paths, methods) = routes;
    let mut aliases = utoipa::openapi::path::Paths::new();
    for (of, mut item) in paths.paths {
        for operation in operations_of(&mut item) {
            operation.summary = Some(format!("The same as {of}"));
            operation.description = None;
            operation.operation_id = operation.operation_id.take().map(|id| format!("{id}At{}", camel(path)));
        }
        aliases.paths.insert(path.to_owned(), item);
    }
    (schemas, aliases, methods)
}

fn operations_of(
    item: &mut utoipa::openapi::PathItem,
) -> impl Iterator<Item = &mut utoipa::openapi::path::Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// `/api/v1/token` → `ApiV1Token`.
fn camel(path: &str) -> String {
    let words =
        path.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.flat_map(|word| [word[..1].to_ascii_uppercase(), word[1..].to_owned()]).collect()
}

/// Text of 1 to `max` characters without control characters, as [`super::json::text`] reads it.
pub(super) fn text(max: usize) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(max))
        .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*$"))
}

/// An array of up to `max` different entries, as [`super::json::set`] reads it.
pub(super) fn set(max: usize, entry: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
    ArrayBuilder::new().items(entry.into()).max_items(Some(max)).unique_items(true).into()
}

/// An object of up to `max` strings, as [`super::json::strings`] reads it.
pub(super) fn strings(max: usize) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(text(64)))
        .additional_properties(Some(AdditionalProperties::RefOr(text(512).into())))
        .max_properties(Some(max))
        .into()
}

/// The same, or null: what may be left out may be null too.
pub(super) fn or_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    let null = ObjectBuilder::new().schema_type(Type::Null);
    utoipa::openapi::schema::OneOfBuilder::new().item(schema).item(null).into()
}

/// A parameter of a form, as [`super::oauth::Form`] reads it: sent empty it counts as not sent.
pub(super) fn parameter() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*$")).into()
}

/// The same for one that must be sent.
pub(super) fn required_parameter() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .pattern(Some(r"^[^\x00-\x1f\x7f-\x9f]*$"))
        .into()
}

/// One of `words`.
pub(super) fn word(words: &'static [&'static str]) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).into()
}

/// The description of an API whose handlers said `api`, to be found below `base` (a path without a trailing slash).
pub(super) fn describe(api: &OpenApi, base: &str) -> Value {
    let mut document = serde_json::to_value(api).unwrap_or_default();
    document["openapi"] = json!("3.1.0");
    document["jsonSchemaDialect"] = json!("https://json-schema.org/draft/2020-12/schema");
    document["info"] = json!({
        "title": "Countersign issuer",
        "version": env!("CARGO_PKG_VERSION"),
        "summary": "Registers agents, issues their tokens, takes them back.",
        "description": INTRODUCTION,
        "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
    });
    document["servers"] = json!([{ "url": if base.is_empty() { "/" } else { base } }]);
    document["tags"] =
        TAGS.iter().map(|(name, description)| json!({ "name": name, "description": description })).collect();
    for (name, component) in components() {
        for (member, value) in component {
            document["components"][name][member] = value;
        }
    }
    let mut closed = BTreeSet::new();
    let mut ids = BTreeSet::new();
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, item) in paths {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                complete(path, method, operation, &mut closed);
                let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
                if !ids.insert(id) {
                    operation["operationId"] = json!(format!("{method}{}", camel(path)));
                }
            }
        }
    }
    // Members that a request must not have are said to be so.
    for name in closed {
        document["components"]["schemas"][name]["additionalProperties"] = json!(false);
    }
    document
}

const INTRODUCTION: &str = "JSON in and out, UTF-8; the OAuth endpoints take forms. Errors have a stable `code`, and the answer's `x-request-id` \
leads to the log. An agent authenticates at the token endpoint and gets a bearer token: with `resource` set to the issuer's own URL, one for this API.";

const TAGS: &[(&str, &str)] = &[
    ("agents", "Who tokens are issued to."),
    ("credentials", "What agents authenticate with."),
    ("oauth", "Tokens: issued, introspected, revoked; keys and metadata. Errors as in RFC 6749 §5.2."),
    ("resource servers", "The APIs that tokens are for."),
    ("tenants", "Who agents, credentials and resource servers belong to."),
    ("audit", "What was done, by whom."),
    ("operations", "Whether the issuer works, and this description."),
];

fn components() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let words: BTreeSet<&str> = OauthCode::ALL.iter().map(|code| code.as_str()).collect();
    let string = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let integer = |description: &str| json!({ "description": description, "schema": { "type": "integer", "minimum": 0 } });
    vec![
        (
            "schemas",
            vec![
                (
                    "Error",
                    json!({
                        "type": "object",
                        "description": "Why a request other than an OAuth request failed.",
                        "required": ["code", "message", "details"],
                        "properties": {
                            "code": { "type": "string", "enum": codes, "description": "What happened; stable." },
                            "message": { "type": "string", "minLength": 1, "description": "The same for people; may change." },
                            "details": {
                                "type": "object",
                                "description": "More, by code: `fields` names every wrong field (VALIDATION_ERROR), `required_scope` the scope that is missing (INSUFFICIENT_SCOPE).",
                                "properties": {
                                    "fields": { "type": "array", "items": {
                                        "type": "object",
                                        "required": ["field", "problem"],
                                        "properties": { "field": { "type": "string" }, "problem": { "type": "string" } },
                                        "additionalProperties": false,
                                    } },
                                    "required_scope": { "type": "string" },
                                    "scopes": { "type": "array", "items": { "type": "string" } },
                                },
                            },
                        },
                        "additionalProperties": false,
                    }),
                ),
                (
                    "OauthError",
                    json!({
                        "type": "object",
                        "description": "Why an OAuth request failed (RFC 6749 §5.2).",
                        "required": ["error", "error_description"],
                        "properties": {
                            "error": { "type": "string", "enum": words, "description": "What happened, in OAuth's words." },
                            "error_description": { "type": "string", "pattern": r"^[\x20-\x21\x23-\x5b\x5d-\x7e]*$" },
                            "code": { "type": "string", "enum": codes, "description": "What happened, where OAuth has no word for it." },
                            "details": { "type": "object", "description": "With `code`: what there is to know about it." },
                        },
                        "additionalProperties": false,
                    }),
                ),
            ],
        ),
        (
            "headers",
            vec![
                (
                    "x-request-id",
                    string(
                        "The id of this request in the log and in the audit: the caller's own, if it sent one of 1 to 64 characters of `[A-Za-z0-9._-]`.",
                    ),
                ),
                ("retry-after", integer("Seconds after which to try again.")),
                ("www-authenticate", string("The challenge (RFC 9110 §11.6.1, RFC 6750 §3).")),
                (
                    "ratelimit",
                    string(
                        "What is left of the limit, and seconds until it is whole again (draft-ietf-httpapi-ratelimit-headers).",
                    ),
                ),
                ("ratelimit-policy", string("The limit and its window in seconds.")),
                ("x-ratelimit-limit", integer("Requests allowed in a window.")),
                ("x-ratelimit-remaining", integer("Requests left in it.")),
                (
                    "x-ratelimit-reset",
                    integer("When the window ends, in seconds since 1970-01-01T00:00:00Z."),
                ),
            ],
        ),
        (
            "securitySchemes",
            vec![
                (
                    "bearer",
                    json!({
                        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                        "description": "An access token for the issuer itself: `resource=<ISSUER_URL>` at the token endpoint. Operations name the scope they take.",
                    }),
                ),
                (
                    "client",
                    json!({
                        "type": "http", "scheme": "basic",
                        "description": "`client_secret_basic`: agent id and client secret, each form-urlencoded first (RFC 6749 §2.3.1). Instead of it a client may send `client_id` and `client_secret` in the form (`client_secret_post`). One way in each request.",
                    }),
                ),
            ],
        ),
    ]
}

/// Adds to an operation what is so because of where it is and what it takes.
fn complete(path: &str, method: &str, operation: &mut Value, closed: &mut BTreeSet<String>) {
    let oauth = is_oauth(path);
    let managed = path.starts_with("/api/") && !oauth;
    if managed && operation["security"].as_array().is_none_or(Vec::is_empty) {
        operation["security"] = json!([{ "bearer": [] }]);
    }
    let contents = operation["requestBody"]["content"].as_object().cloned().unwrap_or_default();
    let has_body = contents.keys().any(|media_type| media_type.ends_with("json"));
    if has_body {
        operation["requestBody"]["required"] = json!(true);
        let schemas = contents.values().filter_map(|content| content["schema"]["$ref"].as_str());
        closed
            .extend(schemas.filter_map(|name| Some(name.strip_prefix("#/components/schemas/")?.to_owned())));
    }
    let parameters: Vec<(String, String)> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| (word_of(&parameter["in"]), word_of(&parameter["name"]).to_ascii_lowercase()))
        .collect();

    let mut answers = if oauth { oauth_answers(operation) } else { BTreeMap::new() };
    if !oauth {
        let mut codes = own_codes(operation);
        let mut add = |code: Code| _ = codes.entry(code.status()).or_default().insert(code.as_str());
        Code::ALL.iter().copied().filter(|code| is_common(*code)).for_each(&mut add);
        if managed {
            add(Code::Unauthorized);
            add(Code::InsufficientScope);
            add(Code::RateLimitExceeded);
            add(Code::Overloaded);
            if method != "get" && method != "head" {
                add(Code::Maintenance);
            }
        }
        if has_body {
            let unreadable = [
                Code::MalformedRequest,
                Code::ValidationError,
                Code::PayloadTooLarge,
                Code::UnsupportedMediaType,
            ];
            unreadable.into_iter().for_each(&mut add);
        }
        let takes = |name: &str| parameters.iter().any(|(_, taken)| taken == name);
        if takes("if-match") {
            [Code::PreconditionFailed, Code::PreconditionRequired].into_iter().for_each(&mut add);
        }
        if takes("idempotency-key") {
            let keyed = [Code::ValidationError, Code::IdempotencyKeyInUse, Code::IdempotencyKeyReused];
            keyed.into_iter().for_each(&mut add);
        }
        if parameters.iter().any(|(place, _)| place == "query") {
            add(Code::ValidationError);
        }
        for (status, codes) in codes {
            answers.insert(status, error_answer(&codes));
        }
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, mut answer) in answers {
        let known = responses.get(status.as_str());
        // What a probe answers in its own form it may answer too.
        if let Some(own) = known
            .map(|known| &known["content"][JSON]["schema"])
            .filter(|own| own.is_object() && !oauth && !managed)
        {
            answer["content"][JSON]["schema"] = json!({ "anyOf": [own, answer["content"][JSON]["schema"]] });
        }
        if let Some(headers) = known.and_then(|known| known["headers"].as_object()) {
            answer["headers"] = Value::Object(headers.clone());
        }
        responses.insert(status.as_str().to_owned(), answer);
    }
    for (status, answer) in responses {
        add_headers(status, answer, managed || oauth);
        if method == "head" {
            answer.as_object_mut().map(|answer| answer.remove("content"));
        }
    }
}

fn word_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What any request may get.
fn is_common(code: Code) -> bool {
    matches!(code, Code::MalformedRequest | Code::UriTooLong | Code::InternalError | Code::ServiceUnavailable)
}

/// The codes that the annotation names, by status; all codes of a status for which it names none.
fn own_codes(operation: &mut Value) -> BTreeMap<StatusCode, BTreeSet<&'static str>> {
    let mut codes: BTreeMap<StatusCode, BTreeSet<&'static str>> = BTreeMap::new();
    for (status, answer) in operation["responses"].as_object_mut().into_iter().flatten() {
        let Some(status) = status.parse::<StatusCode>().ok().filter(|status| status.as_u16() >= 400) else {
            continue;
        };
        let said = answer["description"].as_str().unwrap_or_default();
        let said: BTreeSet<&str> =
            said.split(|character: char| !(character.is_ascii_uppercase() || character == '_')).collect();
        let of_status: BTreeSet<&str> =
            Code::ALL.iter().filter(|code| code.status() == status).map(|code| code.as_str()).collect();
        let named: BTreeSet<&str> = of_status.iter().copied().filter(|code| said.contains(code)).collect();
        codes.insert(status, if named.is_empty() { of_status } else { named });
    }
    codes
}

fn error_answer(codes: &BTreeSet<&'static str>) -> Value {
    let meaning = |code: &&str| {
        let known = Code::ALL.iter().find(|known| known.as_str() == *code);
        format!("`{code}`: {}", known.map_or("", |code| code.meaning()))
    };
    json!({
        "description": codes.iter().map(meaning).collect::<Vec<_>>().join("\n\n"),
        "content": { JSON: { "schema": {
            "$ref": "#/components/schemas/Error",
            "properties": { "code": { "enum": codes } },
        } } },
    })
}

/// OAuth's own: the annotation may name words of the catalogue in the description of a status, or nothing.
fn oauth_answers(operation: &Value) -> BTreeMap<StatusCode, Value> {
    let mut words: BTreeMap<StatusCode, Vec<OauthCode>> = BTreeMap::new();
    for code in OauthCode::ALL {
        let said = operation["responses"][code.status().as_str()]["description"].as_str();
        if code.is_common()
            || said.is_some_and(|said| said.split([',', ' ']).any(|word| word == code.as_str()))
        {
            words.entry(code.status()).or_default().push(*code);
        }
    }
    let answer = |codes: Vec<OauthCode>| {
        let words: BTreeSet<&str> = codes.iter().map(|code| code.as_str()).collect();
        let meanings: Vec<String> =
            codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.meaning())).collect();
        json!({
            "description": meanings.join("\n\n"),
            "content": { JSON: { "schema": {
                "$ref": "#/components/schemas/OauthError",
                "properties": { "error": { "enum": words } },
            } } },
        })
    };
    words.into_iter().map(|(status, codes)| (status, answer(codes))).collect()
}

fn add_headers(status: &str, answer: &mut Value, limited: bool) {
    let mut names = vec!["x-request-id"];
    match status {
        "401" | "403" => names.push("www-authenticate"),
        "429" | "503" => names.push("retry-after"),
        _ => {}
    }
    let is_limit = Code::ALL.iter().any(|code| code.status() == StatusCode::TOO_MANY_REQUESTS);
    if limited && is_limit {
        names.extend([
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
        ]);
    }
    let mut headers = answer["headers"].as_object().cloned().unwrap_or_default();
    for name in names {
        headers.entry(name).or_insert_with(|| json!({ "$ref": format!("#/components/headers/{name}") }));
    }
    answer["headers"] = Value::Object(headers);
}
