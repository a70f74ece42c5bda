//! Whether topics are there, and making those that a sink was told to make.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::Producer as _,
    types::RDKafkaErrorCode as Code,
};
use tokio::task::spawn_blocking;

use super::{failure, oauth::TokenLease, properties::with_secrets, session::SessionProducer};
use crate::failure::KafkaFailure;
use crate::settings::{CreateTopics, TopicTemplate};

const DEADLINE: Duration = Duration::from_secs(10);
/// For one question of a look. Short: a session that ends waits for it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// A topic that was made is looked for until every broker should have heard of it.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
const HEARD_INTERVAL: Duration = Duration::from_millis(100);

pub(super) type TopicAdmin = AdminClient<DefaultClientContext>;

/// An administrative client, with a token for those that need one. Not for an async task.
pub(super) fn admin(client: &ClientConfig, lease: Option<&TokenLease>) -> Option<TopicAdmin> {
    let admin: TopicAdmin = with_secrets(client).ok()?.create().ok()?;
    if let Some(lease) = lease {
        lease.hand_over(admin.inner()).ok()?;
    }
    Some(admin)
}

/// What every administrative request may take.
pub(super) fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(DEADLINE))
        .request_timeout(Some(DEADLINE))
}

/// What the brokers say of a topic.
#[derive(Debug)]
pub(super) enum TopicAnswer {
    There {
        partitions: u32,
    },
    /// It is not there, and nothing that Forebay may do makes it be.
    Absent(KafkaFailure),
    /// It cannot be used, or not be made, until somebody or something helps.
    Unusable(KafkaFailure),
    /// No answer, or one that is about to change.
    Unknown,
}

pub(super) type TopicAnswers = Vec<(Arc<str>, TopicAnswer)>;

/// Asks the brokers about topics, and makes those that are not there.
pub(super) struct TopicLook {
    pub producer: Arc<SessionProducer>,
    /// For an administrative client, where topics are to be made.
    pub client: ClientConfig,
    pub lease: Option<TokenLease>,
    pub creation: Option<TopicCreation>,
}

/// How topics are made, and how many of a route's.
#[derive(Clone)]
pub(super) struct TopicCreation {
    pub how: CreateTopics,
    pub template: TopicTemplate,
}

impl TopicLook {
    /// Looks for all of `topics`; makes those that are not there in one request.
    pub async fn run(self, topics: Vec<Arc<str>>) -> TopicAnswers {
        let mut answers = self.ask(topics).await;
        let Some(creation) = self.creation.clone() else {
            return answers;
        };
        let absent = |answers: &[(Arc<str>, TopicAnswer)]| -> Vec<Arc<str>> {
            let absent = answers
                .iter()
                .filter(|(_, answer)| matches!(answer, TopicAnswer::Absent(_)));
            absent.map(|(topic, _)| topic.clone()).collect()
        };
        let (wanted, excess) = self.within_limit(absent(&answers), &creation).await;
        let mut later = self.create(wanted, creation.how).await;
        let made: Vec<Arc<str>> = later
            .extract_if(.., |(_, answer)| matches!(answer, TopicAnswer::There { .. }))
            .map(|(topic, _)| topic)
            .collect();
        later.extend(self.heard_of(made).await);
        later.extend(excess);
        for (topic, answer) in later {
            if let Some(found) = answers.iter_mut().find(|(known, _)| *known == topic) {
                found.1 = answer;
            }
        }
        answers
    }

    async fn ask(&self, topics: Vec<Arc<str>>) -> TopicAnswers {
        let producer = self.producer.clone();
        let asked = spawn_blocking(move || {
            let mut answers = Vec::with_capacity(topics.len());
            let mut silent = false;
            for topic in topics {
                // A cluster that does not answer is not asked a hundred times.
                let answer = if silent {
                    TopicAnswer::Unknown
                } else {
                    ask(&producer, &topic)
                };
                silent |= matches!(answer, TopicAnswer::Unknown);
                answers.push((topic, answer));
            }
            answers
        });
        asked.await.expect("asking about topics does not panic")
    }

