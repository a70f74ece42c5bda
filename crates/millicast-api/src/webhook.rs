//! A webhook as the API has it, and what can be asked for.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// A webhook of the account.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    pub id: u64,
    /// Where its events go.
    #[serde(default)]
    pub url: String,
    /// What its events are signed with.
    pub secret: Option<WebhookSecret>,
    /// Feeds that start and end.
    #[serde(default)]
    pub is_feed_hooks: bool,
    /// Recordings that start, fail, are complete, are deleted. The provider says: use [`Self::is_media_hooks`].
    #[serde(default)]
    pub is_recording_hooks: bool,
    /// Pictures of streams.
    #[serde(default)]
    pub is_thumbnail_hooks: bool,
    /// Changes of transcoders.
    #[serde(default)]
    pub is_transcoder_hooks: bool,
    /// Media assets that are processed, complete, failed, deleted.
    #[serde(default)]
    pub is_media_hooks: bool,
    /// What matters of viewers.
    #[serde(default)]
    pub is_viewer_connection_hooks: bool,
    /// A regular expression: events of the streams and transcoders with such names alone. Newer than the description.
    pub filter: Option<String>,
    /// It is disabled for a while, because too many of its events timed out.
    pub disabled: Option<WebhookDisabled>,
    /// What the API says of it beside that.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Webhook {
    /// Whether it sends events of this type.
    pub fn sends(&self, webhook_type: WebhookType) -> bool {
        match webhook_type {
            WebhookType::Feeds => self.is_feed_hooks,
            WebhookType::Recordings => self.is_recording_hooks,
            WebhookType::Thumbnail => self.is_thumbnail_hooks,
            WebhookType::Transcoder => self.is_transcoder_hooks,
            WebhookType::Media => self.is_media_hooks,
            WebhookType::ViewerConnection => self.is_viewer_connection_hooks,
        }
    }
}

/// For how long a webhook is disabled, and why.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct WebhookDisabled {
    /// RFC 3339, as the API has it.
    pub until: Option<String>,
    pub reason: Option<String>,
}

/// A webhook's secret in base64, as the API gives it. Shows itself only where it is asked to.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct WebhookSecret(String);

impl WebhookSecret {
    /// The secret, for whoever may see it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// What a webhook is to send: on, off, or not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WebhookKinds {
    #[serde(rename = "isFeedHooks", skip_serializing_if = "Option::is_none")]
    pub feeds: Option<bool>,
    #[serde(rename = "isRecordingHooks", skip_serializing_if = "Option::is_none")]
    pub recordings: Option<bool>,
    #[serde(rename = "isThumbnailHooks", skip_serializing_if = "Option::is_none")]
    pub thumbnails: Option<bool>,
    #[serde(rename = "isTranscoderHooks", skip_serializing_if = "Option::is_none")]
    pub transcoder: Option<bool>,
    #[serde(rename = "isMediaHooks", skip_serializing_if = "Option::is_none")]
    pub media: Option<bool>,
    #[serde(rename = "isViewerConnectionHooks", skip_serializing_if = "Option::is_none")]
    pub viewer_connection: Option<bool>,
}

impl WebhookKinds {
    /// Whether none is on.
    pub fn has_none(&self) -> bool {
        let kinds = [
            self.feeds,
            self.recordings,
            self.thumbnails,
            self.transcoder,
            self.media,
            self.viewer_connection,
        ];
        !kinds.contains(&Some(true))
    }
}

/// A webhook that is to be made. What is not said is as the API has it by default: off.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewWebhook {
    url: String,
    #[serde(flatten)]
    kinds: WebhookKinds,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
}

impl NewWebhook {
    /// `filter`: 1 to 128 characters. Newer than the description.
    pub fn new(url: String, kinds: WebhookKinds, filter: Option<String>) -> Self {
        let kinds = WebhookKinds {
            // The API requires this one.
            feeds: Some(kinds.feeds.unwrap_or(false)),
            ..kinds
        };
        Self { url, kinds, filter }
    }
}

