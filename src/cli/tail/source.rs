//! What is followed: what routes of a configuration publish, or what was named.

use std::time::Duration;

use super::TailArgs;
use crate::{
    cli::CommandFailure,
    config::{Config, process_env},
    sink::{EventSource, MessageTail, TailOptions},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What the arguments mean.
pub(super) fn find(args: &TailArgs) -> Result<EventSource<dyn MessageTail>, CommandFailure> {
    let options = TailOptions {
        from_start: args.from_start,
        deadline: CONNECT_DEADLINE,
    };
    match &args.config {
        Some(path) => configured(args, &Config::load(path, process_env())?, options),
        None => args.followed.source(options),
    }
}

/// What a route publishes, or all routes, which must then have the same sink.
fn configured(
    args: &TailArgs,
    config: &Config,
    options: TailOptions,
) -> Result<EventSource<dyn MessageTail>, CommandFailure> {
    let names = || {
        config
            .routes
            .iter()
            .map(|route| route.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let wanted = |name: &str| args.route.as_deref().is_none_or(|route| route == name);
    let routes: Vec<_> = config.routes.iter().filter(|route| wanted(&route.name)).collect();
    let Some(first) = routes.first() else {
        return Err(CommandFailure::usage(format!(
            "--route: there is no such route; known: {}",
            names()
        )));
    };
    if routes.iter().any(|route| route.sink != first.sink) {
        return Err(CommandFailure::usage(format!(
            "--route is needed, for the routes have several sinks: {}",
            names()
        )));
    }
    let sink = config.sinks.iter().find(|sink| sink.name == first.sink);
    let followed = routes
        .iter()
        .filter_map(|route| Some((route.address.as_ref()?, route.matches.kinds.as_slice())));
    let followed: Vec<_> = followed.collect();
    Ok(sink.expect("a route's sink exists").settings.tail(&followed, options)?)
}
