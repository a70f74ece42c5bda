//! What the streams are, as one knows who saw each event once, and in the order in which they happened.

use std::collections::{BTreeMap, HashSet};

use forebay_consumer::{StreamEvent, Streams};
use serde_json::Value;

use super::census::Delivered;

/// The state of every stream, by its key, from all messages of a broker. Those that are not structured events count for
/// nothing.
pub fn states(messages: &[impl Delivered]) -> BTreeMap<String, Value> {
    let mut events: Vec<StreamEvent> = messages
        .iter()
        .filter_map(|message| StreamEvent::from_structured(message.body()).ok())
        .collect();
    let mut seen = HashSet::new();
    events.retain(|event| seen.insert((event.key.clone(), event.id.clone())));
    events.sort_by(|one, other| (one.time, &one.id).cmp(&(other.time, &other.id)));
    let mut streams = Streams::default();
    for event in &events {
        streams.apply(event);
    }
    let state = |stream| serde_json::to_value(stream).expect("a state is JSON");
    streams
        .iter()
        .map(|(key, stream)| (key.to_owned(), state(stream)))
        .collect()
}
