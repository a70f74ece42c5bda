//! The definitions of the events as AsyncAPI has schemas: what all events have in common once, and of each kind what it
//! adds.

use serde_json::{Map, Value, json};

use crate::schemas::definitions;

/// The members of an event that are no attribute.
const DATA: [&str; 2] = ["data", "data_base64"];

/// `components.schemas`.
pub fn components() -> Map<String, Value> {
    let schemas = definitions::schemas();
    let attributes = attributes(of("event", &schemas));
    let mut components = Map::new();
    for (kind, schema) in &schemas {
        // A picture is no structured event: its attributes are headers.
        if *kind != "thumbnail" {
            components.insert((*kind).to_owned(), added(schema, &attributes));
        }
    }
    let pictures = of("thumbnail", &schemas);
    components.insert("recordHeaders".into(), headers(&[], None));
    components.insert("messageHeaders".into(), headers(&["partitionkey"], None));
    components.insert("pictureRecordHeaders".into(), headers(&[], Some(("ce_", pictures))));
    components.insert(
        "pictureMessageHeaders".into(),
        headers(&["partitionkey"], Some(("cloudEvents:", pictures))),
    );
    components.insert(
        "picture".into(),
        json!({
            "title": "A picture",
            "type": "string",
            "format": "binary",
            "contentMediaType": "image/jpeg",
            "description": "The bytes of a JPEG."
        }),
    );
    components.insert("key".into(), attributes["properties"]["partitionkey"].clone());
    components.insert("attributes".into(), attributes);
    components
}

fn of<'a>(kind: &str, schemas: &'a [(&'static str, Value)]) -> &'a Value {
    let (_, schema) = schemas.iter().find(|(name, _)| *name == kind).unwrap();
    schema
}

fn attributes(event: &Value) -> Value {
    let mut attributes = event.clone();
    let members = attributes.as_object_mut().unwrap();
    members.remove("$schema");
    members.insert("title".into(), "The attributes of an event".into());
    members.remove("description");
    for data in DATA {
        members["properties"].as_object_mut().unwrap().remove(data);
    }
    attributes
}

/// What a kind says beyond `attributes`, and a reference to those.
fn added(schema: &Value, attributes: &Value) -> Value {
    let properties = |schema: &Value| schema["properties"].as_object().unwrap().clone();
    let required = |schema: &Value| schema["required"].as_array().unwrap().clone();
    let (common, always) = (properties(attributes), required(attributes));
    let mut own = Map::new();
    for (name, property) in properties(schema) {
        if common.get(&name) == Some(&property) {
            continue;
        }
        let mut property = property;
        if common.contains_key(&name) {
            // Said there already.
            property.as_object_mut().unwrap().remove("description");
        }
        own.insert(name, property);
    }
    let mut addition = json!({ "type": "object", "properties": own });
    let more: Vec<Value> = required(schema)
        .into_iter()
        .filter(|name| !always.contains(name))
        .collect();
    if !more.is_empty() {
        addition["required"] = more.into();
    }
    let mut whole = json!({
        "title": schema["title"],
        "allOf": [{ "$ref": "#/components/schemas/attributes" }, addition],
    });
    if let Some(description) = schema.get("description") {
        whole["description"] = description.clone();
    }
    whole
}

/// An attribute as a header has it: a Boolean is a text there.
fn as_text(property: &Value) -> Value {
    let mut text = property.clone();
    if text["type"] == "boolean" {
        text["type"] = "string".into();
        text["const"] = "true".into();
    }
    text
}

/// The headers of a message: on both brokers `sequence`, which is the attribute `replicasequence`, and `replica`, then
/// `more` of the attributes, and of a binary message all attributes, with a prefix.
fn headers(more: &[&str], binary: Option<(&str, &Value)>) -> Value {
    let event = definitions::schemas().into_iter().find(|(name, _)| *name == "event");
    let (_, event) = event.unwrap();
    let mut properties = Map::new();
    let mut required = Vec::new();
    let attributes = ["replica"].iter().chain(more).map(|name| (*name, *name));
    for (header, attribute) in [("sequence", "replicasequence")].into_iter().chain(attributes) {
        properties.insert(header.to_owned(), event["properties"][attribute].clone());
        required.push(header.to_owned());
    }
    let mut trace = event["properties"]["traceparent"].clone();
    trace["description"] = "The span that a consumer's is the child of: the one that published this message, where it was recorded, else the \
        attribute `traceparent`. Absent when the event belongs to no trace."
        .into();
    properties.insert("traceparent".into(), trace);
    if more.is_empty() {
        let description = "The content type of the value.";
        properties.insert(
            "content-type".into(),
            json!({ "type": "string", "description": description }),
        );
        required.push("content-type".into());
    } else {
        let description = "There, and true, where the routing key ends in a hash since it would be too long.";
        properties.insert(
            "routingkeyshortened".into(),
            json!({ "type": "boolean", "const": true, "description": description }),
        );
    }
    if let Some((prefix, schema)) = binary {
        for (name, property) in schema["properties"].as_object().unwrap() {
            // The content type is the message's own.
            if !DATA.contains(&name.as_str()) && name != "datacontenttype" {
                properties.insert(format!("{prefix}{name}"), as_text(property));
            }
        }
        let names = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str);
        required.extend(names.map(|name| format!("{prefix}{name}")));
    }
    json!({ "type": "object", "properties": properties, "required": required })
}
