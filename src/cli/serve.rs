//! `forebay serve`: takes webhooks in and publishes them, until told to stop.

use super::{ConfigArg, Exit, Failure, runtime};
use crate::{
    app::{App, BuildError, Handed, HandedError, RunError},
    config::{Config, process_env},
};

pub(super) fn run(args: &ConfigArg) -> Result<Exit, Failure> {
    let handed = Handed::from_environment()?;
    let config = Config::load(&args.config, process_env())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    runtime()?.block_on(async {
        let app = App::build(config, handed).await?;
        for address in app.public_addresses() {
            tracing::info!(%address, "listening for webhooks");
        }
        for address in app.admin_addresses() {
            tracing::info!(%address, "listening for the operator: /livez /readyz /metrics /status");
        }
        app.run().await?;
        Ok(Exit::Ok)
    })
}

impl From<HandedError> for Failure {
    fn from(error: HandedError) -> Self {
        Self::usage(format!("failed to start: {error}"))
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let text = format!("failed to start: {error}");
        match error {
            BuildError::Spool(_) | BuildError::KeptFile { .. } => Self::disk(text),
            BuildError::CursorWithoutRoute { .. }
            | BuildError::Secret { .. }
            | BuildError::Sink { .. }
            | BuildError::NoSpool(_)
            | BuildError::Tracing(_) => Self::usage(text),
            BuildError::Descriptors { .. } | BuildError::Ingress(_) | BuildError::Admin(_) => Self::unavailable(text),
            BuildError::Signals(_) | BuildError::Thread(_) => Self::bug(text),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let text = format!("stopped: {error}");
        match error {
            RunError::Disk(_) => Self::disk(text),
            RunError::Bug(_) => Self::bug(text),
            RunError::StoppedAtOnce => Self::not_right(text),
        }
    }
}
