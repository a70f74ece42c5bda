//! What a service acts on.

use serde::{Deserialize, Serialize};

use super::{TranscoderStatus, ViewersStatus};

/// A change of what is true of a stream, the `partitionkey` of which is the `key`.
///
/// As JSON: `{"type":"FeedStarted","key":"ZG6NWV/sample_stream","feed":"369e4a86-…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum Transition {
    /// The first of the stream's feeds is open: it can be watched. After this comes `WentOffline`.
    WentLive {
        key: String,
    },
    /// None of the stream's feeds is open any more. After this comes `WentLive`.
    WentOffline {
        key: String,
    },
    /// An encoder publishes. Once for a feed, and never after `FeedEnded`.
    FeedStarted {
        key: String,
        feed: String,
    },
    /// An encoder stopped. Once for a feed, also where its start was not seen before.
    FeedEnded {
        key: String,
        feed: String,
    },
    RecordingStarted {
        key: String,
        recording: String,
    },
    RecordingFailed {
        key: String,
        recording: String,
    },
    RecordingCompleted {
        key: String,
        recording: String,
    },
    RecordingDeleted {
        key: String,
        recording: String,
    },
    MediaProcessing {
        key: String,
        media: String,
    },
    MediaFailed {
        key: String,
        media: String,
    },
    MediaCompleted {
        key: String,
        media: String,
    },
    MediaDeleted {
        key: String,
        media: String,
    },
    /// The newest status of a transcoder is another one than before.
    TranscoderChanged {
        key: String,
        transcoder: String,
        status: TranscoderStatus,
    },
    /// The newest status of the stream's viewers is another one than before.
    ViewersChanged {
        key: String,
        status: ViewersStatus,
    },
}

impl Transition {
    /// The stream that it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::WentLive { key }
            | Self::WentOffline { key }
            | Self::FeedStarted { key, .. }
            | Self::FeedEnded { key, .. }
            | Self::RecordingStarted { key, .. }
            | Self::RecordingFailed { key, .. }
            | Self::RecordingCompleted { key, .. }
            | Self::RecordingDeleted { key, .. }
            | Self::MediaProcessing { key, .. }
            | Self::MediaFailed { key, .. }
            | Self::MediaCompleted { key, .. }
            | Self::MediaDeleted { key, .. }
            | Self::TranscoderChanged { key, .. }
            | Self::ViewersChanged { key, .. } => key,
        }
    }
}
