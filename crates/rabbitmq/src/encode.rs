//! A message as AMQP has it.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};

use super::routing_key;
use forebay_broker::{Message, SEQUENCE};

/// What the names of a CloudEvent's attributes begin with.
pub(super) const ATTRIBUTE_PREFIX: &str = "cloudEvents:";
const PERSISTENT: u8 = 2;
const CONTENT_TYPE_UNKNOWN: &str = "application/octet-stream";

/// Routing key and properties of a message.
pub(super) fn message(partition: u32, message: &Message) -> (ShortString, BasicProperties) {
    let mut headers = FieldTable::default();
    let mut insert = |name: &str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(text)));
    };
    insert("partitionkey", &message.key);
    message.for_each_header(ATTRIBUTE_PREFIX, insert);
    if routing_key::is_shortened(&message.address) {
        headers.insert("routingkeyshortened".into(), AMQPValue::Boolean(true));
    }
    let content_type = ShortString::try_new(&*message.content_type).unwrap_or_else(|_| CONTENT_TYPE_UNKNOWN.into());
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    let properties = BasicProperties::default()
        .with_content_type(content_type)
        .with_headers(headers)
        .with_delivery_mode(PERSISTENT)
        .with_message_id((&*message.id.hyphenated().encode_lower(&mut id)).into())
        .with_timestamp(u64::try_from(message.time_ms / 1000).unwrap_or(0));
    (routing_key(partition, message).into(), properties)
}

/// `<partition>.<kind>.<event>.<account>.<stream>`, at most 255 bytes.
pub(super) fn routing_key(partition: u32, message: &Message) -> String {
    routing_key::with_partition(partition, &message.address)
}

/// The sequence of a message that came back.
pub(super) fn sequence_of(properties: &BasicProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(SEQUENCE)? {
        AMQPValue::LongString(digits) => std::str::from_utf8(digits.as_bytes()).ok()?.parse().ok(),
        _ => None,
    }
}

/// At most what stands beside the body takes on the wire.
pub(super) fn head_bytes(message: &Message) -> usize {
    // The fixed names, lengths and types, with room to spare.
    const FIXED: usize = 1024;
    let attributes = message
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.len() + 32);
    FIXED + message.key.len() + message.replica.len() + attributes.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn sample(address: &str) -> Message {
        Message {
            sequence: 42,
            replica: Arc::from("forebay-0"),
            id: Uuid::from_u128(7),
            address: address.into(),
            key: "A/cam".into(),
            content_type: "image/jpeg".into(),
            attributes: vec![("id", "7".into())],
            body: Bytes::from_static(b"body"),
            time_ms: 1_638_463_486_359,
            trace: None,
            again: None,
        }
    }

    #[test]
    fn a_message_has_the_properties_and_headers_that_are_promised() {
        let (key, properties) = message(3, &sample("feeds.started.A.cam"));
        assert_eq!(key.as_str(), "03.feeds.started.A.cam");
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "image/jpeg");
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert_eq!(
            properties.message_id().as_ref().unwrap().as_str(),
            Uuid::from_u128(7).to_string()
        );
        assert_eq!(properties.timestamp(), &Some(1_638_463_486));
        let headers = properties.headers().as_ref().unwrap();
        let text = |name: &str| {
            headers.inner().get(name).map(|value| match value {
                AMQPValue::LongString(text) => text.to_string(),
                other => panic!("{name}: {other:?}"),
            })
        };
        assert_eq!(text("sequence").unwrap(), "00000000000000000042");
        assert_eq!(text("replica").unwrap(), "forebay-0");
        assert_eq!(text("partitionkey").unwrap(), "A/cam");
        assert_eq!(text("cloudEvents:id").unwrap(), "7");
        assert_eq!(headers.inner().len(), 4, "{headers:?}");
        assert_eq!(sequence_of(&properties), Some(42));
    }

    #[test]
    fn a_shortened_routing_key_is_said_to_be_one() {
        let words = routing_key::words("feeds", Some("started"), Some("A"), &"x".repeat(300));
        let (key, properties) = message(999, &sample(&words));
        assert_eq!(key.as_str().len(), routing_key::BYTES_MAX);
        let headers = properties.headers().as_ref().unwrap();
        assert_eq!(
            headers.inner().get("routingkeyshortened"),
            Some(&AMQPValue::Boolean(true))
        );
    }

    #[test]
    fn the_bytes_beside_the_body_are_not_underestimated() {
        let mut long = sample("feeds.started.A.cam");
        long.key = "k".repeat(100_000);
        let (_, properties) = message(3, &long);
        let wire: usize = properties
            .headers()
            .as_ref()
            .unwrap()
            .inner()
            .iter()
            .map(|(name, value)| {
                let bytes = match value {
                    AMQPValue::LongString(text) => text.len(),
                    _ => 1,
                };
                name.as_str().len() + bytes + 6
            })
            .sum();
        assert!(head_bytes(&long) > wire + 400);
    }
}
