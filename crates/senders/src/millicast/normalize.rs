//! Normalised data: the same thing under the same name in every kind, times in RFC 3339, and all else as it came.
//!
//! Nothing is lost. A member is renamed only where its new name is free and its value is what that name promises; else
//! it stays, name and all. Half a surrogate pair becomes U+FFFD, for JSON with it is not read everywhere. What the
//! envelope holds and no attribute carries goes into a member `envelope`.
//!
//! Memory is that of the result: members are looked at in two passes, and a fixed number of them is remembered.

use std::borrow::Cow;

use bytes::Bytes;

use super::payload::{self, Envelope, Rest};
use crate::json::{self, Member, Members, Value};

/// A member's name, and the same as JSON has it.
struct Name {
    plain: &'static str,
    quoted: &'static str,
}

macro_rules! names {
    ($($plain:literal),* $(,)?) => { [$(Name { plain: $plain, quoted: concat!("\"", $plain, "\"") }),*] };
}

/// The members that come first, in this order. Of several with the same name it is the first one; the others stay in
/// their place, so that the last one is still the last.
const ORDER: [Name; 10] = names![
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

/// From which name to which of [`ORDER`].
#[derive(Clone, Copy)]
struct Rename {
    from: &'static str,
    to: &'static str,
    form: Form,
}

const RENAMES_MAX: usize = 3;

/// The renames of a kind that we know. `None`: we do not know the kind, and touch nothing.
fn renames(kind: &str) -> Option<&'static [Rename]> {
    const fn text(from: &'static str, to: &'static str) -> Rename {
        let form = Form::Text;
        Rename { from, to, form }
    }
    const fn time(from: &'static str, to: &'static str) -> Rename {
        let form = Form::Time;
        Rename { from, to, form }
    }
    Some(match kind {
        "feeds" => {
            const {
                &[
                    text("name", "streamName"),
                    time("started", "startedAt"),
                    time("ended", "endedAt"),
                ]
            }
        }
        "viewerconnection" => const { &[text("name", "streamName")] },
        "recordings" => const { &[time("recordedOn", "recordedAt"), time("removedOn", "removedAt")] },
        "media" => const { &[time("startTime", "startedAt"), time("expiration", "expiresAt")] },
        "transcoder" => const { &[time("createdOn", "createdAt")] },
        _ => return None,
    })
}

/// The normalised data of a body, as a JSON text. A body that has no envelope is returned as it is.
pub fn normalize(kind: &str, body: &Bytes) -> Bytes {
    let Some(Envelope { data, rest, .. }) = Envelope::parse(body) else {
        return body.clone();
    };
    let members = data.map_or(Some(Members::default()), Value::members);
    match (members, renames(kind), data) {
        (Some(members), Some(renames), _) => ordered(members, renames, &rest, body.len()),
        (_, _, Some(data)) if rest.is_empty() => unchanged(body, data),
        (Some(members), _, _) => {
            let mut object = ObjectWriter::open(body.len());
            members.for_each(|member| object.unchanged(&member));
            object.close(&rest)
        }
        (None, _, data) => {
            let mut object = ObjectWriter::open(body.len());
            object.member("\"data\"", data.map_or("{}", Value::raw));
            object.close(&rest)
        }
    }
}

/// Data as it came, which is a part of the body; a copy only where it is no Unicode.
fn unchanged(body: &Bytes, data: Value<'_>) -> Bytes {
    let raw = data.raw().as_bytes();
    if json::half_pair(raw, 0).is_none() {
        return body.slice_ref(raw);
    }
    let mut copy = raw.to_vec();
    json::replace_half_pairs(&mut copy);
    copy.into()
}

/// An object in the order and with the names that a kind has.
fn ordered(members: Members<'_>, renames: &[Rename], rest: &Rest<'_>, bytes: usize) -> Bytes {
    let front = front(&Survey::new(members.clone(), renames), renames);
    let derived = front.iter().filter(|member| member.from.is_none());
    let derived_bytes: usize = derived
        .map(|member| member.raw_name.len() + member.raw_value.len())
        .sum();
    let mut object = ObjectWriter::open(bytes + derived_bytes);
    for member in &front {
        object.member(member.raw_name, &member.raw_value);
    }
    for (index, member) in members.enumerate() {
        if front.iter().all(|front| front.from != Some(index)) {
            object.unchanged(&member);
        }
    }
    object.close(rest)
}

/// A member that comes before those that stay in their place.
struct Front<'a> {
    raw_name: &'a str,
    raw_value: Cow<'a, str>,
    /// The place of the member that it is. `None`: it is derived.
    from: Option<usize>,
}

impl<'a> Front<'a> {
    fn unchanged(seen: Seen<'a>) -> Self {
        Front {
            raw_name: seen.first.raw_name,
            raw_value: seen.first.value.raw().into(),
            from: Some(seen.index),
        }
    }

