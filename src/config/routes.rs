//! `[routes.<name>]`, and the two that are there when the configuration has none.

use std::{collections::BTreeSet, time::Duration};

use config::Value;

use super::{
    BacklogFull, BacklogLimit, Endpoint, KeepDeadLetters, Match, Part, Route, Shown, Sink, Template, UNROUTED,
    UnknownTopic, WhenFull,
    load::{Loader, Named},
    overlap::overlaps,
    sinks::{Broker, Declared},
    table::{Table, closest},
    values,
};
use crate::{
    event::render::Mode,
    senders::{self, Payload, UNREADABLE},
    spool::Start,
};

const MIB: u64 = 1024 * 1024;
const IN_FLIGHT_RECORDS_MAX: u64 = 10_000;
const IN_FLIGHT_BYTES_MAX: u64 = 64 * MIB;
/// What a route that discards has no use for.
const OF_PUBLISHING: [&str; 17] = [
    "sink",
    "topic",
    "unknown_topic",
    "topic_fallback",
    "mode",
    "payload",
    "start",
    "in_flight_records_max",
    "in_flight_bytes_max",
    "reorder_window",
    "reorder_records_max",
    "reorder_bytes_max",
    "dead_letters_bytes_max",
    "dead_letters_full",
    "backlog_bytes_max",
    "when_full",
    "overlap",
];
/// What only takes pictures may keep so much of the spool, where nothing is said: one in so many of its bytes.
const PICTURES_BACKLOG_ONE_IN: u64 = 4;
const REORDER_WINDOW_MAX: Duration = Duration::from_secs(60);
const REORDER_RECORDS_MAX: u64 = 10_000;
const REORDER_BYTES_MAX: u64 = 64 * MIB;

impl Loader<'_> {
    pub(super) fn routes(
        &mut self,
        root: &mut Table<'_>,
        endpoints: &[Named<Endpoint>],
        sinks: &[Named<Declared>],
        spool_bytes_max: u64,
    ) -> (Vec<Route>, Option<Route>) {
        let mut warnings = Vec::new();
        let mut discarded = Vec::new();
        let routes = self.named(root, "routes", |_, name, mut table| {
            if table.take_or("discard", false, values::flag) {
                discarded.push(matches(&mut table, endpoints, &mut warnings));
                // So that one can be discarded for a while.
                for name in OF_PUBLISHING {
                    table.take(name, |_| Ok(()));
                }
                table.finish();
                return None;
            }
            if name == UNROUTED && table.has("match") {
                table.problem(
                    "match",
                    "this route is for what no other wants, and has none; remove it, or rename the route",
                );
            }
            let sink = sink(&mut table, sinks);
            let matches = matches(&mut table, endpoints, &mut warnings);
            let broker = broker(sink.as_deref(), sinks);
            let topic = topic(&mut table, broker);
            let unknown_topic = unknown_topic(&mut table, topic.as_ref().and_then(Option::as_ref), broker);
            let mode = table.take_or(
                "mode",
                Mode::Structured,
                values::word(&[("structured", Mode::Structured), ("binary", Mode::Binary)]),
            );
            let payload = table.take_or(
                "payload",
                Payload::Normalized,
                values::word(&[("normalized", Payload::Normalized), ("original", Payload::Original)]),
            );
            let start = table.take_or(
                "start",
                Start::Head,
                values::word(&[("head", Start::Head), ("oldest", Start::Oldest)]),
            );
            let records = values::whole(1..=100_000);
            let in_flight_records_max = table.take_or("in_flight_records_max", IN_FLIGHT_RECORDS_MAX, records);
            let bytes = values::size(1024..=1024 * MIB);
            let in_flight_bytes_max = table.take_or("in_flight_bytes_max", IN_FLIGHT_BYTES_MAX, bytes);
            let window = values::duration(Duration::ZERO..=REORDER_WINDOW_MAX);
            let reorder_window = table.take_or("reorder_window", Duration::ZERO, window);
            let records = values::whole(1..=1_000_000);
            let reorder_records_max = table.take_or("reorder_records_max", REORDER_RECORDS_MAX, records);
            let bytes = values::size(1024..=1024 * MIB);
            let reorder_bytes_max = table.take_or("reorder_bytes_max", REORDER_BYTES_MAX, bytes);
            let dead_letters = dead_letters(&mut table);
            let backlog = backlog(&mut table, &matches, spool_bytes_max);
            let overlap = table.take_or("overlap", false, values::flag);
            table.finish();
            Some(Route {
                name: name.to_owned(),
                sink: sink?,
                matches,
                topic: topic?,
                unknown_topic,
                mode,
                payload,
                start,
                in_flight_records_max: in_flight_records_max as usize,
                in_flight_bytes_max: in_flight_bytes_max as usize,
                reorder_window: (!reorder_window.is_zero()).then_some(reorder_window),
                reorder_records_max: reorder_records_max as usize,
                reorder_bytes_max: reorder_bytes_max as usize,
                dead_letters,
                backlog,
                overlap,
            })
        });
        self.warnings.extend(warnings);
        let mut routes = match (routes.as_slice(), sinks) {
            ([], [only]) => {
                let first = endpoints.iter().find_map(|endpoint| endpoint.value.as_ref());
                let sender = first.map_or_else(senders::usual, Endpoint::sender);
                let broker = broker(Some(&only.name), sinks);
                defaults(&only.name, sender.provider().name, broker, spool_bytes_max)
            }

            ([], [_, _, ..]) => {
                let text = "missing: with more than one sink, [routes.<name>] must say which events go where";
                self.found.add(self.file, "routes", text);
                Vec::new()
            }
            _ => routes.into_iter().filter_map(|named| named.value).collect(),
        };
        self.overlaps(&routes, endpoints, sinks);
        let others: Vec<Match> = (routes.iter().filter(|route| route.name != UNROUTED))
            .map(|route| route.matches.clone())
            .chain(discarded)
            .collect();
        if let Some(unrouted) = routes.iter_mut().find(|route| route.name == UNROUTED) {
            unrouted.matches.except = others;
            return (routes, None);
        }
        let gaps = gaps(&others, endpoints);
        self.warnings.extend(gaps.iter().map(|(endpoint, kinds)| {
            format!(
                "no route wants these of endpoint {endpoint}: {}. They are kept among the dead letters of {UNROUTED:?}: add them to a route, or say \
                 that it is meant by a route with `discard = true`",
                kinds.join(", ")
            )
        }));
        let unrouted = (!gaps.is_empty()).then(|| Route::unrouted(others));
        (routes, unrouted)
    }
}

