//! What a token costs in allocations: counted, not timed, so that it is the same on every machine. A change that makes it cost more has to say so here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "it/support/mod.rs"]
#[expect(dead_code, reason = "made for the other tests")]
mod support;

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use countersign_issuer::app::App;
use countersign_issuer::config::{AllowedOrigins, Serve, Sources};
use countersign_issuer::storage::Database;
use countersign_issuer::{clients, http};
use data_encoding::BASE64;
use tokio::runtime::{Builder, Runtime};
use tower_service::Service as _;

use support::cli::Cli;
use support::{TestDatabase, required};

/// Of everything from the request's head to the answer's, and of what is done for it in the background: limits asked in Redis, the audit event
/// written in Postgres. It was 198 when this was written; the margin of a twentieth is for releases of libraries.
const MOST_ALLOCATIONS: u64 = 208;
/// The same, in bytes: it was 48,662.
const MOST_BYTES: u64 = 51_100;

#[test]
fn a_token_costs_no_more_allocations_than_it_did() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (router, request, _database) = runtime.block_on(prepare());
    for _ in 0..200 {
        issue(&runtime, &router, &request); // caches fill, buffers grow
    }
    let mut counts = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..301 {
        let counted = allocation_counter::measure(|| issue(&runtime, &router, &request));
        counts.push(counted.count_total);
        bytes.push(counted.bytes_total);
    }
    let [count, bytes] = [counts, bytes].map(|mut values| {
        values.sort_unstable();
        values[values.len() / 2]
    });
    println!("a token: {count} allocations, {bytes} bytes");
    assert!(
        count <= MOST_ALLOCATIONS,
        "{count} allocations for a token, where {MOST_ALLOCATIONS} are the most"
    );
    assert!(bytes <= MOST_BYTES, "{bytes} bytes allocated for a token, where {MOST_BYTES} are the most");
}

/// An issuer in this process, on this thread, and what a client sends.
async fn prepare() -> (Router, impl Fn() -> Request<Body>, TestDatabase) {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let cli = Cli::new(&database.url)
        .env("REDIS_URL", &required("TEST_REDIS_URL"))
        .env("TOKEN_SIGNING_ALGORITHM", "ES256");
    let command = cli.command(&[]);
    let text = |text: &OsStr| text.to_str().unwrap().to_owned();
    let environment = command.get_envs().map(|(name, value)| (text(name), text(value.unwrap())));
    let config = Serve::from_sources(&Sources::read(environment, None)).unwrap();
    let app = App::open(&config, Database::connect(&config.database).await.unwrap()).await.unwrap();
    // Until its end the process hears what changes; else nothing would be taken from memory.
    std::mem::forget(clients::start(&app).await);
    let credentials = BASE64.encode(format!("{}:{}", administrator.id, administrator.secret).as_bytes());
    let request = move || {
        Request::post("/oauth2/v1/token")
            .header("host", "issuer.example")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", format!("Basic {credentials}"))
            // As the listener has it: without an address neither that nor lockouts would be asked for.
            .extension(ConnectInfo(SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000))))
            .body(Body::from("grant_type=client_credentials"))
            .unwrap()
    };
    (http::public(Arc::clone(&app), AllowedOrigins::none(), None), request, database)
}

fn issue(runtime: &Runtime, router: &Router, request: &impl Fn() -> Request<Body>) {
    let answer = runtime.block_on(router.clone().call(request())).unwrap();
    let status = answer.status();
    if status != StatusCode::OK {
        let body = runtime.block_on(axum::body::to_bytes(answer.into_body(), 10_000)).unwrap();
        panic!("{status}: {}", String::from_utf8_lossy(&body));
    }
}
