//! File descriptors: what the routes and the log need is set aside at the start, and connections get the rest.
//!
//! A connection that takes the last descriptor takes it from a segment or a broker. So `connections_max` is lowered to
//! what the limit of open files leaves, and where that limit has no room for the routes, the start is refused.

use std::thread::available_parallelism;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{BuildError, operator::RUNNING_JOBS_MAX};
use crate::{config::Config, ingress, job::DeadLetters};

/// The log's files, what was inherited, the runtime, and what connections and brokers are woken by.
const OF_PROCESS: u64 = 64;
/// A worker has its own poll and wakers.
const OF_WORKER: u64 = 8;
/// What comes and goes: looks for topics and the producers of large records, the first dead letter of a route, files
/// that are read again.
const PASSING: u64 = 48;
/// The lock, the directories, the cursors, the segment that is written and one that is read.
const OF_DEAD_LETTERS: u64 = 8;
/// A segment of the log that is read.
const OF_READER: u64 = 1;
/// The operator's socket, and those who ask by it.
const OF_OPERATOR: u64 = 8;
/// A cluster has more brokers than are listed, unless that would leave too few connections.
const BROKERS_MIN: u64 = 3;
const CONNECTIONS_AMPLE: usize = 64;
/// With fewer connections than this there is no start.
const CONNECTIONS_MIN: usize = 16;
/// Of the descriptors, one in so many is for a connection of the operator's.
const ADMIN_ONE_IN: u64 = 32;
const ADMIN_CONNECTIONS_MIN: usize = 16;
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// What may be open beside the routes and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionShares {
    pub public: usize,
    pub admin: usize,
    /// Descriptors that are for neither.
    pub set_aside: u64,
}

/// Raises the soft limit of open files to the hard one, and divides it.
///
/// # Errors
///
/// There is no room for the routes.
pub(super) fn share(config: &Config) -> Result<ConnectionShares, BuildError> {
    let allowed = raise_limit();
    let wanted = config.server.connections_max;
    let shares = divide(allowed, wanted, |brokers_min| need(config, brokers_min));
    if shares.public < CONNECTIONS_MIN.min(wanted) {
        return Err(BuildError::Descriptors {
            allowed,
            needed: shares.set_aside,
            routes: config.routes.len(),
        });
    }
    Ok(shares)
}

/// Logs that there can be fewer connections than are configured, where that is so.
pub(super) fn log_lowered(config: &Config, shares: ConnectionShares) {
    let wanted = config.server.connections_max;
    if shares.public < wanted {
        tracing::warn!(
            wanted,
            possible = shares.public,
            open_files_max = raise_limit(),
            set_aside = shares.set_aside,
            routes = config.routes.len(),
            "connections_max is lowered to what the limit of open files leaves beside the routes and the log; raise the limit \
             (LimitNOFILE=, ulimit -n)"
        );
    }
}

/// Raises the soft limit of open files to the hard one, for a process that takes no connections.
///
/// # Errors
///
/// There is no room for the routes.
pub(super) fn check(config: &Config) -> Result<(), BuildError> {
    let (allowed, needed) = (raise_limit(), need(config, 1));
    match needed > allowed {
        true => Err(BuildError::Descriptors {
            allowed,
            needed,
            routes: config.routes.len(),
        }),
        false => Ok(()),
    }
}

fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    allowed.unwrap_or(u64::MAX)
}

/// What is not for connections, where a cluster has at least so many brokers.
fn need(config: &Config, brokers_min: u64) -> u64 {
    let workers = available_parallelism().map_or(1, usize::from) as u64;
    let routes = config.routes.iter().map(|route| {
        let sink = config.sinks.iter().find(|sink| sink.name == route.sink);
        let sink = sink.expect("a checked route names a sink that exists");
        OF_READER + sink.settings.descriptors(brokers_min)
    });
    let dead_letters = DeadLetters::logs(&super::spools::dead_letters_dir(config)) as u64 * OF_DEAD_LETTERS;
    // A replay, or a redrive, publishes by a client of its own.
    let of_job = config
        .sinks
        .iter()
        .map(|sink| OF_READER + sink.settings.descriptors(brokers_min));
    let of_jobs = of_job.max().unwrap_or(0) * RUNNING_JOBS_MAX as u64;
    OF_PROCESS + OF_WORKER * workers + PASSING + OF_OPERATOR + routes.sum::<u64>() + of_jobs + dead_letters
}

/// The shares of connections, and how many descriptors they leave for everything else.
fn divide(allowed: u64, wanted: usize, need: impl Fn(u64) -> u64) -> ConnectionShares {
    let admin = usize::try_from(allowed / ADMIN_ONE_IN).unwrap_or(usize::MAX);
    let admin = admin.clamp(ADMIN_CONNECTIONS_MIN, ADMIN_CONNECTIONS_MAX);
    let shares = |brokers_min| {
        let needed = need(brokers_min);
        let left = allowed
            .saturating_sub(needed)
            .saturating_sub(ingress::files_for(admin) as u64);
        let public = affordable(left, wanted);
        ConnectionShares {
            public,
            admin,
            set_aside: needed,
        }
    };
    let ample = shares(BROKERS_MIN);
    match ample.public < CONNECTIONS_AMPLE.min(wanted) {
        true => shares(1),
        false => ample,
    }
}

fn affordable(files: u64, wanted: usize) -> usize {
    let possible = usize::try_from(files).unwrap_or(usize::MAX);
    let most = possible.saturating_sub(ingress::files_for(0)) / 9 * 8;
    most.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_routes_leave() {
        // Forty-five routes to a cluster of which one broker is listed.
        let many = |brokers_min| 128 + 45 * (3 + 3 * brokers_min);
        let two = |brokers_min| 128 + 2 * (3 + 3 * brokers_min);
        for (allowed, wanted, need, public) in [
            (u64::MAX, 10_000, &many as &dyn Fn(u64) -> u64, 10_000),
            (65_536, 10_000, &many, 10_000),
            (1024, 10_000, &two, 712),
            (1024, 100, &two, 100),
            // With room for what is listed, and no more.
            (600, 10_000, &many, 128),
            (400, 10_000, &many, 0),
            (10, 10_000, &two, 0),
        ] {
            let shares = divide(allowed, wanted, need);
            assert_eq!(shares.public, public, "{allowed} files, {wanted} wanted");
            let sum = shares.set_aside + (ingress::files_for(shares.public) + ingress::files_for(shares.admin)) as u64;
            assert!(public == 0 || sum <= allowed, "{sum} of {allowed}");
        }
    }
}
