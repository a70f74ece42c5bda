//! An operator's command on a spool on which nothing runs: what is asked of a process is done here.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    BuildError, RunError, close, descriptors,
    jobs::{RouteSetup, RunningJobs},
    metrics::NodeMetrics,
    operator::{NodeOperator, OperatedRoute},
    routes::LiveRoutes,
    stop::StopSignals,
};
use crate::{
    api::{OperatorCaller, OperatorCommand, OperatorRefusal, OperatorService as _},
    config::Config,
    job::DeadLetters,
    spool::Spool,
};

/// A spool that this process holds for an operator. No route runs.
pub struct OperatorRun {
    spool: Spool,
    dead_letters: DeadLetters,
    operator: NodeOperator,
    signals: StopSignals,
    shutdown_deadline: Duration,
}

impl OperatorRun {
    /// Opens the spool.
    ///
    /// # Errors
    ///
    /// There is no spool, another process holds it, or its routes are not those of the configuration.
    pub async fn open(config: &Config) -> Result<Self, BuildError> {
        // A wrong directory must not pass for an empty one.
        if !Spool::exists(&config.spool.dir) {
            return Err(BuildError::NoSpool(config.spool.dir.clone()));
        }
        descriptors::check(config)?;
        let signals = StopSignals::listen().map_err(BuildError::Signals)?;
        let (routes, _) = LiveRoutes::open(config, &NodeMetrics::new(), RunningJobs::default())?;
        let dir = &config.spool.dir;
        let operator = NodeOperator::open(dir, &routes).map_err(|source| BuildError::KeptFile {
            path: dir.clone(),
            source,
        })?;
        let setups = RouteSetup::of_all(config).into_iter();
        operator.show(setups.map(|setup| OperatedRoute { setup, status: None }));
        Ok(Self {
            spool: routes.spool.clone(),
            dead_letters: routes.dead_letters.clone(),
            operator,
            signals,
            shutdown_deadline: config.server.shutdown_deadline,
        })
    }

    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub async fn ask(&self, command: OperatorCommand) -> Result<Value, OperatorRefusal> {
        let uid = rustix::process::geteuid().as_raw();
        self.operator.call(command, OperatorCaller { uid }).await
    }

    /// Resolves when the process is told to stop, or the disk failed.
    pub async fn told(&mut self) -> Result<(), RunError> {
        tokio::select! {
            _ = self.signals.next() => Ok(()),
            reason = self.spool.failed() => Err(RunError::Disk(reason)),
            reason = self.dead_letters.failed() => Err(RunError::Disk(reason)),
        }
    }

    /// Ends in order: what is in flight may settle, and all that was done is durable.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub async fn close(self) -> Result<(), RunError> {
        self.operator.stop(Instant::now() + self.shutdown_deadline).await;
        tokio::select! {
            () = close(&self.spool, &self.dead_letters) => Ok(()),
            reason = self.spool.failed() => Err(RunError::Disk(reason)),
            reason = self.dead_letters.failed() => Err(RunError::Disk(reason)),
        }
    }
}
