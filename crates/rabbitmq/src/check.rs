//! `forebay check --connect`: what would keep a RabbitMQ sink from working, or its consumers from getting everything,
//! found before it does. Nothing is published and nothing is made.

mod queues;

use lapin::{ErrorKind, options::ExchangeUnbindOptions, types::FieldTable};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    BrokerLink, connect,
    management::{ManagementApi, UnknownQueues},
    topology,
};
use crate::failure::RabbitMqCause;
use crate::settings;
use forebay_broker::{CheckFinding, FindingLevel, message_bytes_max};

const MIB: u64 = 1024 * 1024;

/// Connects to each node of the sink called `sink`, looks at its exchange, and asks the management API for what AMQP
/// does not tell. Takes up to a quarter of a minute for each node that does not answer.
pub async fn connect_check(sink: &str, config: &settings::RabbitMqConfig, body_bytes_max: u64) -> Vec<CheckFinding> {
    let (link, mut findings) = nodes(sink, config).await;
    let Some(link) = link else { return findings };
    findings.push(exchange(&link, sink, config).await);
    if let Some(finding) = writable(&link, config).await {
        findings.push(finding);
    }
    link.close().await;
    findings.extend(managed(sink, config, body_bytes_max).await);
    findings
}

/// A connection to the first node that takes one, and what each of them said.
async fn nodes(sink: &str, config: &settings::RabbitMqConfig) -> (Option<BrokerLink>, Vec<CheckFinding>) {
    let mut first = None;
    let mut good = Vec::new();
    let mut failed = Vec::new();
    for uri in &config.uris {
        let mut one = config.clone();
        one.uris = vec![uri.clone()];
        match connect(&one, sink, "forebay check", 0).await {
            Ok(link) => {
                let text = format!(
                    "sink '{sink}': connected to {}, virtual host '{}'",
                    link.node, link.node.vhost
                );
                good.push(CheckFinding::new(FindingLevel::Good, text));
                match &first {
                    None => first = Some(link),
                    Some(_) => link.close().await,
                }
            }
            Err(failure) => failed.push(failure.text),
        }
    }
    // With another node the sink works.
    let level = if first.is_some() {
        FindingLevel::Warning
    } else {
        FindingLevel::Problem
    };
    good.extend(failed.into_iter().map(|text| CheckFinding::new(level, text)));
    (first, good)
}

async fn exchange(link: &BrokerLink, sink: &str, config: &settings::RabbitMqConfig) -> CheckFinding {
    let passive = settings::RabbitMqConfig {
        declare: false,
        ..config.clone()
    };
    let name = &config.exchange;
    match topology::ensure(link, &passive).await {
        Ok(()) => CheckFinding::new(FindingLevel::Good, format!("sink '{sink}': exchange '{name}' is there")),
        Err(failure) if config.declare && failure.cause == RabbitMqCause::UnknownExchange => CheckFinding::new(
            FindingLevel::Good,
            format!(
                "sink '{sink}': exchange '{name}' is not there yet and will be declared, with {} queues and '{}'",
                config.partitions,
                topology::dead_letters(name)
            ),
        ),
        Err(failure) => CheckFinding::new(FindingLevel::Problem, format!("sink '{sink}': {}", failure.text)),
    }
}

