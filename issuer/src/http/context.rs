//! What surrounds every request: its id, its place in the log, a limit on its time, and a net for panics.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use futures_util::FutureExt as _;
use tracing::{Instrument as _, info, info_span};

use super::bounds::ANSWER_PATIENCE;
use super::error::ApiError;
use super::{respond, trace_context};
use crate::config::TrustedProxies;
use crate::domain::audit::Origin;
use crate::domain::redaction::{has_secret, redacted};
use crate::metrics;
use crate::traces::{self, RequestSpan};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Answers a request by `answering`.
pub(super) async fn enter<F: Future<Output = Response>>(
    proxies: &TrustedProxies,
    mut request: Request,
    answering: impl FnOnce(Request) -> F,
) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let client_ip = peer.map(|peer| client_ip(peer, request.headers(), proxies));
    let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    // Cut after that: half a secret is one.
    let user_agent =
        user_agent.map(|text| redacted(text).chars().take(Origin::MAX_USER_AGENT_CHARACTERS).collect());
    let origin = Origin { request_id: Some(request_id.clone()), client_ip, user_agent };
    request.extensions_mut().insert(origin);

    // The route, not the path: that is bounded, and holds nothing of the caller's.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown".to_owned(), |path| path.as_str().to_owned());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = trace_context::caller(request.headers());
    let traced = traces::begin(&method, &route, &request_id, caller);
    let trace_id = traced.as_ref().map_or_else(|| trace_context::trace_id(caller), RequestSpan::trace_id);
    let span = info_span!("request", request_id, trace_id);
    if let Some(traced) = &traced {
        traced.above(&span);
    }
    async move {
        let handled = pin!(answering(request)); // in its place: it is large
        let handled = tokio::time::timeout(ANSWER_PATIENCE, handled);
        let mut response = match AssertUnwindSafe(handled).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => {
                respond(ApiError::Unavailable(format!("no answer in {} s", ANSWER_PATIENCE.as_secs())), &path)
            }
            Err(_) => respond(ApiError::Internal("the handler panicked".into()), &path), // the panic hook has said where
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, value);
        }
        if let Some(traced) = traced {
            traced.answered(response.status().as_u16());
        }
        metrics::request_answered(&method, route.clone(), response.status().as_u16(), started.elapsed());
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        info!(%method, route, status = response.status().as_u16(), duration_us, "request");
        response
    }
    .instrument(span)
    .await
}

/// The caller's id, if it is one that can stand in a log and isn't a secret by mistake; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sound = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && !has_secret(text)
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sound);
    given.map_or_else(new_request_id, str::to_owned)
}

/// Where a request comes from: the connection's peer or, if that is one of our proxies, the nearest address in `X-Forwarded-For` that isn't. Each
/// proxy appends whom it was called by, so what stands left of the first stranger is that stranger's word and counts for nothing.
fn client_ip(peer: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> IpAddr {
    let mut ip = peer.to_canonical();
    let values: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let mut hops = values.iter().rev().flat_map(|value| value.rsplit(','));
    while proxies.contains(ip) {
        // What can't be read ends the walk: the last address that somebody trusted named is as near as it gets.
        let Some(hop) = hops.next().and_then(|hop| address(hop.trim())) else { break };
        ip = hop;
    }
    ip
}

/// An address as proxies write it: some add the port.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    ip.ok().map(|ip| ip.to_canonical())
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
    use axum::middleware::{self, Next};
    use axum::routing::get;
    use serde_json::Value;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies: super::TrustedProxies = "10.0.0.0/8, 2001:db8::/32,127.0.0.1".parse().unwrap();
        let ip = |peer: &str, headers: &[&str]| {
            let mut map = super::HeaderMap::new();
            for value in headers {
                map.append(super::FORWARDED_FOR, super::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            super::client_ip(peer.parse().unwrap(), &map, &proxies).to_string()
        };
        // A stranger may say what it likes.
        assert_eq!(ip("192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(ip("192.0.2.1", &[]), "192.0.2.1");
        // The nearest that is none of ours, whatever it put in front.
        assert_eq!(ip("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(ip("10.0.0.1", &["203.0.113.9, 198.51.100.1, 10.2.3.4,127.0.0.1"]), "198.51.100.1");
        assert_eq!(ip("10.0.0.1", &["203.0.113.9", "198.51.100.1", "10.2.3.4"]), "198.51.100.1");
        assert_eq!(ip("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        assert_eq!(ip("2001:db8::1", &["[2001:db9::1]:443"]), "2001:db9::1");
        assert_eq!(ip("10.0.0.1", &["198.51.100.1:1234"]), "198.51.100.1");
        // Only ours, or nobody.
        assert_eq!(ip("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(ip("10.0.0.1", &[]), "10.0.0.1");
        // Nonsense ends the walk.
        for nonsense in
            ["198.51.100.1, unknown, 10.0.0.2", "198.51.100.1,,10.0.0.2", "198.51.100.1, 10.0.0, 10.0.0.2"]
        {
            assert_eq!(ip("10.0.0.1", &[nonsense]), "10.0.0.2", "{nonsense}");
        }
        assert_eq!(ip("10.0.0.1", &["198.51.100.1", "\u{e9}"]), "10.0.0.1");
    }

    /// Nothing in the API panics, so this route is made for it.
    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_no_more() {
        async fn broken() {
            panic!("secret");
        }
        let router = Router::new()
            .route("/broken", get(broken))
            .route("/oauth2/v1/token", get(broken))
            .layer(middleware::from_fn(async |request, next: Next| {
                super::enter(&super::TrustedProxies::default(), request, |request| next.run(request)).await
            }));
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
