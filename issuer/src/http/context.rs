//! What surrounds every request: its id, its place in the log, a limit on its time, and a net for panics.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::header::{CACHE_CONTROL, USER_AGENT, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;
use tracing::{Instrument as _, info, info_span};

use super::error::ApiError;
use super::respond;
use crate::domain::audit::Origin;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A request that takes longer is given up: what it waits for is the database.
const DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn enter(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let user_agent = user_agent.map(|text| text.chars().take(Origin::MAX_USER_AGENT_CHARACTERS).collect());
    let origin = Origin { request_id: Some(request_id.clone()), client_ip: peer, user_agent };
    request.extensions_mut().insert(origin);

    // The route, not the path: that is bounded, and holds nothing of the caller's.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown".to_owned(), |path| path.as_str().to_owned());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = info_span!("request", request_id);
    async move {
        let handled = tokio::time::timeout(DEADLINE, next.run(request));
        let mut response = match AssertUnwindSafe(handled).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => {
                respond(ApiError::Unavailable(format!("no answer in {} s", DEADLINE.as_secs())), &path)
            }
            Err(_) => respond(ApiError::Internal("the handler panicked".into()), &path), // the panic hook has said where
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, value);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        info!(%method, route, status = response.status().as_u16(), duration_us, "request");
        response
    }
    .instrument(span)
    .await
}

/// The caller's id, if it is one that can stand in a log; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sound = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sound);
    given.map_or_else(new_request_id, str::to_owned)
}

fn new_request_id() -> String {
    let mut bytes = [0; 16];
    // Without randomness the id is a useless one; requests that need randomness fail for themselves.
    _ = aws_lc_rs::rand::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware;
    use axum::routing::get;
    use serde_json::Value;

    /// Nothing in the API panics, so this route is made for it.
    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_no_more() {
        async fn broken() {
            panic!("secret");
        }
        let router = Router::new()
            .route("/broken", get(broken))
            .route("/oauth2/v1/token", get(broken))
            .layer(middleware::from_fn(super::enter));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        for (path, member, code) in
            [("broken", "code", "INTERNAL_ERROR"), ("oauth2/v1/token", "error", "server_error")]
        {
            let response = reqwest::get(format!("{base}/{path}")).await.unwrap();
            assert_eq!(response.status(), 500);
            assert!(response.headers().contains_key("x-request-id"));
            let body = response.text().await.unwrap();
            assert!(!body.contains("secret"), "{body}");
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap()[member], code);
        }
    }
}