/// Whether the user may publish: the right to write is the first thing that is looked at when a binding to the exchange
/// is taken off, and one that is not there can be taken off.
async fn writable(link: &BrokerLink, config: &settings::RabbitMqConfig) -> Option<CheckFinding> {
    let asked = async {
        let channel = link.create_channel().await?;
        channel
            .exchange_unbind(
                config.exchange.as_str().into(),
                "amq.topic".into(),
                "forebay.check".into(),
                ExchangeUnbindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        channel.close(200, "OK".into()).await
    };
    let name = &config.exchange;
    let good = || CheckFinding::new(FindingLevel::Good, format!("exchange '{name}' may be written to"));
    let error = match timeout(topology::STEP_DEADLINE, asked).await {
        Ok(Ok(())) => return Some(good()),
        Ok(Err(error)) => error,
        Err(_) => return None,
    };
    match error.kind() {
        ErrorKind::ProtocolError(error) if error.get_id() == 403 => {
            let told = error.get_message().as_str();
            if !told.contains(&format!("'{name}'")) {
                // The right to read the other exchange, which nobody needs, was looked at next.
                return Some(good());
            }
            let text = format!("exchange '{name}' may not be written to ({told}): grant the user write on it");
            Some(CheckFinding::new(FindingLevel::Problem, text))
        }
        _ => None,
    }
}

/// What the management API says, or that it says nothing, and what was therefore not looked at.
async fn managed(sink: &str, config: &settings::RabbitMqConfig, body_bytes_max: u64) -> Vec<CheckFinding> {
    let unknown = |cause: String| {
        let text = format!(
            "sink '{sink}': {cause}; not checked: the exchange's type, bindings, kinds and arguments of queues, consumers, RabbitMQ's \
             version and its limit of a message (set management on the sink)"
        );
        vec![CheckFinding::new(FindingLevel::Warning, text)]
    };
    let management = match ManagementApi::from_config(config) {
        Ok(management) => management,
        Err(cause) => return unknown(cause),
    };
    let overview = match management.ask(&["api", "overview"]).await {
        Ok(overview) => overview,
        Err(error) => return unknown(error.to_string()),
    };
    // The API is a part of RabbitMQ, and has its version.
    let version = overview["management_version"].as_str().unwrap_or("?");
    let mut findings = vec![size(sink, version, body_bytes_max)];
    match of_exchange(&management, config).await {
        Ok(found) => findings.extend(found),
        // It is declared, or was reported already.
        Err(UnknownQueues::NotThere) => {}
        Err(UnknownQueues::NoAnswer(cause)) => findings.push(CheckFinding::new(FindingLevel::Warning, cause)),
    }
    findings
}

/// The version, and whether the largest message is within its default limit, which no API tells.
fn size(sink: &str, version: &str, body_bytes_max: u64) -> CheckFinding {
    match too_small(sink, version, body_bytes_max) {
        Some(text) => CheckFinding::new(FindingLevel::Warning, text),
        None => CheckFinding::new(FindingLevel::Good, format!("sink '{sink}': RabbitMQ {version}")),
    }
}

fn too_small(sink: &str, version: &str, body_bytes_max: u64) -> Option<String> {
    let major: u32 = version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or(0);
    let taken = if major >= 4 { 16 * MIB } else { 128 * MIB };
    let needed = message_bytes_max(body_bytes_max);
    (needed > taken).then(|| {
        format!(
            "sink '{sink}': RabbitMQ {version} takes messages of {taken} bytes unless its max_message_size says more, and a body of \
             server.body_bytes_max ({body_bytes_max}) can become {needed}: larger ones become dead letters; raise max_message_size \
             or lower body_bytes_max"
        )
    })
}

/// Why RabbitMQ may not take everything that is accepted. `None` also where the management API does not answer.
pub(super) async fn takes_less(sink: &str, config: &settings::RabbitMqConfig, body_bytes_max: u64) -> Option<String> {
    let overview = ManagementApi::from_config(config)
        .ok()?
        .ask(&["api", "overview"])
        .await
        .ok()?;
    too_small(sink, overview["management_version"].as_str()?, body_bytes_max)
}

async fn of_exchange(
    management: &ManagementApi,
    config: &settings::RabbitMqConfig,
) -> Result<Vec<CheckFinding>, UnknownQueues> {
    let name = config.exchange.as_str();
    let exchange = management.of_vhost("exchanges", &[name]).await?;
    let mut findings = Vec::new();
    match exchange["type"].as_str() {
        Some("topic") => {}
        other => findings.push(CheckFinding::new(
            FindingLevel::Problem,
            format!(
                "exchange '{name}' is of type {}: bindings by routing key need topic; delete it and make it anew",
                other.unwrap_or("?")
            ),
        )),
    }
    if exchange["durable"] == Value::Bool(false) {
        let text = format!("exchange '{name}' is not durable: it is gone when RabbitMQ restarts, and the route waits");
        findings.push(CheckFinding::new(FindingLevel::Warning, text));
    }
    let policy = match exchange["policy"].as_str() {
        Some(policy) => management.of_vhost("policies", &[policy]).await.unwrap_or_default(),
        None => Value::Null,
    };
    let alternates = [
        &exchange["arguments"]["alternate-exchange"],
        &policy["definition"]["alternate-exchange"],
    ];
    if let Some(alternate) = alternates.into_iter().find_map(Value::as_str) {
        let text = format!(
            "exchange '{name}' has the alternate exchange '{alternate}': what no queue takes goes there and counts as delivered"
        );
        findings.push(CheckFinding::new(FindingLevel::Warning, text));
    }
    let bindings = management.of_vhost("exchanges", &[name, "bindings", "source"]).await?;
    let all = management.of_vhost("queues", &[]).await?;
    findings.extend(queues::judge(config, &bindings, &all));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limit_of_a_version_is_compared_with_the_largest_message() {
        assert!(too_small("rabbit", "3.13.7", 64 * MIB).is_none());
        assert!(too_small("rabbit", "4.0.5", 11 * MIB).is_none());
        let text = too_small("rabbit", "4.1.0", 16 * MIB).expect("21 MiB do not fit into 16 MiB");
        for part in ["sink 'rabbit'", "4.1.0", "16777216", "22435160", "max_message_size"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
