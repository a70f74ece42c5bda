//! From the tree of values to the typed configuration: defaults, bounds, and what must fit together.

use std::{cell::RefCell, collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use config::Value;
use forebay_section::{ConfigTable, ConfigTree, FoundProblems, LoadContext};

use super::{
    AdminConfig, AllowList, Config, ConfigProblems, EndpointConfig, SecretSource, ServerConfig, Shown, SpoolConfig,
    TracingConfig, exposure, near_keys, source, values,
};
use crate::senders;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
/// Of what every route has settled.
const RETAIN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a record has beyond the body: names, keys and times of the event.
const RECORD_BYTES_EXTRA: u64 = 64 * KIB;

/// Sources of one endpoint's secrets: each has series of its own among the metrics.
const SECRET_SOURCES_MAX: usize = 16;
/// Longer than a file or a volume is away for a moment.
const SECRETS_GRACE: Duration = Duration::from_secs(600);
/// Far more than a delivery takes, and little for who copied a webhook.
const REPLAY_WINDOW: Duration = Duration::from_secs(600);

/// Enough to see how long things take, and little to pay.
const SAMPLE_RATIO: f64 = 0.01;

impl Config {
    /// Reads the file at `path` (TOML or YAML by its extension), lays `env` over it and checks the whole.
    ///
    /// Every problem is in the error, not just the first. The secrets are read once, to see that they can be.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigProblems> {
        let env: Vec<(String, String)> = env.collect();
        let found = FoundProblems::default();
        let config = source::file(path, &found).map(|mut tree| {
            source::overlay(&mut tree, &env, &found);
            let file = path.display().to_string();
            let variables = env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let loader = ConfigLoader {
                context: LoadContext {
                    file: &file,
                    found: &found,
                    env: &variables.collect(),
                },
                warnings: Vec::new(),
            };
            let mut config = loader.config(tree);
            for (variable, text) in near_keys::find(&env, &found.known_keys()) {
                // What is missing may be in there.
                match found.is_empty() {
                    true => config.warnings.push(format!("{variable}: {text}")),
                    false => found.add(&variable, "", text),
                }
            }
            config
        });
        found.or(config)
    }
}

impl AdminConfig {
    /// Reads nothing but where the operator's pages are, as [`Config::load`] would: whether a process is alive is asked
    /// while the rest, such as a secret, may be changing.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigProblems> {
        let env: Vec<(String, String)> = env.collect();
        let found = FoundProblems::default();
        let admin = source::file(path, &found).map(|mut tree| {
            source::overlay(&mut tree, &env, &found);
            let context = LoadContext {
                file: &path.display().to_string(),
                found: &found,
                env: &BTreeMap::new(),
            };
            admin(ConfigTable::new(tree, context).table("admin"))
        });
        found.or(admin)
    }
}

pub(super) struct ConfigLoader<'a> {
    pub context: LoadContext<'a>,
    pub warnings: Vec<String>,
}

