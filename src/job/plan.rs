//! What a route does with one event: whether it wants it, to which address it goes, how it is rendered.

use std::sync::Arc;

use crate::{
    config::{self, EventMatch},
    event::{
        Event, EventInterest,
        render::{EventStamp, RenderMode, render},
    },
    senders::{self, RoutePayload},
    sink::{Message, PublishedAgain, RouteAddress},
    spool::WantedRecords,
};

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
    /// `None`: the route has no sink.
    address: Option<RouteAddress>,
    mode: RenderMode,
    payload: RoutePayload,
}

impl RoutePlan {
    pub(super) fn new(route: &config::RouteConfig, replica: Arc<str>) -> Self {
        Self {
            replica,
            matches: route.matches.clone(),
            address: route.address.clone(),
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
        self.address.is_none()
    }

    /// Renders the event as this route's message.
    pub(super) fn message(
        &self,
        event: &Event,
        sequence: u64,
        again: Option<PublishedAgain>,
        address: Arc<str>,
    ) -> Message {
        let stamp = EventStamp {
            provider: senders::sender_of(event).provider(),
            sequence: again.map_or(sequence, |again| again.sequence),
            replica: &self.replica,
            again: again.map(|again| again.why),
        };
        let rendered = render(event, stamp, self.mode, senders::data(event, self.payload));
        Message {
            sequence,
            replica: self.replica.clone(),
            id: event.id,
            address,
            key: event.key.clone(),
            content_type: rendered.content_type,
            attributes: rendered.attributes,
            body: rendered.body,
            time_ms: event.time.0,
            trace: event.trace,
            again,
        }
    }

    /// Where the event's message goes, in the words of the route's broker; nowhere where the route has no sink.
    pub(super) fn address(&self, event: &Event) -> Arc<str> {
        let address = self.address.as_ref();
        address.map_or_else(Arc::default, |address| {
            address.address_of(event, senders::sender_of(event).provider())
        })
    }
}
