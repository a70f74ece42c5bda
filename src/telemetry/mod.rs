//! What Forebay tells of itself: metrics, logs.

pub mod logging;
pub mod metrics;
mod process;

pub use metrics::Metrics;
