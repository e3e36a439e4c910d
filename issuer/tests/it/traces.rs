//! Traces, as a collector gets them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use reqwest::StatusCode;

use crate::support::edge::Edge;
use crate::support::{ADMIN_TOKEN, Issuer, TestDatabase, eventually};

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    received: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    /// Starts one; also its URL.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/otlp", listener.local_addr().unwrap());
        let router = Router::new().route("/otlp/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    /// All spans, with the name of the service that sent them.
    fn spans(&self) -> Vec<(String, Span)> {
        let received = self.received.lock().unwrap().clone();
        let resources = received
            .into_iter()
            .flat_map(|body| ExportTraceServiceRequest::decode(body).unwrap().resource_spans);
        resources
            .flat_map(|resource| {
                let attributes = resource.resource.unwrap().attributes;
                let name = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
                let Some(Attribute::StringValue(name)) = name.value.unwrap().value else { panic!() };
                let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.map(move |span| (name.clone(), span)).collect::<Vec<_>>()
            })
            .collect()
    }

    fn has_text(&self, text: &str) -> bool {
        let received = self.received.lock().unwrap();
        received.iter().any(|body| body.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    collector.received.lock().unwrap().push(body);
    StatusCode::OK
}

fn attribute(span: &Span, key: &str) -> Option<Attribute> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

// Several threads: the collector answers while the test waits for the process's end.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_a_span_of_its_caller_s_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let (collector, url) = Collector::start().await;
    // No request is traced whose caller doesn't ask for it.
    let mut issuer = Issuer::start_with(|cli| {
        cli.env("OTLP_ENDPOINT", &url).env("OTLP_SAMPLE_PERCENT", "0").env("ADMIN_TOKEN", ADMIN_TOKEN)
    })
    .await;
    let token = issuer.management_token(&issuer.administrator).await;
    let request = |path: &str, id: &str, flags: &str| {
        let request = issuer.get(path).bearer_auth(&token).header("x-request-id", id);
        request.header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}")).send()
    };
    request("/api/v1/agents/4711?secret=hunter2", "night-7", "01").await.unwrap();
    request("/health", "night-8", "00").await.unwrap();
    let line = issuer.logged("night-7").await;
    assert!(line.contains(TRACE), "{line}");
    // At the stop, if not before, all of it is sent.
    assert!(issuer.stop().success());
    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|(_, span)| span.kind == 2).collect();
    let [(service, span)] = &*requests else { panic!("{spans:?}") };
    assert!(spans.iter().all(|(_, span)| hex(&span.trace_id) == TRACE), "{spans:?}");
    assert_eq!(service, "countersign-issuer");
    assert_eq!(span.name, "GET /api/v1/agents/{agent_id}");
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(span.kind, 2, "a server's");
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    assert_eq!(attribute(span, "http.response.status_code"), Some(Attribute::IntValue(400)));
    let text = |text: &str| Some(Attribute::StringValue(text.to_owned()));
    assert_eq!(attribute(span, "http.request.method"), text("GET"));
    assert_eq!(attribute(span, "http.route"), text("/api/v1/agents/{agent_id}"));
    assert_eq!(attribute(span, "countersign.request_id"), text("night-7"));
    for private in
        [&token, &issuer.administrator.secret, &issuer.administrator.id, "4711", "hunter2", ADMIN_TOKEN]
    {
        assert!(!collector.has_text(private), "{private:.8}");
    }
}