impl Loader<'_> {
    /// Routes that publish the same events to the same place.
    fn overlaps(&mut self, routes: &[Route], endpoints: &[Named<Endpoint>], sinks: &[Named<Declared>]) {
        let sinks = sinks.iter().filter_map(|named| named.value.as_ref()?.sink.clone());
        let sinks: Vec<Sink> = sinks.collect();
        for overlap in overlaps(routes, &sinks, endpoints) {
            let key = format!("routes.{}", overlap.other);
            match overlap.is_certain {
                true => self.found.add_to(self.file, &key, overlap.text()),
                false => self.warnings.push(format!("{key}: {}", overlap.text())),
            }
        }
    }
}

/// A kind that no provider has yet, and no route names.
pub(super) const NEW_KIND: &str = "";

/// The kinds that `routes` can tell apart.
pub(super) fn kinds_to_try<'m>(routes: impl Iterator<Item = &'m Match>) -> Vec<String> {
    let named = routes.flat_map(|route| route.kinds.iter().chain(&route.not_kinds));
    let known: BTreeSet<&str> = named
        .map(String::as_str)
        .chain(senders::kinds().iter().copied())
        .collect();
    known.into_iter().chain([NEW_KIND]).map(str::to_owned).collect()
}

/// Which kinds of which endpoints none of `routes` wants.
fn gaps<'e>(routes: &[Match], endpoints: &'e [Named<Endpoint>]) -> Vec<(&'e str, Vec<String>)> {
    let kinds = kinds_to_try(routes.iter());
    let mut gaps = Vec::new();
    for endpoint in endpoints {
        let sender = endpoint.value.as_ref().map(Endpoint::sender);
        let of_sender = |kind: &str| sender.is_none_or(|sender| sender.kinds().contains(&kind));
        let may_come = |kind: &&String| {
            let is_anothers = senders::kinds().contains(&kind.as_str()) && !of_sender(kind) && **kind != UNREADABLE;
            !is_anothers
        };
        let is_wanted = |kind: &&String| routes.iter().any(|route| route.accepts(kind, &endpoint.name));
        let unwanted = kinds
            .iter()
            .filter(may_come)
            .filter(|kind| !is_wanted(kind))
            .map(|kind| match kind.as_str() {
                NEW_KIND => "kinds that are not known".to_owned(),
                kind => kind.to_owned(),
            });
        let unwanted: Vec<String> = unwanted.collect();
        if !unwanted.is_empty() {
            gaps.push((endpoint.name.as_str(), unwanted));
        }
    }
    gaps
}

