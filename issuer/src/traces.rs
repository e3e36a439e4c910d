//! Traces: a span for each request and for each of its steps, sent to a collector by OTLP over HTTP (OpenTelemetry Protocol 1), where one is configured.
//!
//! Steps are spans of `tracing` at `DEBUG`, with a target of their own that no log has: where nobody traces they are switched off at the place where they are made, by
//! what `tracing` remembers of each such place, and nothing is allocated. [`Steps`] makes them spans of the collector's, below that of their request.
//!
//! Spans wait in memory and leave in batches, on a thread of their own: a collector that is slow or away costs spans, never a request.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use axum::http::Method;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer;
use tracing_subscriber::registry::{LookupSpan, Registry};

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
pub struct RequestSpan(Context);

/// A step of a request, `tracing`'s span of it: `step!("signing")`. The name is one of ours; so are fields, of which texts become attributes.
macro_rules! step {
    ($name:literal $(, $($field:tt)+)?) => {
        ::tracing::debug_span!(target: "countersign_step", $name $(, $($field)+)?)
    };
}
/// The same for what no request waits for: it begins a trace, where it isn't part of one.
macro_rules! errand {
    ($name:literal $(, $($field:tt)+)?) => {
        ::tracing::debug_span!(target: "countersign_errand", $name $(, $($field)+)?)
    };
}
pub(crate) use {errand, step};

/// The targets of both.
const STEP: &str = "countersign_step";
const ERRAND: &str = "countersign_errand";

/// What the spans below one of `tracing`'s hang on.
struct Hook(Context);

/// Makes spans of the collector's of steps.
pub struct Steps;

/// What [`Steps`] has to see: nothing but steps, and what they are below.
pub fn seen_by_steps() -> FilterFn {
    let is_seen: fn(&Metadata<'_>) -> bool = |metadata| {
        metadata.is_span() && (matches!(metadata.target(), STEP | ERRAND) || metadata.name() == "request")
    };
    filter_fn(is_seen).with_max_level_hint(LevelFilter::DEBUG)
}

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Steps {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: layer::Context<'_, S>) {
        let metadata = attributes.metadata();
        let (Some(traces), Some(span)) = (TRACES.get(), context.span(id)) else { return };
        let above = span.parent().and_then(|parent| parent.extensions().get().map(|Hook(hook)| hook.clone()));
        let above = match (above, metadata.target()) {
            (Some(above), STEP | ERRAND) => above,
            (None, ERRAND) => Context::new(),
            // The request itself, or a step of one that isn't recorded.
            _ => return,
        };
        let mut texts = Texts(Vec::new());
        attributes.record(&mut texts);
        let builder = traces.tracer.span_builder(metadata.name()).with_attributes(texts.0);
        let begun = builder.start_with_context(&traces.tracer, &above);
        span.extensions_mut().insert(Hook(above.with_span(begun)));
    }

    fn on_close(&self, id: Id, context: layer::Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let hook = span.extensions_mut().remove();
        // A request's ends when it is answered.
        if let (Some(Hook(hook)), STEP | ERRAND) = (hook, span.metadata().target()) {
            hook.span().end();
        }
    }
}

/// Fields that are texts, as attributes.
struct Texts(Vec<KeyValue>);

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push(KeyValue::new(format!("countersign.{}", field.name()), value.to_owned()));
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// The `traceparent` (W3C Trace Context §3.2) of what is under way, for whom it calls; `None` where nobody traces.
pub fn traceparent() -> Option<String> {
    TRACES.get()?;
    hook_of(&tracing::Span::current(), |hook| {
        let hook = hook.as_ref()?;
        let span = hook.0.span().span_context().clone();
        let flags = u8::from(span.is_sampled());
        Some(format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
    })?
}

/// What hangs below `span`, where it is one of the registry's.
fn hook_of<T>(span: &tracing::Span, work: impl FnOnce(&mut Option<Hook>) -> T) -> Option<T> {
    span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        let mut extensions = span.extensions_mut();
        let mut hook = extensions.remove();
        let done = work(&mut hook);
        if let Some(hook) = hook {
            extensions.insert(hook);
        }
        Some(done)
    })?
}

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
    let begun = span.with_attributes(attributes).start_with_context(&traces.tracer, &parent);
    Some(RequestSpan(parent.with_span(begun)))
}

impl RequestSpan {
    /// The trace that it belongs to, as it stands in headers and logs.
    pub fn trace_id(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }

    /// Hangs the steps below `span`, the request's in the log, on it. Not where it isn't recorded: then they aren't either.
    pub fn above(&self, span: &tracing::Span) {
        if self.0.span().span_context().is_sampled() {
            hook_of(span, |hook| *hook = Some(Hook(self.0.clone())));
        }
    }

    /// The request was answered.
    pub fn answered(self, status: u16) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        // Of a server only its own failures are errors.
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn steps_are_nothing_where_nobody_traces() {
        let logs = tracing_subscriber::registry().with(EnvFilter::new("warn,countersign_issuer=trace"));
        tracing::subscriber::with_default(logs, || {
            assert!(tracing::info_span!("request").id().is_some());
            assert!(
                super::step!("signing").is_disabled() && super::errand!("push", sink = "hub").is_disabled()
            );
        });
        assert_eq!(super::traceparent(), None);
    }
}
