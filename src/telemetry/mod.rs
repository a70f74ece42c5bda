//! What Forebay tells of itself: metrics, logs, traces.

mod log_queue;
pub mod logging;
pub mod metrics;
mod process;
mod seldom;
pub mod traces;

use std::sync::LazyLock;

pub use metrics::Metrics;
pub use seldom::LogThrottle;
pub use traces::Traces;

/// The version that runs, and the commit that it was built from.
pub fn build_version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("{} (revision {})", env!("CARGO_PKG_VERSION"), metrics::REVISION));
    &VERSION
}
