//! The spans of one request: its own, and the one of its append.
//!
//! A request's span is made when it is verified, for only then its record needs the span's id, and only then is its
//! `traceparent` believed: anybody can ask for a trace to be recorded, and the signature covers the body only. What is
//! refused before that gets a trace of its own.

use std::{
    net::IpAddr,
    time::{Instant, SystemTime},
};

use actix_web::{
    HttpRequest,
    http::{
        Method, StatusCode,
        header::{HeaderMap, HeaderName},
    },
};

use super::{answer::RequestRefusal, endpoint::ServedEndpoint};
use crate::{
    event::{Event, TraceContext},
    senders,
    telemetry::{
        Traces,
        traces::{SpanRole, TraceSpan},
    },
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The span of a request, if it is recorded.
pub(super) struct RequestSpan<'a> {
    traces: &'a Traces,
    request: &'a HttpRequest,
    served: Option<&'a ServedEndpoint>,
    start: Instant,
    span: Option<TraceSpan>,
}

/// The span of an append, if it is recorded.
pub(super) struct AppendSpan(Option<TraceSpan>);

impl<'a> RequestSpan<'a> {
    pub fn new(
        traces: &'a Traces,
        request: &'a HttpRequest,
        served: Option<&'a ServedEndpoint>,
        start: Instant,
    ) -> Self {
        Self {
            traces,
            request,
            served,
            start,
            span: None,
        }
    }

    /// The request is what it says. Returns what goes on with its event: this span, else the sender's.
    pub fn verified(&mut self, event: &Event) -> Option<TraceContext> {
        let sender = traceparent(self.request.headers());
        self.begin(sender);
        let Some(span) = &mut self.span else {
            return sender;
        };
        let provider = senders::sender_of(event).provider();
        span.set("cloudevents.event_id", event.id.hyphenated().to_string());
        span.set("cloudevents.event_source", event.source(provider));
        span.set("cloudevents.event_type", event.type_(provider));
        span.set("http.request.body.size", size(event.body.len()));
        Some(span.context())
    }

    /// Its record waits for the disk from here on.
    pub fn append(&self, record_bytes: usize) -> AppendSpan {
        let span = (self.span.as_ref()).and_then(|span| self.traces.child(span, "spool append"));
        AppendSpan(span.map(|mut span| {
            span.set("forebay.spool.record_bytes", size(record_bytes));
            span
        }))
    }

    pub fn refused(&mut self, refusal: RequestRefusal) {
        if self.span.is_none() {
            self.begin(None);
        }
        let Some(span) = &mut self.span else { return };
        if refusal.status().is_server_error() {
            span.fail(refusal.code());
        } else {
            span.set("error.type", refusal.code());
        }
    }

    /// The trace that a log line belongs to: this span's, else the one that the sender names.
    pub fn trace_id(&self) -> Option<String> {
        let own = self.span.as_ref().map(TraceSpan::context);
        let context = own.or_else(|| traceparent(self.request.headers()))?;
        Some(context.trace_id_text())
    }

    /// It is answered.
    pub fn end(self, status: StatusCode, client: IpAddr) {
        let Some(mut span) = self.span else { return };
        span.set("http.request.method", method(self.request.method()));
        span.set("http.response.status_code", i64::from(status.as_u16()));
        span.set("url.scheme", "http");
        if let Some(served) = self.served {
            span.set("http.route", served.path.clone());
            span.set("url.path", served.path.clone());
            span.set("forebay.endpoint", served.told.endpoint.clone());
        }
        span.set("client.address", client.to_string());
    }

    fn begin(&mut self, parent: Option<TraceContext>) {
        let name = || {
            let method = match self.request.method() {
                known if is_known(known) => known.as_str(),
                _ => "HTTP",
            };
            match self.served {
                Some(served) => format!("{method} {}", served.path).into(),
                None => method.to_owned().into(),
            }
        };
        if self.traces.is_on() {
            let start = SystemTime::now() - self.start.elapsed();
            self.span = self.traces.span(SpanRole::Server, name, start, parent);
        }
    }
}

impl AppendSpan {
    /// It is durable, under this number, or was refused.
    pub fn end(self, stored: Result<u64, RequestRefusal>) {
        let Some(mut span) = self.0 else { return };
        match stored {
            Ok(sequence) => span.set("forebay.sequence", i64::try_from(sequence).unwrap_or(i64::MAX)),
            Err(refusal) => span.fail(refusal.code()),
        }
    }
}

/// The sender's `traceparent`, if it is there exactly once and is one.
fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT);
    let value = values.next()?;
    match values.next() {
        None => TraceContext::parse(value.as_bytes()),
        Some(_) => None,
    }
}

/// Methods come from the wire; what is not a usual one has one name.
fn method(method: &Method) -> String {
    if is_known(method) {
        method.as_str().to_owned()
    } else {
        "_OTHER".to_owned()
    }
}

fn is_known(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ]
    .contains(method)
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