fn dead_letters(table: &mut Table<'_>) -> KeepDeadLetters {
    let usual = KeepDeadLetters::default();
    let bytes = values::size(MIB..=1024 * 1024 * MIB);
    KeepDeadLetters {
        bytes_max: table.take_or("dead_letters_bytes_max", usual.bytes_max, bytes),
        when_full: table.take_or(
            "dead_letters_full",
            usual.when_full,
            values::word(&[("hold", WhenFull::Hold), ("drop_oldest", WhenFull::DropOldest)]),
        ),
    }
}

/// What a route may keep in the spool.
fn backlog(table: &mut Table<'_>, matches: &Match, spool_bytes_max: u64) -> BacklogLimit {
    let bytes_max = table
        .take("backlog_bytes_max", values::size(MIB..=1024 * 1024 * MIB))
        .or_else(|| usual_backlog_bytes_max(matches, spool_bytes_max));
    if bytes_max.is_none() && table.has("when_full") {
        table.problem(
            "when_full",
            "says what happens at backlog_bytes_max, which this route does not have: set it",
        );
    }
    let when_full = table.take_or(
        "when_full",
        BacklogFull::default(),
        values::word(&[
            ("refuse", BacklogFull::Refuse),
            ("dead_letter", BacklogFull::DeadLetter),
            ("drop_oldest", BacklogFull::DropOldest),
        ]),
    );
    BacklogLimit { bytes_max, when_full }
}

/// Pictures leave room for all else; a route that events need has no limit.
fn usual_backlog_bytes_max(matches: &Match, spool_bytes_max: u64) -> Option<u64> {
    let is_for_pictures = !matches.kinds.is_empty() && matches.kinds.iter().all(|kind| kind == "thumbnail");
    is_for_pictures.then_some(spool_bytes_max / PICTURES_BACKLOG_ONE_IN)
}

/// The route's sink; when there is only one sink, a route need not say so.
fn sink(table: &mut Table<'_>, sinks: &[Named<Declared>]) -> Option<String> {
    let known = || sinks.iter().map(|sink| sink.name.as_str());
    if let [only] = sinks
        && !table.has("sink")
    {
        table.take("sink", values::text);
        return Some(only.name.clone());
    }
    table.require("sink", |value| {
        let name = values::text(value)?;
        one_of(&name, "sink", known())?;
        Ok(name)
    })
}

/// What the sink called `name` talks to, as far as that is known.
fn broker(name: Option<&str>, sinks: &[Named<Declared>]) -> Option<Broker> {
    sinks
        .iter()
        .find(|sink| Some(sink.name.as_str()) == name)?
        .value
        .as_ref()?
        .broker
}

/// Kafka's topic, which a route to RabbitMQ does not have. `None` when it is not right.
fn topic(table: &mut Table<'_>, broker: Option<Broker>) -> Option<Option<Template>> {
    let parse = |value: &Value| Template::parse(&values::text(value)?);
    match broker {
        Some(Broker::Kafka) => table.require("topic", parse).map(Some),
        Some(Broker::RabbitMq) => {
            let refuse = |_: &Value| -> Result<(), String> {
                Err(
                    "a route to a RabbitMQ sink has none: the routing key is made from each event \
                     (<partition>.<kind>.<event>.<account>.<stream>), and queues choose by their bindings; remove it"
                        .to_owned(),
                )
            };
            let has_one = table.has("topic");
            table.take("topic", refuse);
            (!has_one).then_some(None)
        }
        None => Some(table.take("topic", parse)),
    }
}

/// What becomes of an event whose topic is not there. A topic that the event names may be anybody's invention, so that
/// only such a one is given up where nothing is said.
fn unknown_topic(table: &mut Table<'_>, topic: Option<&Template>, broker: Option<Broker>) -> UnknownTopic {
    let by_event = topic.is_some_and(|topic| topic.literal().is_none());
    if broker == Some(Broker::RabbitMq) {
        for name in ["unknown_topic", "topic_fallback"] {
            table.take(name, |_| -> Result<(), String> {
                Err("a route to a RabbitMQ sink has no topic; see `unroutable` of the sink; remove it".to_owned())
            });
        }
        return UnknownTopic::Hold;
    }
    let both = table.has("unknown_topic") && table.has("topic_fallback");
    let holds = table.take("unknown_topic", values::word(&[("dead_letter", false), ("hold", true)]));
    let fallback = table.take("topic_fallback", |value| {
        let fallback = Template::parse(&values::text(value)?)?;
        let literal = fallback.literal().map(str::to_owned);
        literal.ok_or_else(|| "a topic without placeholders: it is for events whose own topic is not there".to_owned())
    });
    if both {
        table.problem(
            "topic_fallback",
            "says what becomes of such an event, and so does unknown_topic: remove one",
        );
    }
    match fallback {
        Some(fallback) => UnknownTopic::Fallback(fallback),
        None if holds.unwrap_or(!by_event) => UnknownTopic::Hold,
        None => UnknownTopic::DeadLetter,
    }
}

