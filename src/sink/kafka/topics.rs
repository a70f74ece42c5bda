//! Creating the topics that a sink was told to create.

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode as Code,
};
use tokio::task::spawn_blocking;

use super::oauth::Lease;
use crate::config::CreateTopics;

const DEADLINE: Duration = Duration::from_secs(10);

pub(super) type Admin = AdminClient<DefaultClientContext>;

/// An administrative client, with a token for those that need one. Not for an async task.
pub(super) fn admin(client: &ClientConfig, lease: Option<&Lease>) -> Option<Admin> {
    let admin: Admin = client.create().ok()?;
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

/// Creates those of `wanted` that do not exist, and takes those that exist now off it. The others stay, each with a log line.
pub(super) async fn create(
    client: &ClientConfig,
    lease: Option<&Lease>,
    how: CreateTopics,
    wanted: &mut BTreeSet<String>,
) {
    let (client, lease) = (client.clone(), lease.cloned());
    let Ok(Some(admin)) = spawn_blocking(move || admin(&client, lease.as_ref())).await else {
        // The session's own producer fails in the same way, and says so.
        return;
    };
    let names: Vec<String> = wanted.iter().cloned().collect();
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| NewTopic::new(name, how.partitions, TopicReplication::Fixed(how.replication)))
        .collect();
    match admin.create_topics(&topics, &admin_options()).await {
        Ok(results) => {
            for result in results {
                match result {
                    Ok(topic) => {
                        let CreateTopics {
                            partitions,
                            replication,
                        } = how;
                        tracing::info!(topic, partitions, replication, "created a Kafka topic");
                        wanted.remove(&topic);
                    }
                    Err((topic, Code::TopicAlreadyExists)) => {
                        wanted.remove(&topic);
                    }
                    Err((topic, code)) => tracing::warn!(topic, "failed to create a Kafka topic: {code}"),
                }
            }
        }
        Err(error) => tracing::warn!("failed to create Kafka topics: {error}"),
    }
    // Its destruction joins threads.
    spawn_blocking(move || drop(admin));
}
