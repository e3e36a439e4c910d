//! Traces: one span for each request, sent to a collector by OTLP over HTTP (OpenTelemetry Protocol 1), where one is configured.
//!
//! Spans wait in memory and leave in batches, on a thread of their own: a collector that is slow or away costs spans, never a request.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::Method;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::config::Otlp;

/// How long the collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last spans may take at a stop.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// Of the process: there is one issuer in each.
static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// What a caller says of its own span (W3C Trace Context §3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its trace, not zero.
    pub trace_id: u128,
    /// Its span, not zero.
    pub span_id: u64,
    /// Whether it records the trace.
    pub sampled: bool,
}

/// The span of a request under way; sent when it is dropped.
pub struct RequestSpan(Span);

/// Tracing can't be started.
#[derive(Debug)]
pub struct NotStarted(String);

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "traces can't be sent to OTLP_ENDPOINT: {}", self.0)
    }
}

impl std::error::Error for NotStarted {}

/// Starts sending spans. Doesn't wait for the collector: it may come later.
pub fn start(config: &Otlp) -> Result<(), NotStarted> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(config.traces_url())
        .with_timeout(PATIENCE)
        .build()
        .map_err(|error| NotStarted(error.to_string()))?;
    let share = f64::from(config.sample_percent) / 100.0;
    let resource = Resource::builder_empty()
        .with_service_name("countersign-issuer")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
        .with_resource(resource)
        .build();
    let tracer = provider.tracer("countersign_issuer");
    // Started once in a process.
    _ = TRACES.set(Traces { provider, tracer });
    Ok(())
}

/// Sends what is left, and ends.
pub async fn stop() {
    // It blocks until the collector has answered.
    let last = || TRACES.get().map(|traces| traces.provider.shutdown_with_timeout(LAST_SPANS));
    // What couldn't be sent the library has said.
    _ = tokio::task::spawn_blocking(last).await;
}

/// Begins the span of a request; `None` where nobody traces. `route` is the template that matched.
pub fn begin(method: &Method, route: &str, request_id: &str, caller: Option<Caller>) -> Option<RequestSpan> {
    let traces = TRACES.get()?;
    let parent = match caller {
        None => Context::new(),
        Some(Caller { trace_id, span_id, sampled }) => {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
            let remote = SpanContext::new(trace_id, span_id, flags, true, TraceState::default());
            Context::new().with_remote_span_context(remote)
        }
    };
    // Names as in the semantic conventions for HTTP servers.
    let attributes = [
        KeyValue::new("http.request.method", method.as_str().to_owned()),
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("countersign.request_id", request_id.to_owned()),
    ];
    let span = traces.tracer.span_builder(format!("{method} {route}")).with_kind(SpanKind::Server);
    Some(RequestSpan(span.with_attributes(attributes).start_with_context(&traces.tracer, &parent)))
}

impl RequestSpan {
    /// The trace that it belongs to, as it stands in headers and logs.
    pub fn trace_id(&self) -> String {
        self.0.span_context().trace_id().to_string()
    }

    /// The request was answered.
    pub fn answered(mut self, status: u16) {
        self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        // Of a server only its own failures are errors.
        if status >= 500 {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}
