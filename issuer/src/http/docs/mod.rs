//! The description of the API, as it is served: for programs and, as a page, for people.

use std::sync::{Arc, LazyLock, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use axum::Extension;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;

use super::error::ApiError;
use super::wellknown::is_known;

/// A document that doesn't change while the process lives.
struct Document {
    media_type: &'static str,
    bytes: Bytes,
    etag: String,
}

/// The description of the routes that it is one of: so it is known after them.
#[derive(Clone, Default)]
pub(super) struct Description(Arc<OnceLock<Document>>);

impl Description {
    pub(super) fn is(&self, content: &Value) {
        self.0.get_or_init(|| Document::new("application/json", text(content)));
    }
}

/// A description as it is served.
pub(super) fn text(content: &Value) -> String {
    format!("{content:#}\n")
}

impl Document {
    fn new(media_type: &'static str, text: String) -> Self {
        let etag = format!("\"{}\"", HEXLOWER.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..16]));
        Self { media_type, bytes: text.into(), etag }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        // May be kept, and is asked after each time: a new release describes itself at once.
        let validators = [(CACHE_CONTROL, "no-cache"), (ETAG, self.etag.as_str())];
        if is_known(headers, &self.etag) {
            return (StatusCode::NOT_MODIFIED, validators).into_response();
        }
        (validators, [(CONTENT_TYPE, self.media_type)], self.bytes.clone()).into_response()
    }
}

/// `GET /openapi.json`.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "getDescription",
    summary = "This description",
    description = "OpenAPI 3.1.",
    params(("if-none-match" = Option<String>, Header, description = "The `ETag` of an earlier answer.")),
    responses(
        (status = 200, description = "The description.", body = Object, headers(("etag" = String, description = "Of this content."))),
        (status = 304, description = "It is still that of `If-None-Match`.", headers(("etag" = String, description = "Of this content."))),
    ),
)]
pub(super) async fn document(Extension(description): Extension<Description>, headers: HeaderMap) -> Response {
    match description.0.get() {
        Some(document) => document.answer(&headers),
        None => ApiError::Internal("the routes aren't described".into()).into_response(),
    }
}

struct Page {
    document: Document,
    policy: String,
}

/// One file: nothing is fetched from elsewhere, and nothing but this very script and style runs.
static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let (style, script) = (include_str!("page.css"), include_str!("page.js"));
    let hash = |text: &str| BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref());
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(script),
        hash(style)
    );
    let page = include_str!("page.html").replace("{style}", style).replace("{script}", script);
    Page { document: Document::new("text/html; charset=utf-8", page), policy }
});

/// `GET /docs`.
#[utoipa::path(
    get, path = "/docs", tag = "operations", operation_id = "getDocs",
    summary = "This description as a page",
    params(("if-none-match" = Option<String>, Header, description = "The `ETag` of an earlier answer.")),
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html",
            headers(("etag" = String, description = "Of this content."), ("content-security-policy" = String))),
        (status = 304, description = "It is still that of `If-None-Match`.", headers(("etag" = String, description = "Of this content."))),
    ),
)]
pub(super) async fn page(headers: HeaderMap) -> Response {
    let mut response = PAGE.document.answer(&headers);
    if let Ok(policy) = PAGE.policy.parse() {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}
