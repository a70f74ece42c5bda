//! What consumers' own clients read of what was sent: the same ids and keys.

use std::{collections::BTreeMap, time::Duration};

use forebay_event::Time;
use forebay_senders::{EndpointReceiver, HeaderLookup, Secret, UnverifiedRequest, millicast::Millicast};

use crate::{
    cli::{Received, Server},
    support::{
        forebay::{SECRET, Setup, send_command},
        kafka::{self, create_topic},
    },
};

const COUNT: usize = 200;

struct Sent<'a>(&'a BTreeMap<String, String>);

impl HeaderLookup for Sent<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        Some(self.0.get(&name.to_lowercase())?.as_bytes())
    }
}

/// Sends the same webhooks each time.
fn send(url: &str) {
    // Recordings name no account: what they become depends on what came before them.
    let status = send_command(url, &["feeds", "media", "viewerConnection", "transcoder"])
        .args(["--seed", "11", "--count", &COUNT.to_string(), "--streams", "9"])
        .status();
    assert!(status.unwrap().success());
}

/// The id and key that a webhook's event has.
fn id_and_key(webhook: &Received) -> (String, String) {
    let receiver = EndpointReceiver::new(&Millicast, "acme", None, vec![Secret::from_base64(SECRET).unwrap()]);
    let request = UnverifiedRequest {
        headers: &Sent(&webhook.headers),
        body: webhook.body.clone().into(),
        received: Time(0),
    };
    let event = receiver.event(receiver.verify(request).unwrap());
    (event.id.to_string(), event.key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_consumer_reads_the_ids_and_keys_of_what_was_sent() {
    let recorder = Server::answering(&[200]);
    send(&recorder.url());
    let mut expected: Vec<_> = recorder.received().iter().map(id_and_key).collect();
    expected.sort();
    assert_eq!(expected.len(), COUNT);

    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "clients", 4, &[]).await;
    let setup = Setup::new(&brokers, &topic);
    let forebay = setup.start();
    send(&setup.url());
    forebay.wait_until_drained(Duration::from_secs(60));

    let lines = kafka::java("ReadTopic.java", &[&brokers, &topic, &COUNT.to_string()]);
    let mut read: Vec<_> = lines
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let event: serde_json::Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
            assert_eq!(event["partitionkey"], record["key"], "{event}");
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (text(&event["id"]), text(&record["key"]))
        })
        .collect();
    read.sort();
    assert_eq!(read, expected);
}
