//! What is read: the topics or queues of each route, or those that were named.

use std::time::Duration;

use super::VerifyArgs;
use crate::{
    cli::CommandFailure,
    config::{Config, RouteConfig, process_env},
    event::Time,
    senders::RoutePayload,
    sink::{EventSource, MessageReading, ReadOptions, RouteAddress},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// Everything that is to be read.
pub struct VerifyPlan {
    pub parts: Vec<(VerifyPart, EventSource<dyn MessageReading>)>,
    /// Every record of a spool is in one of the parts, or a dead letter, or still in the spool.
    pub is_whole: bool,
}

/// What is judged together: the topics of a route, or all queues of a sink.
pub struct VerifyPart {
    /// The route, the routes, or what was named.
    pub name: String,
    pub is_original: bool,
    /// `sequence` may step back where `time` does not.
    pub is_reordered: bool,
}

/// Reads RFC 3339, or a duration back from now; milliseconds since the Unix epoch.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Time::now()
            .0
            .saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    let time = Time::parse(text).filter(|_| text.contains('-'));
    time.map(|time| time.0)
        .ok_or_else(|| "neither a time, such as 2026-01-31T12:00:00Z, nor a duration, such as 2h".to_owned())
}

impl VerifyPlan {
    /// What the arguments mean.
    pub fn from_args(args: &VerifyArgs) -> Result<Self, CommandFailure> {
        let options = ReadOptions {
            from_ms: args.from,
            spend_delivery: args.spend_delivery,
            deadline: CONNECT_DEADLINE,
        };
        if let Some(path) = &args.config {
            return configured(args, &Config::load(path, process_env())?, options);
        }
        let (source, name) = args.verified.source(options)?;
        let part = VerifyPart {
            name,
            is_original: args.original,
            is_reordered: args.reordered,
        };
        Ok(Self {
            parts: vec![(part, source)],
            is_whole: false,
        })
    }
}

/// Routes that publish to one place, which are read together.
struct SharedPlace<'c> {
    sink: &'c str,
    address: &'c RouteAddress,
    part: VerifyPart,
}

/// A part for each place to which routes publish.
fn configured(args: &VerifyArgs, config: &Config, options: ReadOptions) -> Result<VerifyPlan, CommandFailure> {
    let wanted = |route: &&RouteConfig| args.route.as_deref().is_none_or(|name| name == route.name);
    let mut places: Vec<SharedPlace<'_>> = Vec::new();
    for route in config.routes.iter().filter(wanted) {
        let address = route.address.as_ref().expect("a route of a configuration has a sink");
        let is_original = route.payload == RoutePayload::Original;
        let is_reordered = route.reorder_window.is_some();
        let shared = places
            .iter_mut()
            .find(|place| place.sink == route.sink && place.address.template() == address.template());
        if let Some(SharedPlace { part, .. }) = shared {
            part.name = format!("{}, {}", part.name, route.name);
            part.is_original |= is_original;
            part.is_reordered |= is_reordered;
            continue;
        }
        places.push(SharedPlace {
            sink: &route.sink,
            address,
            part: VerifyPart {
                name: route.name.clone(),
                is_original,
                is_reordered,
            },
        });
    }
    if places.is_empty() {
        let known: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let known = known.join(", ");
        return Err(CommandFailure::usage(format!(
            "--route: there is no such route; known: {known}"
        )));
    }
    let opened = places.into_iter().map(|SharedPlace { sink, address, part }| {
        let sink = config.sinks.iter().find(|known| known.name == sink);
        let source = sink.expect("a route's sink exists").settings.read(address, options)?;
        Ok((part, source))
    });
    Ok(VerifyPlan {
        parts: opened.collect::<Result<_, CommandFailure>>()?,
        is_whole: args.route.is_none() && wants_everything(config),
    })
}

/// Whether every event is wanted by some route: of each endpoint, each kind that a route names, and one that none does.
fn wants_everything(config: &Config) -> bool {
    let named = config
        .routes
        .iter()
        .flat_map(|route| route.matches.kinds.iter().chain(&route.matches.not_kinds));
    let kinds: Vec<&str> = named.map(String::as_str).chain(["?"]).collect();
    let taken = |kind: &str, endpoint: &str| config.routes.iter().any(|route| route.matches.accepts(kind, endpoint));
    config
        .endpoints
        .iter()
        .all(|endpoint| kinds.iter().all(|kind| taken(kind, &endpoint.name)))
}
