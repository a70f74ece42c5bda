//! What was learned of the sizes that topics take.
//!
//! A topic's `max.message.bytes` is for a batch as it is sent, compressed. A batch that was too large costs a session;
//! what could be too large again is sent alone from then on, by a producer of its own, whose refusal costs nothing
//! else.
//!
//! A topic that takes less than what a body can become is named when it is found, before anything is refused.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
};

use parking_lot::Mutex;
use rdkafka::{ClientConfig, admin::ResourceSpecifier};
use tokio::task::spawn_blocking;

use super::{
    BATCH_BYTES, KafkaNames, message_bytes_max,
    oauth::TokenLease,
    topics::{admin, admin_options},
};
use forebay_broker::Message;

/// What a batch has beside its one record, and the record beside key, value and headers, at most.
const BATCH_BYTES_EXTRA: usize = 128;
/// The same of a header.
const HEADER_BYTES_EXTRA: usize = 16;
/// Of the headers that every message has.
const HEADERS_BYTES: usize = 256;
/// So many topics of a route are asked for their limits when they are found: a template can have any number of them.
const TOPICS_ASKED_MAX: usize = 100;

/// The limits of topics that have refused something.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicSizes {
    topics: HashMap<Arc<str>, SizeLimit>,
    /// Topics to be asked for their limit.
    unasked: Vec<Arc<str>>,
}

#[derive(Debug, Clone, Copy)]
struct SizeLimit {
    /// A message that is larger, uncompressed, may be refused.
    message_bytes: usize,
    /// A batch of several that is larger may be.
    batch_bytes: usize,
}

impl TopicSizes {
    /// A topic refused a message of `bytes`, alone or among others in its batch.
    pub fn refused(&mut self, topic: &str, bytes: usize, alone: bool, client: &ClientConfig) {
        let topic: Arc<str> = topic.into();
        let batch_bytes = self.batch_bytes(client);
        let given = SizeLimit {
            message_bytes: usize::MAX,
            batch_bytes,
        };
        // Until the topic has been asked: as far as it is known to refuse.
        let limit = self.topics.entry(topic.clone()).or_insert(given);
        if alone {
            limit.message_bytes = limit.message_bytes.min(bytes);
        } else {
            limit.batch_bytes = (batch_bytes / 4).max(1);
            limit.message_bytes = limit.message_bytes.min(limit.batch_bytes);
        }
        self.unasked.push(topic);
    }

