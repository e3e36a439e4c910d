//! Which pages may call the API from a browser (the Fetch standard, §3.3): those whose origin is on the operator's list. No cookie and no
//! password of the browser's counts here, so none is ever allowed along: what a page may do, it does with a token of its own.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

use crate::config::AllowedOrigins;

const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, if-match, if-none-match, idempotency-key, x-request-id",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, location, idempotency-replayed, ratelimit, ratelimit-policy, retry-after, www-authenticate, x-ratelimit-limit, \
     x-ratelimit-remaining, x-ratelimit-reset, x-request-id",
);
/// How long a browser may rely on a preflight's answer, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// What a browser has asked, on behalf of a page.
pub(super) struct Asked {
    origin: Option<HeaderValue>,
    preflight: bool,
}

impl Asked {
    pub(super) fn by(request: &Request) -> Self {
        let origin = request.headers().get(ORIGIN).cloned();
        let preflight = request.method() == Method::OPTIONS
            && origin.is_some()
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        Self { origin, preflight }
    }

    /// Answers preflights, and tells browsers which pages may see an answer.
    pub(super) fn share(self, allowed: &AllowedOrigins, headers: &mut HeaderMap) {
        if *allowed == AllowedOrigins::none() {
            return;
        }
        // The answer without `Origin` is another one too, so a cache must know.
        headers.append(VARY, HeaderValue::from_name(ORIGIN));
        let Some(granted) = self.origin.and_then(|origin| grant(allowed, origin)) else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, granted);
        if !self.preflight {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        } else if let Some(methods) = headers.get(ALLOW).cloned() {
            // What the path takes; there is nothing to allow at one that isn't there.
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
    }
}

fn grant(allowed: &AllowedOrigins, origin: HeaderValue) -> Option<HeaderValue> {
    match allowed {
        AllowedOrigins::Any => Some(HeaderValue::from_static("*")),
        AllowedOrigins::Listed(listed) => {
            origin.to_str().is_ok_and(|text| listed.contains(text)).then_some(origin)
        }
    }
}
