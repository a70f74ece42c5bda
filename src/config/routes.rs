//! `[routes.<name>]`, and the two that are there when the configuration has none.

use std::{collections::BTreeSet, time::Duration};

use config::Value;
use forebay_section::{ConfigTable, closest};

use super::{
    BacklogFull, BacklogLimit, EndpointConfig, EventMatch, KeepDeadLetters, RouteConfig, Shown, SinkConfig, UNROUTED,
    WhenFull,
    load::{ConfigLoader, NamedSection},
    overlap::overlaps,
    sinks::DeclaredSink,
    values,
};
use crate::{
    event::render::RenderMode,
    senders::{self, RoutePayload, UNREADABLE},
    sink::{self as brokers, RegisteredBroker},
    spool::CursorStart,
};

const MIB: u64 = 1024 * 1024;
const IN_FLIGHT_RECORDS_MAX: u64 = 10_000;
const IN_FLIGHT_BYTES_MAX: u64 = 64 * MIB;
/// What a route that discards has no use for.
const OF_PUBLISHING: [&str; 14] = [
    "sink",
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

impl ConfigLoader<'_> {
    pub(super) fn routes(
        &mut self,
        root: &mut ConfigTable<'_>,
        endpoints: &[NamedSection<EndpointConfig>],
        sinks: &[NamedSection<DeclaredSink>],
        spool_bytes_max: u64,
    ) -> (Vec<RouteConfig>, Option<RouteConfig>) {
        let mut warnings = Vec::new();
        let mut discarded = Vec::new();
        let routes = self.named(root, "routes", |_, name, mut table| {
            if table.take_or("discard", false, values::flag) {
                discarded.push(matches(&mut table, endpoints, &mut warnings));
                // So that one can be discarded for a while.
                for name in OF_PUBLISHING {
                    table.take(name, |_| Ok(()));
                }
                ignore_addresses(&mut table);
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
            let address = match broker {
                Some(broker) => broker.read_address(&mut table),
                None => {
                    ignore_addresses(&mut table);
                    None
                }
            };
            let mode = table.take_or(
                "mode",
                RenderMode::Structured,
                values::word(&[("structured", RenderMode::Structured), ("binary", RenderMode::Binary)]),
            );
            let payload = table.take_or(
                "payload",
                RoutePayload::Normalized,
                values::word(&[
                    ("normalized", RoutePayload::Normalized),
                    ("original", RoutePayload::Original),
                ]),
            );
            let start = table.take_or(
                "start",
                CursorStart::Head,
                values::word(&[("head", CursorStart::Head), ("oldest", CursorStart::Oldest)]),
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
            Some(RouteConfig {
                name: name.to_owned(),
                sink: sink?,
                matches,
                address: Some(address?),
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
                let sender = first.map_or_else(senders::usual, EndpointConfig::sender);
                let broker = broker(Some(&only.name), sinks);
                defaults(&only.name, sender.provider().name, broker, spool_bytes_max)
            }

            ([], [_, _, ..]) => {
                let text = "missing: with more than one sink, [routes.<name>] must say which events go where";
                self.context.found.add(self.context.file, "routes", text);
                Vec::new()
            }
            _ => routes.into_iter().filter_map(|named| named.value).collect(),
        };
        self.overlaps(&routes, endpoints, sinks);
        let others: Vec<EventMatch> = (routes.iter().filter(|route| route.name != UNROUTED))
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
        let unrouted = (!gaps.is_empty()).then(|| RouteConfig::unrouted(others));
        (routes, unrouted)
    }
}

impl ConfigLoader<'_> {
    /// Routes that publish the same events to the same place.
    fn overlaps(
        &mut self,
        routes: &[RouteConfig],
        endpoints: &[NamedSection<EndpointConfig>],
        sinks: &[NamedSection<DeclaredSink>],
    ) {
        let sinks = sinks.iter().filter_map(|named| named.value.as_ref()?.sink.clone());
        let sinks: Vec<SinkConfig> = sinks.collect();
        for overlap in overlaps(routes, &sinks, endpoints) {
            let key = format!("routes.{}", overlap.other);
            match overlap.is_certain {
                true => self.context.found.add_to(self.context.file, &key, overlap.text()),
                false => self.warnings.push(format!("{key}: {}", overlap.text())),
            }
        }
    }
}

/// A kind that no provider has yet, and no route names.
pub(super) const NEW_KIND: &str = "";

/// The kinds that `routes` can tell apart.
pub(super) fn kinds_to_try<'m>(routes: impl Iterator<Item = &'m EventMatch>) -> Vec<String> {
    let named = routes.flat_map(|route| route.kinds.iter().chain(&route.not_kinds));
    let known: BTreeSet<&str> = named
        .map(String::as_str)
        .chain(senders::kinds().iter().copied())
        .collect();
    known.into_iter().chain([NEW_KIND]).map(str::to_owned).collect()
}

/// Which kinds of which endpoints none of `routes` wants.
fn gaps<'e>(routes: &[EventMatch], endpoints: &'e [NamedSection<EndpointConfig>]) -> Vec<(&'e str, Vec<String>)> {
    let kinds = kinds_to_try(routes.iter());
    let mut gaps = Vec::new();
    for endpoint in endpoints {
        let sender = endpoint.value.as_ref().map(EndpointConfig::sender);
        // What only other senders are known to send does not come here.
        let may_come = |kind: &&String| {
            let is_its_own = sender.is_none_or(|sender| sender.kinds().contains(&kind.as_str()));
            is_its_own || **kind == UNREADABLE || !senders::kinds().contains(&kind.as_str())
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

fn dead_letters(table: &mut ConfigTable<'_>) -> KeepDeadLetters {
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
fn backlog(table: &mut ConfigTable<'_>, matches: &EventMatch, spool_bytes_max: u64) -> BacklogLimit {
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
fn usual_backlog_bytes_max(matches: &EventMatch, spool_bytes_max: u64) -> Option<u64> {
    let is_for_pictures = !matches.kinds.is_empty() && matches.kinds.iter().all(|kind| kind == "thumbnail");
    is_for_pictures.then_some(spool_bytes_max / PICTURES_BACKLOG_ONE_IN)
}

/// The route's sink; when there is only one sink, a route need not say so.
fn sink(table: &mut ConfigTable<'_>, sinks: &[NamedSection<DeclaredSink>]) -> Option<String> {
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
fn broker(name: Option<&str>, sinks: &[NamedSection<DeclaredSink>]) -> Option<&'static dyn RegisteredBroker> {
    sinks
        .iter()
        .find(|sink| Some(sink.name.as_str()) == name)?
        .value
        .as_ref()?
        .broker
}

/// Takes the keys by which any broker is told where a route's messages go.
fn ignore_addresses(table: &mut ConfigTable<'_>) {
    for key in brokers::brokers().iter().flat_map(|broker| broker.route_keys()) {
        table.take(key, |_| Ok(()));
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

fn matches(
    route: &mut ConfigTable<'_>,
    endpoints: &[NamedSection<EndpointConfig>],
    warnings: &mut Vec<String>,
) -> EventMatch {
    let mut table = route.table("match");
    let names = |value: &Value| -> Result<Vec<String>, String> {
        let names = values::list(value)?;
        let known = endpoints.iter().map(|endpoint| endpoint.name.as_str());
        names
            .iter()
            .try_for_each(|name| one_of(name, "endpoint", known.clone()))?;
        Ok(names)
    };
    let matches = EventMatch {
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
fn defaults(
    sink: &str,
    provider: &str,
    broker: Option<&'static dyn RegisteredBroker>,
    spool_bytes_max: u64,
) -> Vec<RouteConfig> {
    let thumbnail = || vec!["thumbnail".to_owned()];
    let route = |name: &str, matches: EventMatch, mode: RenderMode| RouteConfig {
        name: name.to_owned(),
        sink: sink.to_owned(),
        backlog: BacklogLimit {
            bytes_max: usual_backlog_bytes_max(&matches, spool_bytes_max),
            ..BacklogLimit::default()
        },
        matches,
        address: broker.map(|broker| broker.usual_address(provider, name)),
        mode,
        payload: RoutePayload::Normalized,
        start: CursorStart::Head,
        in_flight_records_max: IN_FLIGHT_RECORDS_MAX as usize,
        in_flight_bytes_max: IN_FLIGHT_BYTES_MAX as usize,
        reorder_window: None,
        reorder_records_max: REORDER_RECORDS_MAX as usize,
        reorder_bytes_max: REORDER_BYTES_MAX as usize,
        dead_letters: KeepDeadLetters::default(),
        overlap: false,
    };
    let events = EventMatch {
        not_kinds: thumbnail(),
        ..EventMatch::default()
    };
    let thumbnails = EventMatch {
        kinds: thumbnail(),
        ..EventMatch::default()
    };
    vec![
        route("events", events, RenderMode::Structured),
        route("thumbnails", thumbnails, RenderMode::Binary),
    ]
}