impl ConfigLoader<'_> {
    fn config(mut self, tree: ConfigTree) -> Config {
        let mut root = ConfigTable::new(tree, self.context);
        let server = server(root.table("server"));
        let admin = admin(root.table("admin"));
        let spool = spool(root.table("spool"));
        let tracing = self.tracing(root.table("tracing"));
        let endpoints = self.endpoints(&mut root);
        let sinks = self.sinks(&mut root);
        let (routes, unrouted) = self.routes(&mut root, &endpoints, &sinks, spool.bytes_max);
        root.finish();
        for name in spool
            .abandon_routes
            .iter()
            .filter(|name| routes.iter().any(|r| &r.name == *name))
        {
            let text = format!("the route {name} is configured, so it cannot be abandoned as well");
            self.context
                .found
                .add_to(self.context.file, "spool.abandon_routes", text);
        }
        let mut config = Config {
            server,
            admin,
            spool,
            tracing,
            endpoints: endpoints.into_iter().filter_map(|named| named.value).collect(),
            sinks: sinks.into_iter().filter_map(|named| named.value?.sink).collect(),
            routes,
            unrouted,
            warnings: Vec::new(),
        };
        self.relations(&config);
        config.warnings = self.warnings;
        let exposed = exposure::warnings(&config, self.context.file, self.context.found);
        config.warnings.extend(exposed);
        config
    }

    /// The limits that must fit each other.
    fn relations(&mut self, config: &Config) {
        let Config { server, spool, .. } = config;
        let wrong = |key: &str, text: String| self.context.found.add_to(self.context.file, key, text);
        if server.listen == config.admin.listen && server.listen.port() != 0 {
            wrong("admin.listen", format!("{} is server.listen already", server.listen));
        }
        if let Some(health) = &server.health_path
            && let Some(endpoint) = config.endpoints.iter().find(|endpoint| endpoint.path == *health)
        {
            let text = format!("{health:?} is the path of endpoints.{} already", endpoint.name);
            wrong("server.health_path", text);
        }
        if server.proxy_protocol && server.trusted_proxies.is_empty() {
            let text = "without server.trusted_proxies nobody may say by it for whom he connects".to_owned();
            wrong("server.proxy_protocol", text);
        }
        if server.bodies_bytes_max < server.body_bytes_max {
            wrong(
                "server.bodies_bytes_max",
                "below server.body_bytes_max: a large body would never fit".to_owned(),
            );
        }
        if server.body_bytes_max + RECORD_BYTES_EXTRA > config.segment_bytes() {
            let (segment, bytes) = (show(config.segment_bytes()), show(spool.bytes_max));
            let text = format!(
                "{} does not fit into a segment ({segment}) of a spool of {bytes}: lower it, or raise spool.bytes_max",
                show(server.body_bytes_max)
            );
            wrong("server.body_bytes_max", text);
        }
        for route in config
            .routes
            .iter()
            .filter(|r| (r.in_flight_bytes_max as u64) < server.body_bytes_max)
        {
            let key = format!("routes.{}.in_flight_bytes_max", route.name);
            wrong(
                &key,
                "below server.body_bytes_max: a large body would never fit".to_owned(),
            );
        }
        for sink in &config.sinks {
            if let Err((key, text)) = sink.settings.check_sizes(server.body_bytes_max) {
                wrong(&format!("sinks.{}.{key}", sink.name), text);
            }
        }
        for sink in config
            .sinks
            .iter()
            .filter(|sink| config.routes.iter().all(|r| r.sink != sink.name))
        {
            self.warnings.push(format!("sinks.{}: no route uses it", sink.name));
        }
    }

    fn tracing(&mut self, mut table: ConfigTable<'_>) -> Option<TracingConfig> {
        let is_off = !table.has("endpoint");
        let endpoint = table.take("endpoint", values::collector);
        let sample_ratio = table.take("sample_ratio", values::share);
        table.finish();
        if is_off && sample_ratio.is_some() {
            let text = "tracing.sample_ratio: nothing is traced without tracing.endpoint";
            self.warnings.push(text.to_owned());
        }
        Some(TracingConfig {
            endpoint: endpoint?,
            sample_ratio: sample_ratio.unwrap_or(SAMPLE_RATIO),
        })
    }

    fn endpoints(&mut self, root: &mut ConfigTable<'_>) -> Vec<NamedSection<EndpointConfig>> {
        let mut paths: BTreeMap<String, String> = BTreeMap::new();
        let unreadable = RefCell::new(Vec::new());
        let endpoints = self.named(root, "endpoints", |loader, name, mut table| {
            let path = table.require("path", values::path);
            if let Some(path) = &path
                && let Some(other) = paths.insert(path.clone(), name.to_owned())
            {
                let text = format!("{:?} is the path of endpoints.{other} already", Shown(path));
                table.problem("path", text);
            }
            let providers = senders::senders().iter().map(|sender| sender.provider());
            let providers: Vec<_> = providers.map(|provider| (provider.name, provider.number)).collect();
            let provider = table.take_or("provider", senders::usual().provider().number, values::word(&providers));
            let account = table.take("account", account);
            let accounts = table.take("accounts", |value| {
                values::list(value)?
                    .into_iter()
                    .map(legal_account)
                    .collect::<Result<Vec<_>, _>>()
            });
            let (account, accounts) = whose_events(account, accounts);
            if let Some(account) = account
                .as_ref()
                .filter(|account| !accounts.is_empty() && !accounts.contains(account))
            {
                let account = Shown(account);
                table.problem("account", format!("{account:?} is not among the endpoint's accounts"));
            }
            let replay_window = table.take_or("replay_window", REPLAY_WINDOW, values::duration(seconds(0, 7 * 86_400)));
            let secrets = table.require("secrets", |value| {
                let (secrets, unread) = loader.secrets(value)?;
                let key = format!("endpoints.{name}.secrets");
                let warn = |text| format!("{key}: {text}; it starts without it");
                unreadable.borrow_mut().extend(unread.into_iter().map(warn));
                Ok(secrets)
            });
            let secrets_grace = table.take_or(
                "secrets_grace",
                SECRETS_GRACE,
                values::duration(seconds(0, 7 * 24 * 3600)),
            );
            let allow = allow_list(&mut table);
            table.finish();
            Some(EndpointConfig {
                name: name.to_owned(),
                path: path?,
                provider,
                account,
                accounts,
                replay_window,
                secrets: secrets?,
                secrets_grace,
                allow,
            })
        });
        self.warnings.extend(unreadable.into_inner());
        if endpoints.is_empty() {
            let text = "missing: at least one endpoint, [endpoints.<name>] with path and secrets";
            self.context.found.add(self.context.file, "endpoints", text);
        }
        endpoints
    }

    /// The sources, each of which is read once, and what is wrong with those that cannot be read: one that can is
    /// enough.
    fn secrets(&self, value: &Value) -> Result<(Vec<SecretSource>, Vec<String>), String> {
        let texts = values::list(value)?;
        let (mut secrets, mut wrong, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for (index, text) in texts.iter().enumerate() {
            let numbered = |error| format!("number {}: {error}", index + 1);
            match SecretSource::parse(text) {
                Ok(source) => {
                    let read = source.read_with(|name| self.context.variable(name));
                    unread.extend(read.err().map(numbered));
                    secrets.push(source);
                }
                Err(error) => wrong.push(numbered(error)),
            }
        }
        if unread.len() == secrets.len() || !wrong.is_empty() {
            wrong.append(&mut unread);
            wrong.sort();
        }
        match wrong.as_slice() {
            [] if secrets.is_empty() => Err("empty: without a secret no webhook can be verified".to_owned()),
            [] if secrets.len() > SECRET_SOURCES_MAX => Err(format!("more than {SECRET_SOURCES_MAX}")),
            [] => Ok((secrets, unread)),
            wrong => Err(wrong.join("; ")),
        }
    }

    /// Reads `[<name>.<name of the user's own>]`, each with `read`, and checks the names.
    pub fn named<T>(
        &mut self,
        root: &mut ConfigTable<'_>,
        name: &'static str,
        mut read: impl FnMut(&Self, &str, ConfigTable<'_>) -> Option<T>,
    ) -> Vec<NamedSection<T>> {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut all = Vec::new();
        for (own, table) in root.tables(name) {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if own.is_empty() || own.len() > 64 || !own.chars().all(legal) {
                table.problem("", "a name has 1 to 64 of the characters a-z A-Z 0-9 - _");
            }
            if let Some(other) = seen.insert(own.to_lowercase().replace('-', "_"), own.clone()) {
                table.problem(
                    "",
                    format!("too close to {name}.{other}: names must differ in more than case, - and _"),
                );
            }
            let value = read(self, &own, table);
            all.push(NamedSection { name: own, value });
        }
        all
    }
}

/// Who may send to an endpoint, and what becomes of others.
fn allow_list(table: &mut ConfigTable<'_>) -> Option<AllowList> {
    let networks = table.take("allow", |value| {
        let networks = values::networks(value)?;
        if networks.is_empty() {
            return Err("empty: nobody could send; leave it out to let everybody".to_owned());
        }
        Ok(networks)
    });
    let refuses = table.take("allow_mode", values::word(&[("refuse", true), ("log", false)]));
    if networks.is_none() && refuses.is_some() {
        table.problem("allow_mode", "without allow nobody is refused or logged");
    }
    Some(AllowList {
        networks: networks?,
        refuses: refuses.unwrap_or(true),
    })
}

/// What stands under a name of the user's own; `None` when it is not right.
pub(super) struct NamedSection<T> {
    pub name: String,
    pub value: Option<T>,
}

fn show(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

fn seconds(from: u64, to: u64) -> std::ops::RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

fn connections(value: &Value) -> Result<usize, String> {
    values::whole(1..=1_000_000)(value).map(|connections| connections as usize)
}

fn server(mut table: ConfigTable<'_>) -> ServerConfig {
    let server = ServerConfig {
        listen: table.take_or("listen", SocketAddr::from(([0, 0, 0, 0], 8080)), values::listen),
        body_bytes_max: table.take_or("body_bytes_max", 16 * MIB, values::size(KIB..=GIB)),
        bodies_bytes_max: table.take_or("bodies_bytes_max", 256 * MIB, values::size(KIB..=1024 * GIB)),
        body_deadline: table.take_or(
            "body_deadline",
            Duration::from_secs(10),
            values::duration(seconds(1, 600)),
        ),
        connections_max: table.take_or("connections_max", 10_000, connections),
        streams_max: table.take_or("streams_max", 200_000, |value| {
            values::whole(1..=100_000_000)(value).map(|streams| streams as usize)
        }),
        event_ids_max: table.take_or("event_ids_max", 200_000, |value| {
            values::whole(1..=100_000_000)(value).map(|ids| ids as usize)
        }),
        drain_delay: table.take_or("drain_delay", Duration::from_secs(5), values::duration(seconds(0, 600))),
        shutdown_deadline: table.take_or(
            "shutdown_deadline",
            Duration::from_secs(30),
            values::duration(seconds(1, 3600)),
        ),
        trusted_proxies: table.take_or("trusted_proxies", Vec::new(), values::networks),
        connections_per_client_max: table.take_or("connections_per_client_max", 1000, connections),
        keep_alive: table.take_or(
            "keep_alive",
            Duration::from_secs(75),
            values::duration(seconds(2, 3600)),
        ),
        health_path: table.take("health_path", values::path),
        proxy_protocol: table.take_or("proxy_protocol", false, values::flag),
    };
    table.finish();
    server
}

fn admin(mut table: ConfigTable<'_>) -> AdminConfig {
    let listen = table.take_or("listen", SocketAddr::from(([127, 0, 0, 1], 9464)), values::listen);
    table.finish();
    AdminConfig { listen }
}

fn spool(mut table: ConfigTable<'_>) -> SpoolConfig {
    let bytes_max = table.take_or("bytes_max", 10 * GIB, values::size(16 * MIB..=1024 * 1024 * GIB));
    let spool = SpoolConfig {
        dir: table.take_or("dir", "/var/lib/forebay".into(), |value| {
            values::text(value).map(Into::into)
        }),
        bytes_max,
        retain: table.take_or("retain", Duration::ZERO, values::duration(Duration::ZERO..=RETAIN_MAX)),
        retain_bytes_max: table.take_or("retain_bytes_max", bytes_max / 2, values::size(0..=bytes_max)),
        thumbnail_share_max: table.take_or("thumbnail_share_max", 0.5, values::share),
        replica: table.take("replica", replica),
        abandon_routes: table.take_or("abandon_routes", Vec::new(), values::list),
    };
    table.finish();
    spool
}

fn replica(value: &Value) -> Result<String, String> {
    let name = values::text(value)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.len() > 253 || !name.chars().all(legal) {
        return Err(format!(
            "{:?} is not a name of 1 to 253 of the characters a-z A-Z 0-9 - _ .",
            Shown(&name)
        ));
    }
    Ok(name)
}

/// The account of events that name none, and those whose events are taken for what they name. Each goes without saying
/// where only the other one is there: an endpoint with an account takes this one's events, and a single account is the
/// endpoint's.
fn whose_events(account: Option<String>, accounts: Option<Vec<String>>) -> (Option<String>, Vec<String>) {
    match (account, accounts) {
        (Some(account), None) => (Some(account.clone()), vec![account]),
        (None, Some(accounts)) => match accounts.as_slice() {
            [only] => (Some(only.clone()), accounts),
            _ => (None, accounts),
        },
        (account, accounts) => (account, accounts.unwrap_or_default()),
    }
}

fn account(value: &Value) -> Result<String, String> {
    legal_account(values::text(value)?)
}

fn legal_account(account: String) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_graphic() && c != '/';
    if account.len() > 128 || !account.chars().all(legal) {
        return Err(format!(
            "{:?} is not an account: up to 128 letters, digits and signs, no /",
            Shown(&account)
        ));
    }
    Ok(account)
}
