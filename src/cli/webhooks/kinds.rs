//! The kinds of events that a webhook sends, as flags, arguments and in tables.

use clap::{Args, ValueEnum};

use crate::millicast_api::{Webhook, WebhookKinds, WebhookType};

/// What a webhook sends. `--feeds` turns it on, `--feeds=false` off.
#[derive(Args)]
pub struct KindFlags {
    /// Feeds that start and end
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub feeds: Option<bool>,
    /// Recordings; the provider says: use --media
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub recordings: Option<bool>,
    /// Pictures of streams
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub thumbnails: Option<bool>,
    /// Changes of transcoders
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub transcoder: Option<bool>,
    /// Recordings and clips that are processed, complete, failed, deleted
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub media: Option<bool>,
    /// Viewers: the first comes, the last is gone, one waits
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub viewer_connection: Option<bool>,
}

impl KindFlags {
    /// What is said of each.
    pub fn kinds(&self) -> WebhookKinds {
        WebhookKinds {
            feeds: self.feeds,
            recordings: self.recordings,
            thumbnails: self.thumbnails,
            transcoder: self.transcoder,
            media: self.media,
            viewer_connection: self.viewer_connection,
        }
    }
}

/// A kind by the name of its flag, or the API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WebhookKind {
    Feeds,
    Recordings,
    #[value(alias = "thumbnail")]
    Thumbnails,
    Transcoder,
    Media,
    #[value(alias = "viewerConnection")]
    ViewerConnection,
}

impl WebhookKind {
    /// What the API calls it.
    pub fn webhook_type(self) -> WebhookType {
        match self {
            Self::Feeds => WebhookType::Feeds,
            Self::Recordings => WebhookType::Recordings,
            Self::Thumbnails => WebhookType::Thumbnail,
            Self::Transcoder => WebhookType::Transcoder,
            Self::Media => WebhookType::Media,
            Self::ViewerConnection => WebhookType::ViewerConnection,
        }
    }

    /// What its flag is called.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is left out");
        value.get_name().to_owned()
    }
}

/// The kinds that a webhook sends, by the names of their flags.
pub fn sent_by(webhook: &Webhook) -> String {
    let kinds = WebhookKind::value_variants().iter();
    let sent = kinds.filter(|kind| webhook.sends(kind.webhook_type()));
    sent.map(|kind| kind.name()).collect::<Vec<_>>().join(",")
}
