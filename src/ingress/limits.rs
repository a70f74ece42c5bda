//! How many connections the process's limit of open files allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::BindError;
use crate::http;

/// Files that the rest of the process may have open: segments, cursors, brokers, the admin server.
const FILES_RESERVED: u64 = 256;

/// Raises the soft limit of open files to the hard one, and returns how many of the `wanted` connections it allows.
pub(super) fn connections_max(wanted: usize) -> Result<usize, BindError> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let allowed = allowed.unwrap_or(u64::MAX);
    let possible = affordable(allowed, wanted);
    if possible == 0 {
        return Err(BindError::Files { allowed });
    }
    if possible < wanted {
        tracing::warn!(
            wanted,
            possible,
            files = allowed,
            "connections_max is lowered to what the limit of open files allows; raise it (ulimit -n)"
        );
    }
    Ok(possible)
}

fn affordable(files: u64, wanted: usize) -> usize {
    let possible = files.saturating_sub(FILES_RESERVED);
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    let most = possible.saturating_sub(http::files_for(0)) / 9 * 8;
    most.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_by_open_files() {
        for (files, wanted, expected) in [
            (u64::MAX, 10_000, 10_000),
            (1024, 10_000, 664),
            (1024, 100, 100),
            (256, 100, 0),
            (10, 100, 0),
        ] {
            assert_eq!(affordable(files, wanted), expected, "{files} files, {wanted} wanted");
        }
    }
}