    /// Whether a message may be too large for its topic.
    pub fn suspects(&self, message: &Message) -> bool {
        let limit = self.topics.get(&message.address);
        limit.is_some_and(|limit| bytes(message) > limit.message_bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// What every topic takes as a batch, as far as is known.
    pub fn batch_bytes(&self, client: &ClientConfig) -> usize {
        let given = client.get("batch.size").and_then(|bytes| bytes.parse().ok());
        let limits = self.topics.values().map(|limit| limit.batch_bytes);
        limits
            .chain([given.unwrap_or(BATCH_BYTES)])
            .min()
            .unwrap_or(BATCH_BYTES)
    }

    /// Asks the topics that have refused something what they take. Of one that does not say, what was learned by the
    /// refusal stays.
    pub async fn ask(&mut self, client: &ClientConfig, lease: Option<&TokenLease>) {
        let topics = mem::take(&mut self.unasked);
        if topics.is_empty() {
            return;
        }
        for (topic, taken) in asked(&topics, client, lease).await.unwrap_or_default() {
            let limit = SizeLimit {
                message_bytes: taken,
                batch_bytes: taken,
            };
            self.topics.insert(topic, limit);
        }
    }
}

/// What topics take as a batch (`max.message.bytes`), for those that the brokers say it of. `None`: no answer.
async fn asked(
    topics: &[Arc<str>],
    client: &ClientConfig,
    lease: Option<&TokenLease>,
) -> Option<Vec<(Arc<str>, usize)>> {
    let (client, lease) = (client.clone(), lease.cloned());
    let admin = spawn_blocking(move || admin(&client, lease.as_ref())).await.ok()??;
    let wanted: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let answers = admin.describe_configs(&wanted, &admin_options()).await;
    // Its destruction joins threads.
    spawn_blocking(move || drop(admin));
    let taken = topics.iter().zip(answers.ok()?).filter_map(|(topic, settings)| {
        let taken = settings.ok()?.get("max.message.bytes")?.value.as_ref()?.parse().ok()?;
        Some((topic.clone(), taken))
    });
    Some(taken.collect())
}

/// The topics of a route that were asked what they take. Each is asked once, however many sessions there are.
#[derive(Clone, Default)]
pub(super) struct AskedTopics(Arc<Mutex<HashSet<Arc<str>>>>);

impl AskedTopics {
    /// Asks those of `topics` that were not asked before, beside everything else, and logs which of them take less than
    /// a body of `body_bytes_max` can become.
    pub fn ask(
        &self,
        topics: Vec<Arc<str>>,
        names: KafkaNames,
        client: ClientConfig,
        lease: Option<TokenLease>,
        body_bytes_max: u64,
    ) {
        let mut known = self.0.lock();
        let new = |topic: &Arc<str>| known.len() < TOPICS_ASKED_MAX && known.insert(topic.clone());
        let topics: Vec<Arc<str>> = topics.into_iter().filter(new).collect();
        drop(known);
        if topics.is_empty() {
            return;
        }
        let known = self.clone();
        tokio::spawn(async move {
            let Some(answers) = asked(&topics, &client, lease.as_ref()).await else {
                // The next session asks again.
                known.0.lock().retain(|topic| !topics.contains(topic));
                return;
            };
            for (topic, taken) in answers {
                if let Some(text) = too_small(&topic, taken as u64, body_bytes_max) {
                    tracing::warn!(sink = %names.sink, route = %names.route, "{text}");
                }
            }
        });
    }
}

/// Why a topic that takes `taken` bytes does not take everything that is accepted.
pub(super) fn too_small(topic: &str, taken: u64, body_bytes_max: u64) -> Option<String> {
    let needed = message_bytes_max(body_bytes_max);
    (taken < needed).then(|| {
        format!(
            "topic '{topic}' takes messages of {taken} bytes, and a body of server.body_bytes_max ({body_bytes_max}) can become \
             {needed}: larger ones become dead letters; raise its max.message.bytes or lower body_bytes_max"
        )
    })
}

/// At most so many bytes is a batch of this message alone, uncompressed.
pub(super) fn bytes(message: &Message) -> usize {
    let attributes = message
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.len() + HEADER_BYTES_EXTRA);
    let headers = HEADERS_BYTES + message.replica.len() + message.content_type.len() + attributes.sum::<usize>();
    BATCH_BYTES_EXTRA + message.key.len() + message.body.len() + headers
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn message(bytes: usize) -> Message {
        Message {
            sequence: 1,
            replica: "forebay-0".into(),
            id: Uuid::nil(),
            address: "events".into(),
            key: "ZG6NWV/a".into(),
            content_type: "application/json".into(),
            attributes: Vec::new(),
            body: Bytes::from(vec![b'x'; bytes]),
            time_ms: 0,
            trace: None,
            again: None,
        }
    }

    #[test]
    fn what_was_refused_alone_and_what_is_larger_may_be_refused_again() {
        let client = ClientConfig::new();
        let mut sizes = TopicSizes::default();
        assert!(!sizes.suspects(&message(1 << 20)));
        sizes.refused("events", 50_000, true, &client);
        assert!(sizes.suspects(&message(50_000)) && !sizes.suspects(&message(40_000)));
        assert_eq!(sizes.batch_bytes(&client), BATCH_BYTES, "it was not its batch");
        sizes.refused("others", 10, true, &client);
        assert!(!sizes.suspects(&message(40_000)), "of another topic");
    }

    #[test]
    fn batches_become_smaller_until_one_is_taken_and_what_does_not_fit_into_one_goes_alone() {
        let mut client = ClientConfig::new();
        client.set("batch.size", "80000");
        let mut sizes = TopicSizes::default();
        sizes.refused("events", 900, false, &client);
        assert_eq!(sizes.batch_bytes(&client), 20_000);
        assert!(sizes.suspects(&message(20_000)) && !sizes.suspects(&message(10_000)));
        sizes.refused("events", 900, false, &client);
        assert_eq!(sizes.batch_bytes(&client), 5_000);
        assert!(sizes.suspects(&message(10_000)));
        for _ in 0..20 {
            sizes.refused("events", 900, false, &client);
        }
        assert_eq!(sizes.batch_bytes(&client), 1, "each message is a batch");
    }
}
