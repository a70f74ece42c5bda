//! For consumers: what is true of a stream, whatever order its events come in.
//!
//! The sender may deliver `ended` before `started`, a broker delivers at least once, and two replicas of Forebay
//! interleave. So a consumer must not act on "the last event". It keeps a [`Stream`] for each `partitionkey`: a *join*,
//! to which any events may be applied in any order, any number of times, and which comes out the same. What changes is
//! told as [`Transition`]s, each once, live and offline in turn.
//!
//! ```
//! use forebay_consumer::{StreamEvent, Streams, Transition};
//!
//! # fn main() -> Result<(), forebay_consumer::ParseError> {
//! let mut streams = Streams::default();
//! let message = br#"{"specversion": "1.0", "id": "a92844e7", "type": "com.millicast.feeds.started",
//!     "partitionkey": "ZG6NWV/sample_stream", "time": "2021-12-02T16:44:46.359Z", "feedid": "369e4a86", "data": {}}"#;
//! for transition in streams.apply(&StreamEvent::from_structured(message)?) {
//!     if let Transition::WentLive { key } = transition {
//!         assert_eq!(key, "ZG6NWV/sample_stream");
//!     }
//! }
//! assert!(streams.get("ZG6NWV/sample_stream").is_some_and(|stream| stream.is_live()));
//! // The same message once more changes nothing.
//! assert!(streams.apply(&StreamEvent::from_structured(message)?).is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # The rules
//!
//! - **Feeds.** A feed is open when it was seen `started` and not seen `ended`. A feed that ended never starts again,
//!   so one that is seen `ended` first is never open. A stream is live while any of its feeds is open.
//! - **Recordings and media** go through their phases one way; what comes late changes nothing.
//! - **Transcoders and viewers** are as the event with the greatest time says; of equal times, the one with the
//!   greatest id.
//!
//! # What is left to the caller
//!
//! There is no IO, no clock and no framework here: times are passed in, and state is `serde`, so that it can live in
//! PostgreSQL, Redis or a Kafka state store. Store the state before you commit the offset or acknowledge the message,
//! and act on the transitions after that; what is repeated after a crash changes nothing. Events must carry normalised
//! data (`payload = "normalized"`, the default of a route): recordings, media and transcoders are named there.
//!
//! `docs/ordering.md` is the guide to all this; `docs/ordering/vectors.json` has the same rules as inputs and results,
//! for implementations in other languages.

mod dedupe;
mod feeds;
mod input;
mod latest;
mod phase;
mod reorder;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod transition;

pub use forebay_event::Time;

pub use self::{
    dedupe::Dedupe,
    feeds::Feed,
    input::{Change, ParseError, StreamEvent},
    latest::{Latest, TranscoderStatus, ViewersStatus},
    phase::{MediaPhase, Progress, RecordingPhase},
    reorder::{Released, Reorder},
    stream::Stream,
    streams::Streams,
    transition::Transition,
};

/// Compiles and runs what the guide has in Rust.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/ordering.md")]
mod guide {}

/// The same of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// A time in the state: RFC 3339, in UTC, with milliseconds.
mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use forebay_event::Time;

    pub fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        Time::from_rfc3339(&text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is not an RFC 3339 time")))
    }

    pub mod option {
        use serde::{Deserialize, Deserializer, Serializer};

        use forebay_event::Time;

        pub fn serialize<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
            #[derive(Deserialize)]
            struct Text(#[serde(with = "super")] Time);
            Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(time)| time))
        }
    }
}