// Several threads: the collector answers while the test waits for the process's end.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_request_does_is_in_spans_below_it_whatever_the_level_of_the_log() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (collector, url) = Collector::start().await;
    let (database, administrator) = TestDatabase::bootstrapped().await;
    let edge = Edge::start(&database.url).await;
    let mut issuer = Issuer::start_on(database.into(), administrator, |cli| {
        edge.configure(cli).env("OTLP_ENDPOINT", &url)
    })
    .await;
    let level = issuer.http.put(format!("{}/log-level", issuer.admin_url));
    level.json(&serde_json::json!({ "level": "ERROR" })).send().await.unwrap();
    issuer.logged("the log's level was changed").await; // the last that was said at the former one
    let logged = issuer.log().len();
    // Of another tenant's making: the records aren't in memory yet.
    let client = issuer.new_client(&["orders:read"]).await;
    let ask = |flags: &str, trace: &str| {
        let form = [("grant_type", "client_credentials")];
        let request = issuer.http.post(format!("{}/oauth2/v1/token", issuer.url)).form(&form);
        let request = request.basic_auth(&client.id, Some(&client.secret));
        request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-{flags}")).send()
    };
    assert_eq!(ask("01", TRACE).await.unwrap().status(), StatusCode::OK);
    // Who is refused by what was just read isn't looked up once more.
    let (other, refused) = (issuer.new_client(&[]).await, TRACE.replace('4', "6"));
    let wrong = issuer.http.post(format!("{}/oauth2/v1/token", issuer.url));
    let wrong = wrong.form(&[("grant_type", "client_credentials")]).basic_auth(&other.id, Some("wrong"));
    let wrong = wrong.header("traceparent", format!("00-{refused}-00f067aa0ba902b7-01"));
    assert_eq!(wrong.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let unrecorded = TRACE.replace('4', "5");
    assert_eq!(ask("00", &unrecorded).await.unwrap().status(), StatusCode::OK);
    eventually("heads are pushed", 10, async || (edge.parents().len() > 1).then_some(())).await;
    let level = issuer.http.put(format!("{}/log-level", issuer.admin_url));
    level.json(&serde_json::json!({ "level": "INFO" })).send().await.unwrap();
    let log = issuer.whole_log().await;
    let said = log[logged..].lines().filter(|line| line.contains("\"message\":\"request\""));
    let mut others: Vec<&str> = said.filter(|line| !line.contains("/log-level")).collect();
    others.pop(); // the one that says that the log is whole
    assert!(others.is_empty(), "the log was as quiet as it was told to be: {others:?}");
    assert!(issuer.stop().success());

    let spans: Vec<Span> = collector.spans().into_iter().map(|(_, span)| span).collect();
    let of_trace: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let request = of_trace.iter().find(|span| span.kind == 2).unwrap();
    let named = |name: &str| {
        let found: Vec<&&Span> = of_trace.iter().filter(|span| span.name == name).collect();
        assert!(
            !found.is_empty(),
            "{name}: {:?}",
            of_trace.iter().map(|span| &span.name).collect::<Vec<_>>()
        );
        found
    };
    for step in ["limits", "client look-up", "secret verification", "claims", "signing", "audit hand-over"] {
        for span in named(step) {
            assert_eq!(span.parent_span_id, request.span_id, "{step} is of the request");
            assert!(span.start_time_unix_nano >= request.start_time_unix_nano, "{step}");
            assert!(span.end_time_unix_nano <= request.end_time_unix_nano, "{step}");
        }
    }
    // What the database took is below what it was asked for, and the wait for a connection apart from it.
    let looking_up = named("client look-up")[0];
    for name in ["database connection", "database statement"] {
        assert!(named(name).iter().any(|span| span.parent_span_id == looking_up.span_id), "{name}");
    }
    let text = |text: &str| Some(Attribute::StringValue(text.to_owned()));
    let statements: Vec<_> =
        named("database statement").iter().map(|span| attribute(span, "countersign.what")).collect();
    assert!(statements.contains(&text("client")), "{statements:?}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) != unrecorded), "nobody asked for that one");
    let read: Vec<_> = spans
        .iter()
        .filter(|span| hex(&span.trace_id) == refused && span.name == "database statement")
        .map(|span| attribute(span, "countersign.what"))
        .collect();
    let times = |what: &str| read.iter().filter(|read| **read == text(what)).count();
    assert_eq!((times("client"), times("tenant") <= 1), (1, true), "{read:?}");

    // A push is a trace of its own, which the edge is told.
    let pushes: Vec<&Span> = spans.iter().filter(|span| span.name == "push").collect();
    let head = pushes.iter().find(|span| attribute(span, "countersign.sink") == text("hub")).unwrap();
    assert!(head.parent_span_id.is_empty());
    let told = edge.parents();
    assert!(told.contains(&format!("00-{}-{}-01", hex(&head.trace_id), hex(&head.span_id))), "{told:?}");
    assert!(spans.iter().any(|span| span.name == "audit write"));
    for private in [&client.secret, &issuer.administrator.secret] {
        assert!(!collector.has_text(private));
    }
}

#[tokio::test]
async fn without_a_caller_s_trace_a_share_of_the_requests_begins_one() {
    let (collector, url) = Collector::start().await;
    let issuer = Issuer::start_with(|cli| cli.env("OTLP_ENDPOINT", &url)).await;
    issuer.get("/health").header("x-request-id", "night-9").send().await.unwrap();
    let span = eventually("a span is sent", 15, async || {
        collector.spans().into_iter().map(|(_, span)| span).find(|span| span.name == "GET /health")
    })
    .await;
    assert!(span.parent_span_id.is_empty());
    assert!(issuer.logged("night-9").await.contains(&hex(&span.trace_id)), "the log has the same");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nothing_but_spans() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut issuer = Issuer::start_with(|cli| cli.env("OTLP_ENDPOINT", &format!("http://{free}"))).await;
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(issuer.get("/health").send().await.unwrap().status(), StatusCode::OK);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    eventually("somebody is told", 15, async || {
        issuer
            .log()
            .lines()
            .any(|line| line.contains("opentelemetry") && line.contains("ERROR"))
            .then_some(())
    })
    .await;
    assert!(issuer.stop().success());
}
