//! What a configuration comes to: types that cannot be wrong, for all who are told something by it.
//!
//! `config` makes them, of a file and the environment.

mod secret;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use crate::{
    broker::{RouteAddress, SinkSettings, TopicTemplate},
    event::{ProviderNumber, render::RenderMode},
    senders::{self, RoutePayload, Sender},
    spool::CursorStart,
};

pub use forebay_section::{Shown, TextSource, host_of};
pub use secret::{SecretSource, SecretSourceError};

/// Everything a running Forebay was told.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    pub admin: AdminConfig,
    pub spool: SpoolConfig,
    /// `None`: off.
    pub tracing: Option<TracingConfig>,
    pub endpoints: Vec<EndpointConfig>,
    pub sinks: Vec<SinkConfig>,
    pub routes: Vec<RouteConfig>,
    /// What no route wants, where that may be something; the route that it becomes has no sink.
    pub unrouted: Option<RouteConfig>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

impl Config {
    /// The same, with nothing to take in or to publish: what a node is before its configuration is applied.
    pub fn without_routes(&self) -> Self {
        Self {
            endpoints: Vec::new(),
            sinks: Vec::new(),
            routes: Vec::new(),
            unrouted: None,
            warnings: Vec::new(),
            ..self.clone()
        }
    }

    /// The size of the spool's segments: 64 MiB, or a quarter of a small spool.
    pub fn segment_bytes(&self) -> u64 {
        (64 * 1024 * 1024).min(self.spool.bytes_max / 4)
    }
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub body_bytes_max: u64,
    /// All bodies that are being read, together. Over it: 503.
    pub bodies_bytes_max: u64,
    pub body_deadline: Duration,
    pub connections_max: usize,
    /// Of one client; the trusted proxies themselves are not counted.
    pub connections_per_client_max: usize,
    /// How long a connection is kept between an answer and the next request.
    pub keep_alive: Duration,
    /// A path that is answered 200 while webhooks are taken in; `None`: there is none.
    pub health_path: Option<String>,
    /// Connections of trusted proxies begin with a header of the PROXY protocol, version 2.
    pub proxy_protocol: bool,
    /// How many streams' newest times are remembered.
    pub streams_max: usize,
    /// How many ids of events are remembered.
    pub event_ids_max: usize,
    pub drain_delay: Duration,
    pub shutdown_deadline: Duration,
    pub trusted_proxies: Vec<IpNetwork>,
}

/// An IP network in CIDR notation, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    pub address: IpAddr,
    pub prefix_bits: u8,
}

impl IpNetwork {
    /// Whether it holds `address`; one of IPv4 that is written as one of IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network_bits, bits, width) = match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.prefix_bits).min(width);
        (network_bits ^ bits).checked_shr(host_bits).unwrap_or(0) == 0
    }
}

impl FromStr for IpNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                r#"{:?} is not a network such as "10.0.0.0/8" or "2001:db8::1""#,
                Shown(text)
            )
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= bits_max).ok_or_else(wrong)?,
            None => bits_max,
        };
        Ok(Self { address, prefix_bits })
    }
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq)]
pub struct AdminConfig {
    pub listen: SocketAddr,
}

/// `[spool]`
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    pub dir: PathBuf,
    pub bytes_max: u64,
    pub thumbnail_share_max: f64,
    /// How long records stay after every route has settled them. Zero: not at all.
    pub retain: Duration,
    /// What they may take of `bytes_max` until then.
    pub retain_bytes_max: u64,
    /// `None`: what the directory says, else the host's name.
    pub replica: Option<String>,
    /// Routes that have left the configuration and whose cursors are to be forgotten, with what only they kept.
    pub abandon_routes: Vec<String>,
}

/// `[tracing]`
#[derive(Debug, Clone, PartialEq)]
pub struct TracingConfig {
    /// The collector's base URL.
    pub endpoint: String,
    /// The share of the traces that begin here that is recorded.
    pub sample_ratio: f64,
}

/// `[endpoints.<name>]`
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    pub name: String,
    pub path: String,
    pub provider: ProviderNumber,
    /// Of events that name none.
    pub account: Option<String>,
    /// Whose events it takes for what they name; empty: anybody's.
    pub accounts: Vec<String>,
    /// Zero: nothing is marked as stale or repeated.
    pub replay_window: Duration,
    pub secrets: Vec<SecretSource>,
    /// How long a source that cannot be read keeps what it last held, while another can be read.
    pub secrets_grace: Duration,
    /// `None`: everybody may send.
    pub allow: Option<AllowList>,
}

impl EndpointConfig {
    /// Who sends to it.
    pub fn sender(&self) -> &'static dyn Sender {
        senders::numbered(self.provider).expect("a checked endpoint names a sender that is registered")
    }
}

