//! Spans, exported by OTLP where that was asked for.
//!
//! Whoever makes a span gets one only if it is recorded: tracing is on, and its trace is sampled. So a process that
//! does not trace asks one question for each span and allocates nothing. A span goes into a queue of limited length
//! when it ends, and from there to the collector; a collector that is away or slow costs spans, which are counted, and
//! never holds anything up. `docs/tracing.md` lists spans and attributes.

mod export;

use std::{borrow::Cow, time::SystemTime};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
        TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_sdk::{
    Resource,
    trace::{ParentBasedSampler, Sampler, SdkTracer, SdkTracerProvider},
};

use super::Metrics;
use crate::event::TraceContext;
pub use export::{RunningExporter, SpanExporter};

/// Makes spans, if it was told to.
#[derive(Clone, Default)]
pub struct Traces(Option<SdkTracer>);

/// A span that is recorded. It ends when it is dropped.
pub struct TraceSpan(opentelemetry_sdk::trace::Span);

/// Which side of a conversation a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanRole {
    Server,
    Internal,
    Producer,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("no HTTP client: {0}")]
    Client(reqwest::Error),
    #[error("{0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl Traces {
    /// No spans.
    pub fn off() -> Self {
        Self(None)
    }

    /// Spans of this share of the traces that begin here, and of those that others began and sample, for the collector
    /// at `endpoint`. They leave once the exporter runs.
    ///
    /// # Errors
    ///
    /// The endpoint is no URL, or there is no TLS to be had.
    pub fn to(
        endpoint: &str,
        sample_ratio: f64,
        replica: &str,
        metrics: &Metrics,
    ) -> Result<(Self, SpanExporter), SetupError> {
        let resource = Resource::builder()
            .with_service_name("forebay")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", replica.to_owned()),
            ])
            .build();
        let (queue, exporter) = export::queue(endpoint, &resource, metrics)?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(ParentBasedSampler::new(Sampler::TraceIdRatioBased(sample_ratio)))
            .with_span_processor(queue)
            .build();
        Ok((Self(Some(provider.tracer("forebay"))), exporter))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A span that began at `start`, below a span of another process or of another time; without a parent a new trace
    /// begins with it. `None`: it is not recorded.
    pub fn span(
        &self,
        kind: SpanRole,
        name: impl FnOnce() -> Cow<'static, str>,
        start: SystemTime,
        parent: Option<TraceContext>,
    ) -> Option<TraceSpan> {
        let tracer = self.0.as_ref()?;
        if parent.is_some_and(|parent| !parent.is_sampled()) {
            return None;
        }
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(span_context(parent, true)),
            None => Context::new(),
        };
        built(tracer, kind, name(), start, &context)
    }

    /// A span below another one of this process.
    pub fn child(&self, parent: &TraceSpan, name: &'static str) -> Option<TraceSpan> {
        let context = Context::new().with_remote_span_context(span_context(parent.context(), false));
        built(
            self.0.as_ref()?,
            SpanRole::Internal,
            name.into(),
            SystemTime::now(),
            &context,
        )
    }
}

fn built(
    tracer: &SdkTracer,
    kind: SpanRole,
    name: Cow<'static, str>,
    start: SystemTime,
    context: &Context,
) -> Option<TraceSpan> {
    let kind = match kind {
        SpanRole::Server => SpanKind::Server,
        SpanRole::Internal => SpanKind::Internal,
        SpanRole::Producer => SpanKind::Producer,
    };
    let builder = SpanBuilder {
        span_kind: Some(kind),
        start_time: Some(start),
        ..SpanBuilder::from_name(name)
    };
    let span = tracer.build_with_context(builder, context);
    span.is_recording().then_some(TraceSpan(span))
}

fn span_context(context: TraceContext, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        TraceFlags::new(context.flags()),
        is_remote,
        TraceState::NONE,
    )
}

impl TraceSpan {
    pub fn context(&self) -> TraceContext {
        let context = self.0.span_context();
        TraceContext::new(
            context.trace_id().to_bytes(),
            context.span_id().to_bytes(),
            context.trace_flags().to_u8(),
        )
        .expect("a recorded span has ids")
    }

    /// Tells more of it. Never a body, never a secret.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    /// It failed, for a reason out of a closed set.
    pub fn fail(&mut self, reason: &'static str) {
        self.set("error.type", reason);
        self.0.set_status(Status::error(""));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TRACEPARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn span(traces: &Traces, parent: Option<TraceContext>) -> Option<TraceSpan> {
        traces.span(SpanRole::Server, || "a span".into(), SystemTime::now(), parent)
    }

    #[test]
    fn while_tracing_is_off_not_even_a_name_is_made() {
        let name = || panic!("nobody needs a name");
        let parent = TraceContext::parse(TRACEPARENT);
        assert!(
            Traces::off()
                .span(SpanRole::Server, name, SystemTime::now(), parent)
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_sender_decides_for_its_own_traces_and_the_share_for_those_that_begin_here() {
        let sampled = TraceContext::parse(TRACEPARENT).unwrap();
        let unsampled = TraceContext::new(sampled.trace_id(), sampled.span_id(), 0);
        for (ratio, parent, expected) in [
            (0.0, Some(sampled), true),
            (0.0, None, false),
            (1.0, unsampled, false),
            (1.0, None, true),
        ] {
            let (traces, _exporter) = Traces::to("http://127.0.0.1:1", ratio, "replica", &Metrics::new()).unwrap();
            let span = span(&traces, parent);
            assert_eq!(span.is_some(), expected, "{ratio} {parent:?}");
            if let (Some(span), Some(parent)) = (span, parent) {
                let child = traces.child(&span, "below").unwrap();
                for context in [span.context(), child.context()] {
                    assert!(context.trace_id() == parent.trace_id() && context.span_id() != parent.span_id());
                    assert!(context.is_sampled());
                }
            }
        }
    }

    #[tokio::test]
    async fn what_finds_the_queue_full_is_dropped_and_the_last_spans_have_a_deadline() {
        let metrics = Metrics::new();
        let (traces, exporter) = Traces::to("http://127.0.0.1:1", 1.0, "replica", &metrics).unwrap();
        for _ in 0..export::QUEUE_SPANS_MAX + 7 {
            drop(span(&traces, None));
        }
        let outcome = |outcome| metrics.spans.with_label_values(&[outcome]).get();
        assert_eq!(outcome("dropped"), 7);
        let start = std::time::Instant::now();
        exporter
            .start()
            .finish(tokio::time::Instant::now() + Duration::from_millis(200))
            .await;
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(outcome("exported"), 0);
    }
}
