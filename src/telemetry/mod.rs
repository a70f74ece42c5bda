//! What Forebay tells of itself: metrics, logs, traces.

mod log_queue;
pub mod logging;
pub mod metrics;
mod process;
mod seldom;
pub mod traces;

pub use metrics::Metrics;
pub use seldom::Seldom;
pub use traces::Traces;