    /// Those of `topics` that may be made, and the answer for the others.
    async fn within_limit(&self, mut topics: Vec<Arc<str>>, creation: &TopicCreation) -> (Vec<Arc<str>>, TopicAnswers) {
        if topics.is_empty() || creation.template.literal().is_some() {
            return (topics, Vec::new());
        }
        let (producer, template) = (self.producer.clone(), creation.template.clone());
        let counted = spawn_blocking(move || {
            let all = producer.client().fetch_metadata(None, ANSWER_DEADLINE).ok()?;
            let of_route = all.topics().iter().filter(|topic| template.fits(topic.name()));
            Some(of_route.count())
        });
        let Some(there) = counted.await.expect("counting topics does not panic") else {
            return (Vec::new(), all(topics, || TopicAnswer::Unknown));
        };
        let topics_max = creation.how.topics_max;
        let room = topics_max.saturating_sub(there);
        let excess = topics.split_off(room.min(topics.len()));
        let excess = excess.into_iter().map(|topic| {
            let failure = failure::too_many_topics(&topic, &creation.template, topics_max);
            (topic, TopicAnswer::Absent(failure))
        });
        (topics, excess.collect())
    }

    /// Makes topics. For one that is there now, made by this or by another, `There`, whatever the number of its
    /// partitions.
    async fn create(&self, topics: Vec<Arc<str>>, how: CreateTopics) -> TopicAnswers {
        if topics.is_empty() {
            return Vec::new();
        }
        let (client, lease) = (self.client.clone(), self.lease.clone());
        let Ok(Some(admin)) = spawn_blocking(move || admin(&client, lease.as_ref())).await else {
            // The session's own producer fails in the same way, and says so.
            return all(topics, || TopicAnswer::Unknown);
        };
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|name| NewTopic::new(name, how.partitions, TopicReplication::Fixed(how.replication)))
            .collect();
        let answers = match admin.create_topics(&new, &admin_options()).await {
            Ok(results) => results
                .into_iter()
                .map(|result| match result {
                    Ok(topic) => {
                        let (partitions, replication) = (how.partitions, how.replication);
                        tracing::info!(topic, partitions, replication, "created a Kafka topic");
                        (topic.into(), TopicAnswer::There { partitions: 0 })
                    }
                    Err((topic, Code::TopicAlreadyExists)) => (topic.into(), TopicAnswer::There { partitions: 0 }),
                    Err((topic, code)) => {
                        tracing::warn!(topic, "failed to create a Kafka topic: {code}");
                        let answer = not_created(&topic, code);
                        (topic.into(), answer)
                    }
                })
                .collect(),
            Err(error) => {
                tracing::warn!("failed to create Kafka topics: {error}");
                all(topics, || TopicAnswer::Unknown)
            }
        };
        // Its destruction joins threads.
        spawn_blocking(move || drop(admin));
        answers
    }

    /// The answers for topics that were made just now, once the brokers have heard of them.
    async fn heard_of(&self, topics: Vec<Arc<str>>) -> TopicAnswers {
        let deadline = tokio::time::Instant::now() + HEARD_WITHIN;
        let mut answers = Vec::new();
        let mut waited_for = topics;
        loop {
            let mut asked = self.ask(waited_for).await;
            answers.extend(asked.extract_if(.., |(_, answer)| matches!(answer, TopicAnswer::There { .. })));
            waited_for = asked.into_iter().map(|(topic, _)| topic).collect();
            if waited_for.is_empty() || tokio::time::Instant::now() >= deadline {
                answers.extend(all(waited_for, || TopicAnswer::Unknown));
                return answers;
            }
            tokio::time::sleep(HEARD_INTERVAL).await;
        }
    }
}

fn all(topics: Vec<Arc<str>>, answer: fn() -> TopicAnswer) -> TopicAnswers {
    topics.into_iter().map(|topic| (topic, answer())).collect()
}

fn ask(producer: &SessionProducer, topic: &str) -> TopicAnswer {
    let Ok(metadata) = producer.client().fetch_metadata(Some(topic), ANSWER_DEADLINE) else {
        return TopicAnswer::Unknown;
    };
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return TopicAnswer::Unknown;
    };
    match found.error().map(Code::from) {
        None if found.partitions().is_empty() => TopicAnswer::Unknown,
        None => TopicAnswer::There {
            partitions: u32::try_from(found.partitions().len()).expect("a count of partitions is an i32"),
        },
        Some(code @ (Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::InvalidTopic)) => {
            TopicAnswer::Absent(failure::of_message(code, topic))
        }
        Some(code @ Code::TopicAuthorizationFailed) => TopicAnswer::Unusable(failure::of_message(code, topic)),
        Some(_) => TopicAnswer::Unknown,
    }
}

/// A topic that the brokers would not make.
fn not_created(topic: &str, code: Code) -> TopicAnswer {
    match code {
        // No other try ends otherwise.
        Code::InvalidTopic | Code::PolicyViolation => TopicAnswer::Absent(failure::not_created(topic, code)),
        _ => TopicAnswer::Unusable(failure::not_created(topic, code)),
    }
}
