//! The spans of what a route has in flight: each from the message's making to the broker's confirmation, or to the
//! session's end.

use std::time::SystemTime;

use hashbrown::HashMap;

use super::{Job, status::now_ms};
use crate::{
    event::Event,
    senders,
    sink::{Message, MessageDestination, Sink},
    telemetry::{
        Traces,
        traces::{SpanRole, TraceSpan},
    },
};

/// Makes and keeps a route's spans. Empty, and of no cost, unless they are recorded.
pub(super) struct RouteSpans {
    traces: Traces,
    route: String,
    open: HashMap<u64, TraceSpan>,
}

impl<S: Sink> Job<S> {
    /// Makes spans of what it publishes.
    pub fn traced(self, traces: Traces) -> Self {
        let spans = RouteSpans::new(traces, &self.route);
        Self { spans, ..self }
    }
}

impl RouteSpans {
    pub(super) fn off(route: &str) -> Self {
        Self::new(Traces::off(), route)
    }

    pub(super) fn new(traces: Traces, route: &str) -> Self {
        Self {
            traces,
            route: route.to_owned(),
            open: HashMap::new(),
        }
    }

    /// Begins the span of a message, which from then on names it as its own. `destination`: where it goes, which is
    /// asked for when there is a span.
    pub(super) fn begin(
        &mut self,
        event: &Event,
        message: &mut Message,
        destination: impl FnOnce(&Message) -> MessageDestination,
    ) {
        // Without a context the event was taken in while nobody traced it.
        let Some(trace) = event.trace else { return };
        let mut attributes = Vec::new();
        let name = || {
            let destination = destination(message);
            attributes = destination.attributes;
            format!("send {}", destination.name).into()
        };
        let Some(mut span) = self
            .traces
            .span(SpanRole::Producer, name, SystemTime::now(), Some(trace))
        else {
            return;
        };
        span.set("messaging.operation.name", "send");
        span.set("messaging.operation.type", "send");
        for (name, value) in attributes {
            span.set(name, value);
        }
        span.set("messaging.message.id", message.id.hyphenated().to_string());
        span.set("messaging.message.body.size", number(message.body.len() as u64));
        let provider = senders::sender_of(event).provider();
        span.set("cloudevents.event_id", message.id.hyphenated().to_string());
        span.set("cloudevents.event_source", event.source(provider));
        span.set("cloudevents.event_type", event.type_(provider));
        span.set("forebay.route", self.route.clone());
        span.set("forebay.sequence", number(message.sequence));
        span.set("forebay.waited_ms", now_ms().saturating_sub(event.recorded.0).max(0));
        message.trace = Some(span.context());
        self.open.insert(message.sequence, span);
    }

    /// The broker confirmed it.
    pub(super) fn confirmed(&mut self, sequence: u64) {
        if !self.open.is_empty() {
            self.open.remove(&sequence);
        }
    }

    /// The broker, or the sink, refused it.
    pub(super) fn failed(&mut self, sequence: u64, reason: &'static str) {
        if let Some(mut span) = self.open.remove(&sequence) {
            span.fail(reason);
        }
    }

    /// The session is over: what became of these is unknown, and they are sent again.
    pub(super) fn unsettled(&mut self, reason: &'static str) {
        for (_, mut span) in self.open.drain() {
            span.fail(reason);
        }
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