/// Who may send to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList {
    pub networks: Vec<IpNetwork>,
    /// Others are refused; else they are only counted and logged.
    pub refuses: bool,
}

/// `[sinks.<name>]`
#[derive(Debug, Clone, PartialEq)]
pub struct SinkConfig {
    pub name: String,
    /// What its broker has read.
    pub settings: SinkSettings,
}

/// `[routes.<name>]`
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    pub name: String,
    /// The name of its sink, which exists.
    pub sink: String,
    pub matches: EventMatch,
    /// Where its messages go at its sink's broker. `None`: nowhere, for it has no sink.
    pub address: Option<RouteAddress>,
    pub mode: RenderMode,
    pub payload: RoutePayload,
    /// Where the route begins when it is new.
    pub start: CursorStart,
    pub in_flight_records_max: usize,
    pub in_flight_bytes_max: usize,
    /// How long an event is held back at most, for those of its stream that happened before it; `None`: not at all.
    pub reorder_window: Option<Duration>,
    /// Events held back: over it, the one that waits longest goes out.
    pub reorder_records_max: usize,
    pub reorder_bytes_max: usize,
    pub dead_letters: KeepDeadLetters,
    pub backlog: BacklogLimit,
    /// Other routes may publish the same events to the same place.
    pub overlap: bool,
}

impl RouteConfig {
    /// What the place of its messages is made from, where that is more than the event: a topic.
    pub fn template(&self) -> Option<&TopicTemplate> {
        self.address.as_ref()?.template()
    }

    /// The route of what none of `others` wants, where none is configured: it has no sink, and its events become dead
    /// letters, the oldest of which make room for the newest.
    pub fn unrouted(others: Vec<EventMatch>) -> Self {
        Self {
            name: UNROUTED.to_owned(),
            sink: String::new(),
            matches: EventMatch {
                except: others,
                ..EventMatch::default()
            },
            address: None,
            mode: RenderMode::Structured,
            payload: RoutePayload::Normalized,
            start: CursorStart::Head,
            in_flight_records_max: 1,
            in_flight_bytes_max: 1,
            reorder_window: None,
            reorder_records_max: 1,
            reorder_bytes_max: 1,
            dead_letters: KeepDeadLetters {
                when_full: WhenFull::DropOldest,
                ..KeepDeadLetters::default()
            },
            backlog: BacklogLimit::default(),
            overlap: false,
        }
    }
}

/// Which events a route wants: all of these conditions, each of which is met when it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventMatch {
    pub kinds: Vec<String>,
    pub not_kinds: Vec<String>,
    pub endpoints: Vec<String>,
    pub not_endpoints: Vec<String>,
    /// None of these.
    pub except: Vec<EventMatch>,
}

/// The route of what no other wants. Where it is not configured, its events are kept among the dead letters.
pub const UNROUTED: &str = "unrouted";

/// What becomes of a dead letter for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for some.
    Hold,
    /// The oldest ones go for it.
    DropOldest,
}

/// What a route may keep in the spool that it has not published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BacklogLimit {
    /// `None`: as much as there is room for.
    pub bytes_max: Option<u64>,
    pub when_full: BacklogFull,
}

/// What becomes of an event that a route wants which may keep no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BacklogFull {
    /// It is not accepted.
    #[default]
    Refuse,
    /// The oldest of the route's that are not on their way go to its dead letters.
    DeadLetter,
    /// They are given up.
    DropOldest,
}

/// How the dead letters of a route are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepDeadLetters {
    /// What they may take of the disk.
    pub bytes_max: u64,
    pub when_full: WhenFull,
}

impl KeepDeadLetters {
    const BYTES_MAX: u64 = 256 << 20;
}

impl Default for KeepDeadLetters {
    fn default() -> Self {
        Self {
            bytes_max: Self::BYTES_MAX,
            when_full: WhenFull::Hold,
        }
    }
}

impl EventMatch {
    /// Whether an event of this kind, taken in by this endpoint, is wanted.
    pub fn accepts(&self, kind: &str, endpoint: &str) -> bool {
        let among = |list: &[String], word: &str| list.iter().any(|one| one == word);
        (self.kinds.is_empty() || among(&self.kinds, kind))
            && !among(&self.not_kinds, kind)
            && (self.endpoints.is_empty() || among(&self.endpoints, endpoint))
            && !among(&self.not_endpoints, endpoint)
            && !self.except.iter().any(|other| other.accepts(kind, endpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_no_bits_holds_every_address_of_its_family() {
        let network = |text: &str| text.parse::<IpNetwork>().unwrap();
        assert!(network("0.0.0.0/0").contains("203.0.113.5".parse().unwrap()));
        assert!(network("::/0").contains("2001:db8::1".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("2001:db8::1".parse().unwrap()));
    }
}
