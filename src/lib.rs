//! Forebay takes webhooks in, makes them durable, and lets them out to a message broker in order.
//!
//! The modules, in the order in which a webhook meets them:
//!
//! - `http` keeps the connection that it comes by, and hands on one request at a time,
//! - [`ingress`] reads the request under limits of size and time,
//! - [`provider`] verifies its signature over the raw bytes and turns it into an [`event`],
//! - [`spool`] appends it to a durable log; the sender is answered after the fsync,
//! - [`job`], one per route, follows the log and publishes through a [`sink`],
//! - [`admin`] tells how all that is going.
//!
//! [`order`] is for whoever reads the events from the broker: it makes order of what comes out of order.
//!
//! [`app`] puts them together, [`cli`] starts what was asked for, [`config`] and [`telemetry`] serve all of them.

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
pub mod event;
#[cfg(feature = "server")]
mod http;
#[cfg(feature = "server")]
mod http_client;
#[cfg(feature = "server")]
pub mod ingress;
#[cfg(feature = "server")]
pub mod job;
#[cfg(feature = "server")]
pub mod lifecycle;
pub mod order;
#[cfg(feature = "server")]
pub mod provider;
#[cfg(feature = "server")]
pub mod sink;
#[cfg(feature = "server")]
pub mod spool;
#[cfg(feature = "server")]
pub mod telemetry;