/// What is to change of a webhook. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookChange {
    /// Another URL also lifts a disable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Makes a new secret. What is sent from then on is signed with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_secret: Option<bool>,
    #[serde(flatten)]
    pub kinds: WebhookKinds,
    /// Newer than the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterChange>,
    /// Lifts a disable at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub re_enable: Option<bool>,
}

impl WebhookChange {
    /// Whether making it twice comes to the same as making it once.
    pub fn is_idempotent(&self) -> bool {
        self.refresh_secret != Some(true)
    }
}

/// What a filter becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterChange {
    /// There is none any more.
    Clear,
    /// 1 to 128 characters.
    Set(String),
}

impl Serialize for FilterChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Clear => serializer.serialize_none(),
            Self::Set(filter) => serializer.serialize_str(filter),
        }
    }
}

/// What a webhook can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookType {
    Feeds,
    Recordings,
    Thumbnail,
    Transcoder,
    Media,
    ViewerConnection,
}

impl WebhookType {
    pub const ALL: [Self; 6] = [
        Self::Feeds,
        Self::Recordings,
        Self::Thumbnail,
        Self::Transcoder,
        Self::Media,
        Self::ViewerConnection,
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Feeds => "Feeds",
            Self::Recordings => "Recordings",
            Self::Thumbnail => "Thumbnail",
            Self::Transcoder => "Transcoder",
            Self::Media => "Media",
            Self::ViewerConnection => "ViewerConnection",
        }
    }
}

/// What a test event says that it is about. Newer than the description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestSubject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcoder_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhook_is_read_whole_and_what_is_missing_is_as_by_default() {
        let webhook: Webhook = serde_json::from_value(json!({ "id": 7, "isMediaHooks": true, "later": 1 })).unwrap();
        let sent: Vec<_> = WebhookType::ALL
            .into_iter()
            .filter(|sent| webhook.sends(*sent))
            .collect();
        assert_eq!(sent, [WebhookType::Media]);
        assert!(webhook.secret.is_none() && webhook.filter.is_none() && webhook.disabled.is_none());
        assert_eq!(webhook.more["later"], 1);
        let disabled = json!({ "id": 7, "secret": "hidden=", "disabled": { "until": null, "reason": "r" } });
        let webhook: Webhook = serde_json::from_value(disabled).unwrap();
        assert_eq!(webhook.secret.as_ref().unwrap().reveal(), "hidden=");
        assert_eq!(webhook.disabled.as_ref().unwrap().reason.as_deref(), Some("r"));
        assert!(!format!("{webhook:?}").contains("hidden"));
        assert!(
            serde_json::from_value::<Webhook>(json!({ "url": "https://a" })).is_err(),
            "no id"
        );
    }

    #[test]
    fn what_is_not_said_is_not_sent() {
        let kinds = WebhookKinds {
            thumbnails: Some(true),
            ..WebhookKinds::default()
        };
        assert!(!kinds.has_none() && WebhookKinds::default().has_none());
        let new = NewWebhook::new("https://a".to_owned(), kinds, None);
        let sent = json!({ "url": "https://a", "isFeedHooks": false, "isThumbnailHooks": true });
        assert_eq!(serde_json::to_value(&new).unwrap(), sent);
        let change = |filter| WebhookChange {
            filter,
            ..WebhookChange::default()
        };
        assert_eq!(serde_json::to_value(change(None)).unwrap(), json!({}));
        let clear = serde_json::to_value(change(Some(FilterChange::Clear))).unwrap();
        assert_eq!(clear, json!({ "filter": null }));
        let set = serde_json::to_value(change(Some(FilterChange::Set("^a".to_owned())))).unwrap();
        assert_eq!(set, json!({ "filter": "^a" }));
        assert_eq!(serde_json::to_value(TestSubject::default()).unwrap(), json!({}));
    }
}