    fn named(name: &Name, raw_value: Cow<'a, str>, from: Option<usize>) -> Self {
        Front {
            raw_name: name.quoted,
            raw_value,
            from,
        }
    }
}

/// The members of [`ORDER`] that there are: as they came, renamed, or derived from the stream's id.
fn front<'a>(survey: &Survey<'a>, renames: &[Rename]) -> Vec<Front<'a>> {
    let stream_id = survey.ordered[STREAM_ID].and_then(|seen| seen.last.text());
    let (account, stream_name) = stream_id.as_deref().map_or((None, None), payload::split_stream_id);
    let derived = |name: &Name| match name.plain {
        "accountId" => account,
        "streamName" => stream_name,
        _ => None,
    };
    let of_name = |(name, seen): (&Name, Option<Seen<'a>>)| {
        let as_it_came = seen.map(Front::unchanged);
        let renamed = || {
            let mut candidates = renames.iter().zip(survey.renamed);
            let (rename, seen) = candidates.find(|(rename, _)| rename.to == name.plain)?;
            renamed(name, rename.form, seen?)
        };
        let derived = || Some(Front::named(name, json::quoted(derived(name)?).into(), None));
        as_it_came.or_else(renamed).or_else(derived)
    };
    ORDER.iter().zip(survey.ordered).filter_map(of_name).collect()
}

/// A member under another name, if it may be called so. No member has that name yet.
fn renamed<'a>(name: &Name, form: Form, seen: Seen<'a>) -> Option<Front<'a>> {
    let raw = seen.last.raw();
    let raw_value = match form {
        _ if seen.count > 1 => return None,
        Form::Text => raw.starts_with('"').then_some(Cow::Borrowed(raw))?,
        Form::Time => format!("\"{}\"", payload::time(seen.last)?.to_rfc3339()).into(),
    };
    Some(Front::named(name, raw_value, Some(seen.index)))
}

/// What there is of a name.
#[derive(Clone, Copy)]
struct Seen<'a> {
    count: usize,
    /// Where the first one stands among all members.
    index: usize,
    first: Member<'a>,
    last: Value<'a>,
}

/// What an object has of the names that matter.
struct Survey<'a> {
    /// Of each name of [`ORDER`].
    ordered: [Option<Seen<'a>>; ORDER.len()],
    /// Of each name that is changed.
    renamed: [Option<Seen<'a>>; RENAMES_MAX],
}

/// Where `streamId` stands in [`ORDER`].
const STREAM_ID: usize = 0;

impl<'a> Survey<'a> {
    fn new(members: Members<'a>, renames: &[Rename]) -> Self {
        let mut survey = Self {
            ordered: [None; ORDER.len()],
            renamed: [None; RENAMES_MAX],
        };
        for (index, member) in members.enumerate() {
            let name = member.name();
            let seen = if let Some(slot) = ORDER.iter().position(|wanted| wanted.plain == name) {
                &mut survey.ordered[slot]
            } else if let Some(slot) = renames.iter().position(|rename| rename.from == name) {
                &mut survey.renamed[slot]
            } else {
                continue;
            };
            let seen = seen.get_or_insert(Seen {
                count: 0,
                index,
                first: member,
                last: member.value,
            });
            seen.count += 1;
            seen.last = member.value;
        }
        survey
    }
}

const ENVELOPE: &str = "envelope";

/// Writes an object, and knows which name is free for what is left of the envelope.
struct ObjectWriter {
    json: Vec<u8>,
    /// How many `_` the longest of the names `envelope`, `envelope_`, … has that is taken.
    envelope_underscores: Option<usize>,
}

impl ObjectWriter {
    /// `bytes`: about how long it becomes.
    fn open(bytes: usize) -> Self {
        let mut json = Vec::with_capacity(bytes + 64);
        json.push(b'{');
        Self {
            json,
            envelope_underscores: None,
        }
    }

    fn member(&mut self, raw_name: &str, raw_value: &str) {
        json::write_member(&mut self.json, raw_name, raw_value);
    }

    /// Appends a member as it came.
    fn unchanged(&mut self, member: &Member<'_>) {
        self.member(member.raw_name, member.value.raw());
        let name = member.name();
        let underscores = name
            .strip_prefix(ENVELOPE)
            .filter(|end| end.bytes().all(|byte| byte == b'_'));
        self.envelope_underscores = self.envelope_underscores.max(underscores.map(str::len));
    }

    /// Ends the object with what is left of the envelope.
    fn close(mut self, rest: &Rest<'_>) -> Bytes {
        if !rest.is_empty() {
            let underscores = self.envelope_underscores.map_or(0, |taken| taken + 1);
            let name = format!("\"{ENVELOPE}{}\"", "_".repeat(underscores));
            self.member(&name, "{");
            rest.members()
                .for_each(|member| self.member(member.raw_name, member.value.raw()));
            self.json.push(b'}');
        }
        self.json.push(b'}');
        json::replace_half_pairs(&mut self.json);
        self.json.into()
    }
}
