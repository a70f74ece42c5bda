//! Forebay takes webhooks in, makes them durable, and lets them out to a message broker in order.
//!
//! The modules, in the order in which a webhook meets them:
//!
//! - `http` keeps the connection that it comes by, and hands on one request at a time,
//! - [`ingress`] reads the request under limits of size and time,
//! - [`senders`] verifies its signature over the raw bytes and turns it into an [`event`],
//! - [`spool`] appends it to a durable log; the sender is answered after the fsync,
//! - [`job`], one per route, follows the log and publishes through a [`sink`],
//! - [`admin`] tells how all that is going.
//!
//! [`order`] is for whoever reads the events from the broker: it makes order of what comes out of order.
//!
//! [`node`] puts them together, [`cli`] starts what was asked for, [`config`], [`settings`] and [`telemetry`] serve all
//! of them.

pub mod admin;
pub mod api;
pub mod cli;
pub mod config;
mod http;
pub mod ingress;
pub mod job;
pub mod lifecycle;
pub mod node;
pub mod settings;
pub mod sink;
pub mod telemetry;

pub use forebay_broker as broker;
pub use forebay_consumer as order;
pub use forebay_event as event;
pub use forebay_log as spool;
pub use forebay_millicast_api as millicast_api;
pub use forebay_senders as senders;
