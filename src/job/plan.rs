//! What a route does with one event: whether it wants it, to which topic it goes, how it is rendered.

use std::sync::Arc;

use crate::{
    config::{self, EventMatch, TemplatePart, TopicTemplate},
    event::{
        Event, EventInterest,
        render::{EventStamp, RenderMode, render},
    },
    senders::{self, RoutePayload},
    sink::{Message, rabbitmq::routing_key},
    spool::WantedRecords,
};

/// A topic's name is at most this long in Kafka.
const TOPIC_BYTES_MAX: usize = 249;

/// Whether a route wants a record.
pub(super) fn wants(matches: &EventMatch, record: &[u8]) -> bool {
    accepts(matches, Event::interest(record).ok())
}

/// Whether a route wants a record of which this was read. One that cannot be read becomes a dead letter of every route.
pub(super) fn accepts(matches: &EventMatch, interest: Option<EventInterest<'_>>) -> bool {
    interest.is_none_or(|interest| matches.accepts(interest.kind, interest.endpoint))
}

/// A route's rules.
#[derive(Debug)]
pub(super) struct RoutePlan {
    replica: Arc<str>,
    matches: EventMatch,
    destination: RouteDestination,
    mode: RenderMode,
    payload: RoutePayload,
}

#[derive(Debug)]
enum RouteDestination {
    Topic(Arc<str>),
    TopicPerEvent(TopicTemplate),
    RoutingKey,
    /// The route has no sink.
    None,
}

impl RoutePlan {
    pub(super) fn new(route: &config::RouteConfig, replica: Arc<str>) -> Self {
        Self {
            replica,
            matches: route.matches.clone(),
            destination: match &route.topic {
                None if route.sink.is_empty() => RouteDestination::None,
                None => RouteDestination::RoutingKey,
                Some(topic) => match topic.literal() {
                    Some(topic) => RouteDestination::Topic(topic.into()),
                    None => RouteDestination::TopicPerEvent(topic.clone()),
                },
            },
            mode: route.mode,
            payload: route.payload,
        }
    }

    /// For a reader of the log.
    pub(super) fn wanted(&self) -> WantedRecords {
        let matches = self.matches.clone();
        Arc::new(move |record| wants(&matches, record))
    }

    pub(super) fn matches(&self) -> &EventMatch {
        &self.matches
    }

    /// Whether what the route wants is to be kept among its dead letters, and nowhere else.
    pub(super) fn has_no_sink(&self) -> bool {
        matches!(self.destination, RouteDestination::None)
    }

    /// Renders the event as this route's message.
    pub(super) fn message(&self, event: &Event, sequence: u64, destination: Arc<str>) -> Message {
        let stamp = EventStamp {
            provider: senders::of(event).provider(),
            sequence,
            replica: &self.replica,
        };
        let rendered = render(event, stamp, self.mode, senders::data(event, self.payload));
        Message {
            sequence,
            replica: self.replica.clone(),
            id: event.id,
            destination,
            key: event.key.clone(),
            content_type: rendered.content_type,
            attributes: rendered.attributes,
            body: rendered.body,
            time_ms: event.time.0,
            trace: event.trace,
        }
    }

    /// Which topic it goes to, or the routing key behind the partition.
    pub(super) fn destination(&self, event: &Event) -> Arc<str> {
        match &self.destination {
            RouteDestination::Topic(name) => name.clone(),
            RouteDestination::TopicPerEvent(template) => expand(template, event).into(),
            RouteDestination::RoutingKey | RouteDestination::None => {
                let stream = event.stream_name.as_deref().unwrap_or(&event.key);
                routing_key::words(&event.kind, event.name.as_deref(), event.account.as_deref(), stream).into()
            }
        }
    }
}

/// Fills in a template. Characters that a topic cannot hold become `_` and two hexadecimal digits for each byte.
fn expand(template: &TopicTemplate, event: &Event) -> String {
    let mut topic = String::new();
    for part in &template.parts {
        let word = match part {
            TemplatePart::Literal(text) => text,
            TemplatePart::Provider => senders::of(event).provider().name,
            TemplatePart::Endpoint => &event.endpoint,
            TemplatePart::Account => event.account.as_deref().unwrap_or("unknown"),
            TemplatePart::Kind => &event.kind,
            TemplatePart::Event => event.name.as_deref().unwrap_or("none"),
        };
        topic.push_str(&TopicTemplate::word(word));
    }
    topic.truncate(TOPIC_BYTES_MAX);
    topic
}
