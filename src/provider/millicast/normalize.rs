//! Normalised data: the same thing under the same name in every kind, times in RFC 3339, and all else as it came.
//!
//! Nothing is lost. A member is renamed only where its new name is free and its value is what that name promises;
//! else it stays, name and all. What the envelope holds and no attribute carries goes into a member `envelope`.

use std::{borrow::Cow, collections::HashSet};

use super::payload::{self, Envelope};
use crate::provider::json::{self, Member, Object};

/// The members that come first, in this order.
const ORDER: [&str; 10] = [
    "streamId",
    "accountId",
    "streamName",
    "feedId",
    "startedAt",
    "endedAt",
    "recordedAt",
    "removedAt",
    "createdAt",
    "expiresAt",
];

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    Time,
}

/// From which name to which, in a kind that we know. `None`: we do not know the kind, and touch nothing.
fn renames(kind: &str) -> Option<&'static [(&'static str, &'static str, Form)]> {
    Some(match kind {
        "feeds" => &[
            ("name", "streamName", Form::Text),
            ("started", "startedAt", Form::Time),
            ("ended", "endedAt", Form::Time),
        ],
        "viewerconnection" => &[("name", "streamName", Form::Text)],
        "recordings" => &[
            ("recordedOn", "recordedAt", Form::Time),
            ("removedOn", "removedAt", Form::Time),
        ],
        "media" => &[
            ("startTime", "startedAt", Form::Time),
            ("expiration", "expiresAt", Form::Time),
        ],
        "transcoder" => &[("createdOn", "createdAt", Form::Time)],
        _ => return None,
    })
}

/// The normalised data of a body, as a JSON text. A body that has no envelope is returned as it is.
pub fn normalize(kind: &str, body: &[u8]) -> Vec<u8> {
    let Some(envelope) = Envelope::parse(body) else {
        return body.to_vec();
    };
    let data = envelope.data.unwrap_or("{}");
    let mut json = Vec::with_capacity(body.len() + 64);
    match (Object::parse(data), renames(kind)) {
        (Some(object), Some(renames)) => write(&mut json, members(object, renames), envelope.rest),
        (Some(object), None) if !envelope.rest.is_empty() => write(&mut json, object.0, envelope.rest),
        (None, _) if !envelope.rest.is_empty() => {
            let whole = Member {
                name: "data".into(),
                raw_name: "\"data\"",
                value: data,
            };
            write(&mut json, [whole], envelope.rest);
        }
        _ => json.extend_from_slice(data.as_bytes()),
    }
    json
}

/// A member of normalised data.
struct Normal<'a> {
    name: Cow<'a, str>,
    raw_name: Option<&'a str>,
    value: Cow<'a, str>,
}

impl<'a> From<Member<'a>> for Normal<'a> {
    fn from(member: Member<'a>) -> Self {
        Normal {
            name: member.name,
            raw_name: Some(member.raw_name),
            value: Cow::Borrowed(member.value),
        }
    }
}

fn members<'a>(object: Object<'a>, renames: &[(&'static str, &'static str, Form)]) -> Vec<Normal<'a>> {
    let stream_id = object.text("streamId");
    let mut renamed: [Option<(usize, Normal<'a>)>; 3] = [None, None, None];
    for (slot, &(from, to, form)) in renamed.iter_mut().zip(renames) {
        *slot = rename(&object, from, to, form);
    }
    let mut members: Vec<Normal<'a>> = object.0.into_iter().map(Normal::from).collect();
    for (index, normal) in renamed.into_iter().flatten() {
        members[index] = normal;
    }

    let (account, name) = stream_id.as_deref().map_or((None, None), payload::split_stream_id);
    for (derived, part) in [("accountId", account), ("streamName", name)] {
        if let Some(part) = part.filter(|_| members.iter().all(|member| member.name != derived)) {
            members.push(Normal {
                name: derived.into(),
                raw_name: None,
                value: quoted(part).into(),
            });
        }
    }
    members.sort_by_key(|member| {
        ORDER
            .iter()
            .position(|name| *name == member.name)
            .unwrap_or(ORDER.len())
    });
    members
}

/// The member `from` under the name `to`, with its index, if it may be called so.
fn rename<'a>(object: &Object<'a>, from: &str, to: &'static str, form: Form) -> Option<(usize, Normal<'a>)> {
    if object.count(from) != 1 || object.count(to) != 0 {
        return None;
    }
    let index = object.0.iter().position(|member| member.name == from)?;
    let value = object.0[index].value;
    let value = match form {
        Form::Text => value.starts_with('"').then_some(Cow::Borrowed(value))?,
        Form::Time => Cow::Owned(format!("\"{}\"", payload::time(value)?.to_rfc3339())),
    };
    Some((
        index,
        Normal {
            name: to.into(),
            raw_name: None,
            value,
        },
    ))
}

fn write<'a>(
    json: &mut Vec<u8>,
    members: impl IntoIterator<Item = impl Into<Normal<'a>>>,
    envelope_rest: Vec<Member<'a>>,
) {
    let mut taken = HashSet::new();
    json.push(b'{');
    for member in members {
        let member = member.into();
        write_member(json, &member);
        if !envelope_rest.is_empty() && member.name.starts_with("envelope") {
            taken.insert(member.name);
        }
    }
    if !envelope_rest.is_empty() {
        let mut name = "envelope".to_owned();
        while taken.contains(name.as_str()) {
            name.push('_');
        }
        let mut value = Vec::new();
        write(&mut value, envelope_rest, Vec::new());
        let value = String::from_utf8(value).expect("members are UTF-8");
        write_member(
            json,
            &Normal {
                name: name.into(),
                raw_name: None,
                value: value.into(),
            },
        );
    }
    json.push(b'}');
}

fn write_member(json: &mut Vec<u8>, member: &Normal<'_>) {
    if json.last() != Some(&b'{') {
        json.push(b',');
    }
    match member.raw_name {
        Some(raw_name) => json.extend_from_slice(raw_name.as_bytes()),
        None => json::write_string(json, &member.name),
    }
    json.push(b':');
    json.extend_from_slice(member.value.as_bytes());
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always serialized into memory")
}
