//! Normalised data: the same thing under the same name in every kind, times in RFC 3339, and all else as it came.
//!
//! Nothing is lost. A member is renamed only where its new name is free and its value is what that name promises; else
//! it stays, name and all. Half a surrogate pair becomes U+FFFD, for JSON with it is not read everywhere. What the
//! envelope holds and no attribute carries goes into a member `envelope`.
//!
//! Memory is that of the result: members are looked at in two passes, and a fixed number of them is remembered.

use std::borrow::Cow;

use bytes::Bytes;

use super::payload::{self, OtherMembers, WebhookEnvelope};
use crate::json::{self, JsonMember, JsonMembers, JsonValue};

/// A member's name, and the same as JSON has it.
struct PresentName {
    plain: &'static str,
    quoted: &'static str,
}

macro_rules! names {
    ($($plain:literal),* $(,)?) => { [$(PresentName { plain: $plain, quoted: concat!("\"", $plain, "\"") }),*] };
}

/// The members that come first, in this order. Of several with the same name it is the first one; the others stay in
/// their place, so that the last one is still the last.
const ORDER: [PresentName; 10] = names![
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
enum MemberForm {
    Text,
    Time,
}

/// From which name to which of [`ORDER`].
#[derive(Clone, Copy)]
struct MemberRename {
    from: &'static str,
    to: &'static str,
    form: MemberForm,
}

const RENAMES_MAX: usize = 3;

/// The renames of a kind that we know. `None`: we do not know the kind, and touch nothing.
fn renames(kind: &str) -> Option<&'static [MemberRename]> {
    const fn text(from: &'static str, to: &'static str) -> MemberRename {
        let form = MemberForm::Text;
        MemberRename { from, to, form }
    }
    const fn time(from: &'static str, to: &'static str) -> MemberRename {
        let form = MemberForm::Time;
        MemberRename { from, to, form }
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
    let Some(WebhookEnvelope { data, rest, .. }) = WebhookEnvelope::parse(body) else {
        return body.clone();
    };
    let members = data.map_or(Some(JsonMembers::default()), JsonValue::members);
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
            object.member("\"data\"", data.map_or("{}", JsonValue::raw));
            object.close(&rest)
        }
    }
}

/// Data as it came, which is a part of the body; a copy only where it is no Unicode.
fn unchanged(body: &Bytes, data: JsonValue<'_>) -> Bytes {
    let raw = data.raw().as_bytes();
    if json::half_pair(raw, 0).is_none() {
        return body.slice_ref(raw);
    }
    let mut copy = raw.to_vec();
    json::replace_half_pairs(&mut copy);
    copy.into()
}

/// An object in the order and with the names that a kind has.
fn ordered(members: JsonMembers<'_>, renames: &[MemberRename], rest: &OtherMembers<'_>, bytes: usize) -> Bytes {
    let front = front(&MemberSurvey::new(members.clone(), renames), renames);
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
struct FrontMembers<'a> {
    raw_name: &'a str,
    raw_value: Cow<'a, str>,
    /// The place of the member that it is. `None`: it is derived.
    from: Option<usize>,
}

impl<'a> FrontMembers<'a> {
    fn unchanged(seen: SeenMembers<'a>) -> Self {
        FrontMembers {
            raw_name: seen.first.raw_name,
            raw_value: seen.first.value.raw().into(),
            from: Some(seen.index),
        }
    }

    fn named(name: &PresentName, raw_value: Cow<'a, str>, from: Option<usize>) -> Self {
        FrontMembers {
            raw_name: name.quoted,
            raw_value,
            from,
        }
    }
}

/// The members of [`ORDER`] that there are: as they came, renamed, or derived from the stream's id.
fn front<'a>(survey: &MemberSurvey<'a>, renames: &[MemberRename]) -> Vec<FrontMembers<'a>> {
    let stream_id = survey.ordered[STREAM_ID].and_then(|seen| seen.last.text());
    let (account, stream_name) = stream_id.as_deref().map_or((None, None), payload::split_stream_id);
    let derived = |name: &PresentName| match name.plain {
        "accountId" => account,
        "streamName" => stream_name,
        _ => None,
    };
    let of_name = |(name, seen): (&PresentName, Option<SeenMembers<'a>>)| {
        let as_it_came = seen.map(FrontMembers::unchanged);
        let renamed = || {
            let mut candidates = renames.iter().zip(survey.renamed);
            let (rename, seen) = candidates.find(|(rename, _)| rename.to == name.plain)?;
            renamed(name, rename.form, seen?)
        };
        let derived = || Some(FrontMembers::named(name, json::quoted(derived(name)?).into(), None));
        as_it_came.or_else(renamed).or_else(derived)
    };
    ORDER.iter().zip(survey.ordered).filter_map(of_name).collect()
}

/// A member under another name, if it may be called so. No member has that name yet.
fn renamed<'a>(name: &PresentName, form: MemberForm, seen: SeenMembers<'a>) -> Option<FrontMembers<'a>> {
    let raw = seen.last.raw();
    let raw_value = match form {
        _ if seen.count > 1 => return None,
        MemberForm::Text => raw.starts_with('"').then_some(Cow::Borrowed(raw))?,
        MemberForm::Time => format!("\"{}\"", payload::time(seen.last)?.to_rfc3339()).into(),
    };
    Some(FrontMembers::named(name, raw_value, Some(seen.index)))
}

/// What there is of a name.
#[derive(Clone, Copy)]
struct SeenMembers<'a> {
    count: usize,
    /// Where the first one stands among all members.
    index: usize,
    first: JsonMember<'a>,
    last: JsonValue<'a>,
}

/// What an object has of the names that matter.
struct MemberSurvey<'a> {
    /// Of each name of [`ORDER`].
    ordered: [Option<SeenMembers<'a>>; ORDER.len()],
    /// Of each name that is changed.
    renamed: [Option<SeenMembers<'a>>; RENAMES_MAX],
}

/// Where `streamId` stands in [`ORDER`].
const STREAM_ID: usize = 0;

impl<'a> MemberSurvey<'a> {
    fn new(members: JsonMembers<'a>, renames: &[MemberRename]) -> Self {
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
            let seen = seen.get_or_insert(SeenMembers {
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
    fn unchanged(&mut self, member: &JsonMember<'_>) {
        self.member(member.raw_name, member.value.raw());
        let name = member.name();
        let underscores = name
            .strip_prefix(ENVELOPE)
            .filter(|end| end.bytes().all(|byte| byte == b'_'));
        self.envelope_underscores = self.envelope_underscores.max(underscores.map(str::len));
    }

    /// Ends the object with what is left of the envelope.
    fn close(mut self, rest: &OtherMembers<'_>) -> Bytes {
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
