//! Normalised data: the same thing under the same name in every kind, times in RFC 3339, and all else as it came.
//!
//! Nothing is lost. A member is renamed only where its new name is free and its value is what that name promises;
//! else it stays, name and all. What the envelope holds and no attribute carries goes into a member `envelope`.
//!
//! Memory is that of the result: members are looked at in two passes, and a fixed number of them is remembered.

use std::borrow::Cow;

use bytes::Bytes;

use super::payload::{self, Envelope, Rest};
use crate::provider::json::{self, Member, Members, Value};

/// The members that come first, in this order. Of several with the same name it is the first one; the others stay in
/// their place, so that the last one is still the last.
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
        (_, _, Some(data)) if rest.is_empty() => body.slice_ref(data.raw().as_bytes()),
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

/// An object in the order and with the names that a kind has.
fn ordered(members: Members<'_>, renames: &[Rename], rest: &Rest<'_>, bytes: usize) -> Bytes {
    let front = front(&Survey::new(members.clone(), renames), renames);
    let mut object = ObjectWriter::open(bytes);
    for member in &front {
        object.member(&member.raw_name, &member.raw_value);
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
    raw_name: Cow<'a, str>,
    raw_value: Cow<'a, str>,
    /// The place of the member that it is. `None`: it is derived.
    from: Option<usize>,
}

impl<'a> Front<'a> {
    fn unchanged(seen: Seen<'a>) -> Self {
        Front {
            raw_name: seen.first.raw_name.into(),
            raw_value: seen.first.value.raw().into(),
            from: Some(seen.index),
        }
    }

    fn named(name: &str, raw_value: Cow<'a, str>, from: Option<usize>) -> Self {
        Front {
            raw_name: json::quoted(name).into(),
            raw_value,
            from,
        }
    }
}

/// The members of [`ORDER`] that there are: as they came, renamed, or derived from the stream's id.
fn front<'a>(survey: &Survey<'a>, renames: &[Rename]) -> Vec<Front<'a>> {
    let stream_id = survey.seen("streamId").and_then(|seen| seen.last.text());
    let (account, stream_name) = stream_id.as_deref().map_or((None, None), payload::split_stream_id);
    let derived = |name| match name {
        "accountId" => account,
        "streamName" => stream_name,
        _ => None,
    };
    let of_name = |name| {
        let as_it_came = || survey.seen(name).map(Front::unchanged);
        let renamed = || {
            renames
                .iter()
                .filter(|rename| rename.to == name)
                .find_map(|rename| renamed(survey, *rename))
        };
        let derived = || Some(Front::named(name, json::quoted(derived(name)?).into(), None));
        as_it_came().or_else(renamed).or_else(derived)
    };
    ORDER.into_iter().filter_map(of_name).collect()
}

/// The member of the old name under the new one, if it may be called so. No member has the new name.
fn renamed<'a>(survey: &Survey<'a>, Rename { from, to, form }: Rename) -> Option<Front<'a>> {
    let seen = survey.seen(from).filter(|seen| seen.count == 1)?;
    let raw_value = match form {
        Form::Text => seen
            .last
            .raw()
            .starts_with('"')
            .then_some(Cow::Borrowed(seen.last.raw()))?,
        Form::Time => json::quoted(&payload::time(seen.last)?.to_rfc3339()).into(),
    };
    Some(Front::named(to, raw_value, Some(seen.index)))
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
    names: [&'static str; NAMES_MAX],
    seen: [Option<Seen<'a>>; NAMES_MAX],
}

const NAMES_MAX: usize = ORDER.len() + RENAMES_MAX;

impl<'a> Survey<'a> {
    fn new(members: Members<'a>, renames: &[Rename]) -> Self {
        let mut names = [ORDER[0]; NAMES_MAX];
        let wanted = ORDER.into_iter().chain(renames.iter().map(|rename| rename.from));
        names.iter_mut().zip(wanted).for_each(|(slot, name)| *slot = name);
        let mut seen: [Option<Seen<'a>>; NAMES_MAX] = [None; NAMES_MAX];
        for (index, member) in members.enumerate() {
            let name = member.name();
            let Some(slot) = names.iter().position(|wanted| *wanted == name) else {
                continue;
            };
            let entry = seen[slot].get_or_insert(Seen {
                count: 0,
                index,
                first: member,
                last: member.value,
            });
            entry.count += 1;
            entry.last = member.value;
        }
        Self { names, seen }
    }

    fn seen(&self, name: &str) -> Option<Seen<'a>> {
        let slot = self.names.iter().position(|known| *known == name)?;
        self.seen[slot]
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
        self.json.into()
    }
}