/// `name`, if it is one of `known`; else what is wrong.
fn one_of<'n>(name: &str, what: &str, known: impl Iterator<Item = &'n str> + Clone) -> Result<(), String> {
    if known.clone().any(|known| known == name) {
        return Ok(());
    }
    match closest(name, known.clone()) {
        Some(meant) => Err(format!("there is no {what} {:?}; did you mean {meant:?}", Shown(name))),
        None => Err(format!(
            "there is no {what} {:?}; known: {}",
            Shown(name),
            known.collect::<Vec<_>>().join(", ")
        )),
    }
}

fn matches(route: &mut Table<'_>, endpoints: &[Named<Endpoint>], warnings: &mut Vec<String>) -> Match {
    let mut table = route.table("match");
    let names = |value: &Value| -> Result<Vec<String>, String> {
        let names = values::list(value)?;
        let known = endpoints.iter().map(|endpoint| endpoint.name.as_str());
        names
            .iter()
            .try_for_each(|name| one_of(name, "endpoint", known.clone()))?;
        Ok(names)
    };
    let matches = Match {
        kinds: table.take_or("kinds", Vec::new(), kinds),
        not_kinds: table.take_or("not_kinds", Vec::new(), kinds),
        endpoints: table.take_or("endpoints", Vec::new(), names),
        not_endpoints: table.take_or("not_endpoints", Vec::new(), names),
        except: Vec::new(),
    };
    for (key, kind) in (matches.kinds.iter().map(|kind| ("kinds", kind)))
        .chain(matches.not_kinds.iter().map(|kind| ("not_kinds", kind)))
    {
        if !senders::kinds().contains(&kind.as_str()) {
            let text = format!("{:?} is no kind that a provider is known to send", Shown(kind));
            match closest(kind, senders::kinds().iter().copied()) {
                Some(meant) => table.problem(key, format!("{text}; did you mean {meant:?}")),
                None => warnings.push(format!("{}: {text}", table.key(key))),
            }
        }
    }
    let none_left = |wanted: &[String], not: &[String]| !wanted.is_empty() && wanted.iter().all(|w| not.contains(w));
    if none_left(&matches.kinds, &matches.not_kinds) || none_left(&matches.endpoints, &matches.not_endpoints) {
        table.problem("", "no event can match: what is wanted is excluded as well");
    }
    table.finish();
    matches
}

/// Kinds as events have them: in lower case, `recording` being `recordings`.
fn kinds(value: &Value) -> Result<Vec<String>, String> {
    let kinds = values::list(value)?;
    Ok(kinds
        .iter()
        .map(|kind| match kind.trim().to_lowercase().as_str() {
            "recording" => "recordings".to_owned(),
            other => other.to_owned(),
        })
        .collect())
}

/// All but the pictures, and the pictures. `provider`: after whom the topics are called.
fn defaults(sink: &str, provider: &str, broker: Option<Broker>, spool_bytes_max: u64) -> Vec<Route> {
    let thumbnail = || vec!["thumbnail".to_owned()];
    let route = |name: &str, matches: Match, mode: Mode| Route {
        name: name.to_owned(),
        sink: sink.to_owned(),
        backlog: BacklogLimit {
            bytes_max: usual_backlog_bytes_max(&matches, spool_bytes_max),
            ..BacklogLimit::default()
        },
        matches,
        topic: (broker != Some(Broker::RabbitMq)).then(|| Template {
            parts: vec![Part::Literal(format!("{provider}.{name}"))],
        }),
        unknown_topic: UnknownTopic::Hold,
        mode,
        payload: Payload::Normalized,
        start: Start::Head,
        in_flight_records_max: IN_FLIGHT_RECORDS_MAX as usize,
        in_flight_bytes_max: IN_FLIGHT_BYTES_MAX as usize,
        reorder_window: None,
        reorder_records_max: REORDER_RECORDS_MAX as usize,
        reorder_bytes_max: REORDER_BYTES_MAX as usize,
        dead_letters: KeepDeadLetters::default(),
        overlap: false,
    };
    let events = Match {
        not_kinds: thumbnail(),
        ..Match::default()
    };
    let thumbnails = Match {
        kinds: thumbnail(),
        ..Match::default()
    };
    vec![
        route("events", events, Mode::Structured),
        route("thumbnails", thumbnails, Mode::Binary),
    ]
}
