//! `forebay serve`: takes webhooks in and publishes them, until told to stop.

use super::{CommandFailure, ExitCause, ServeArgs, runtime};
use crate::node::{BuildError, ConfigFile, HandedError, HandedSockets, Node, RunError};

pub(super) fn run(args: &ServeArgs) -> Result<ExitCause, CommandFailure> {
    let handed = HandedSockets::from_environment()?;
    let file = ConfigFile::new(args.config.config.clone(), args.watch);
    let config = file.load()?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    runtime()?.block_on(async {
        let node = Node::open(config, handed).await?;
        for address in node.public_addresses() {
            tracing::info!(%address, "listening for webhooks");
        }
        for address in node.admin_addresses() {
            tracing::info!(%address, "listening for the operator: /livez /readyz /metrics /status");
        }
        node.run(Some(file)).await?;
        Ok(ExitCause::Ok)
    })
}

impl From<HandedError> for CommandFailure {
    fn from(error: HandedError) -> Self {
        Self::usage(format!("failed to start: {error}"))
    }
}

impl From<BuildError> for CommandFailure {
    fn from(error: BuildError) -> Self {
        let text = format!("failed to start: {error}");
        match error {
            BuildError::Spool(_) | BuildError::KeptFile { .. } => Self::disk(text),
            BuildError::CursorWithoutRoute { .. }
            | BuildError::RouteCannotEnd { .. }
            | BuildError::RoutePaused(_)
            | BuildError::Secret { .. }
            | BuildError::Sink { .. }
            | BuildError::NoSpool(_)
            | BuildError::Tracing(_) => Self::usage(text),
            BuildError::Descriptors { .. } | BuildError::Ingress(_) | BuildError::Admin(_) => Self::unavailable(text),
            BuildError::Signals(_) | BuildError::Thread(_) => Self::bug(text),
        }
    }
}

impl From<RunError> for CommandFailure {
    fn from(error: RunError) -> Self {
        let text = format!("stopped: {error}");
        match error {
            RunError::Disk(_) => Self::disk(text),
            RunError::Bug(_) => Self::bug(text),
            RunError::StoppedAtOnce => Self::not_right(text),
        }
    }
}
