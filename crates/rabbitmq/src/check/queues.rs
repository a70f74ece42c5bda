//! What the bindings and queues behind an exchange would do to events.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::topology;
use crate::settings;
use forebay_broker::{CheckFinding, FindingLevel};

/// How many names a finding shows.
const NAMES_SHOWN_MAX: usize = 4;

/// Judges by what the management API says: `bindings` with the exchange as source, and all queues of the virtual host.
pub(super) fn judge(config: &settings::RabbitMqConfig, bindings: &Value, queues: &Value) -> Vec<CheckFinding> {
    let bindings: Vec<QueueBinding<'_>> = items(bindings).filter_map(QueueBinding::from_json).collect();
    let mut findings = partitions(config, &bindings);
    let bound = |queue: &&Value| {
        let name = queue["name"].as_str();
        bindings
            .iter()
            .any(|binding| !binding.to_exchange && Some(binding.destination) == name)
    };
    let mut by_fault: BTreeMap<QueueFault, Vec<String>> = BTreeMap::new();
    let mut good = Vec::new();
    for queue in items(queues).filter(bound) {
        let name = queue["name"].as_str().unwrap_or_default().to_owned();
        let faults = faults(queue);
        if faults.is_empty() {
            good.push(name.clone());
        }
        for fault in faults {
            by_fault.entry(fault).or_default().push(name.clone());
        }
    }
    findings.extend(by_fault.into_iter().map(|(fault, names)| {
        CheckFinding::new(
            FindingLevel::Warning,
            format!("{}: {}", named("queue", &names), fault.text()),
        )
    }));
    if !good.is_empty() {
        let text = format!(
            "{}: kept, in order, and with a dead-letter exchange",
            named("queue", &good)
        );
        findings.push(CheckFinding::new(FindingLevel::Good, text));
    }
    findings
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// `queue 'a'`, or `queues 'a', 'b' and 2 more`.
fn named(what: &str, names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMES_SHOWN_MAX)
        .map(|name| format!("'{name}'"))
        .collect();
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{what}{plural} {}{more}", shown.join(", "))
}

struct QueueBinding<'a> {
    key: &'a str,
    destination: &'a str,
    to_exchange: bool,
}

impl<'a> QueueBinding<'a> {
    fn from_json(binding: &'a Value) -> Option<Self> {
        Some(Self {
            key: binding["routing_key"].as_str()?,
            destination: binding["destination"].as_str()?,
            to_exchange: binding["destination_type"] == "exchange",
        })
    }

    /// Whether it can take events of a partition, and whether it takes all of them.
    fn takes(&self, partition: &str) -> (bool, bool) {
        match self.key.split_once('.') {
            None => (self.key == "#", self.key == "#"),
            Some((first, rest)) => {
                let some = first == partition || first == "*" || first == "#";
                (some, some && matches!(rest, "#" | "#.#"))
            }
        }
    }
}

/// Partitions that no binding, or no binding as a whole, takes.
fn partitions(config: &settings::RabbitMqConfig, bindings: &[QueueBinding<'_>]) -> Vec<CheckFinding> {
    let mut none = Vec::new();
    let mut part = Vec::new();
    for partition in 0..config.partitions {
        let word = topology::word(partition);
        let taken: Vec<(bool, bool)> = bindings.iter().map(|binding| binding.takes(&word)).collect();
        if !taken.iter().any(|(some, _)| *some) {
            none.push(word);
        } else if !taken.iter().any(|(_, all)| *all) {
            part.push(word);
        }
    }
    let mut findings = Vec::new();
    let exchange = &config.exchange;
    if none.is_empty() && part.is_empty() {
        let text = format!(
            "exchange '{exchange}': each of the {} partitions has a binding",
            config.partitions
        );
        findings.push(CheckFinding::new(FindingLevel::Good, text));
    }
    if !none.is_empty() && config.declare {
        let text = format!(
            "exchange '{exchange}': {} has no queue yet and gets one",
            named("partition", &none)
        );
        findings.push(CheckFinding::new(FindingLevel::Good, text));
    } else if !none.is_empty() {
        let fate = match config.unroutable {
            settings::Unroutable::DeadLetter => "their events become dead letters",
            settings::Unroutable::Hold => "they hold the route",
        };
        let text = format!(
            "exchange '{exchange}': no queue is bound for {}: {fate}; bind '{}', or set declare = true",
            named("partition", &none),
            format_args!("{}.#", none[0]),
        );
        findings.push(CheckFinding::new(FindingLevel::Warning, text));
    }
    if !part.is_empty() {
        let text = format!(
            "exchange '{exchange}': {} is bound for some kinds of events only: the others are unroutable",
            named("partition", &part)
        );
        findings.push(CheckFinding::new(FindingLevel::Warning, text));
    }
    findings
}

/// What a queue can lose, or get out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum QueueFault {
    Classic,
    Passing,
    Expires,
    Ttl,
    DropHead,
    NoDeadLetters,
    Consumers,
}

impl QueueFault {
    fn text(self) -> &'static str {
        match self {
            Self::Classic => {
                "of type classic, which is on one node: while that is down the route is held, and its disk is all there is; \
                 use quorum"
            }
            Self::Passing => {
                "not durable, auto-delete or exclusive: gone with a restart or its consumer, and all in it"
            }
            Self::Expires => "expires: a queue that nobody uses is deleted with all that is in it; take x-expires off",
            Self::Ttl => "has a message TTL: what consumers do not read in time is gone; take it off",
            Self::DropHead => {
                "has a length limit and drops the oldest message when it is full; set overflow to reject-publish, and the \
                 route waits"
            }
            Self::NoDeadLetters => {
                "no dead-letter exchange: what a consumer rejects is gone, since RabbitMQ 4.0 also what was delivered 20 times"
            }
            Self::Consumers => {
                "more than one consumer and no single active consumer: events of a stream are worked on out of order"
            }
        }
    }
}

fn faults(queue: &Value) -> Vec<QueueFault> {
    let set = |argument: &str| -> Option<&Value> {
        let arguments = &queue["arguments"][format!("x-{argument}")];
        let policy = &queue["effective_policy_definition"][argument];
        [arguments, policy].into_iter().find(|value| !value.is_null())
    };
    let kind = queue["type"].as_str().unwrap_or("classic");
    let is_true = |value: &Value| value.as_bool() == Some(true);
    let mut faults = Vec::new();
    let mut note = |fault: QueueFault, found: bool| faults.extend(found.then_some(fault));
    note(QueueFault::Classic, kind == "classic");
    note(
        QueueFault::Passing,
        is_true(&queue["auto_delete"]) || is_true(&queue["exclusive"]) || queue["durable"].as_bool() == Some(false),
    );
    note(QueueFault::Expires, set("expires").is_some());
    note(QueueFault::Ttl, set("message-ttl").is_some());
    if kind == "stream" {
        return faults;
    }
    let limited = set("max-length").is_some() || set("max-length-bytes").is_some();
    let rejects = set("overflow")
        .and_then(Value::as_str)
        .is_some_and(|how| how.starts_with("reject-publish"));
    note(QueueFault::DropHead, limited && !rejects);
    note(QueueFault::NoDeadLetters, set("dead-letter-exchange").is_none());
    let single = set("single-active-consumer").is_some_and(is_true);
    note(
        QueueFault::Consumers,
        queue["consumers"].as_u64().unwrap_or(0) > 1 && !single,
    );
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_binding_takes_a_partition_as_a_whole_in_part_or_not() {
        for (key, expected) in [
            ("03.#", (true, true)),
            ("*.#", (true, true)),
            ("#", (true, true)),
            ("#.#", (true, true)),
            ("*.feeds.#", (true, false)),
            ("03.feeds.started.a.s", (true, false)),
            ("04.#", (false, false)),
            ("03", (false, false)),
            ("", (false, false)),
        ] {
            let binding = QueueBinding {
                key,
                destination: "q",
                to_exchange: false,
            };
            assert_eq!(binding.takes("03"), expected, "{key}");
        }
    }

    #[test]
    fn each_fault_of_a_queue_is_seen_in_arguments_and_in_policies() {
        let quorum = || json!({"type": "quorum", "durable": true, "arguments": {"x-dead-letter-exchange": "d"}});
        let with = |key: &str, value: Value| {
            let mut queue = quorum();
            queue[key] = value;
            queue
        };
        let policy = |definition: Value| with("effective_policy_definition", definition);
        for (queue, expected) in [
            (quorum(), vec![]),
            (with("type", json!("classic")), vec![QueueFault::Classic]),
            (with("durable", json!(false)), vec![QueueFault::Passing]),
            (with("auto_delete", json!(true)), vec![QueueFault::Passing]),
            (with("arguments", json!({})), vec![QueueFault::NoDeadLetters]),
            (policy(json!({"expires": 5})), vec![QueueFault::Expires]),
            (policy(json!({"message-ttl": 5})), vec![QueueFault::Ttl]),
            (policy(json!({"max-length": 5})), vec![QueueFault::DropHead]),
            (policy(json!({"max-length": 5, "overflow": "reject-publish"})), vec![]),
            (with("consumers", json!(1)), vec![]),
            (with("consumers", json!(2)), vec![QueueFault::Consumers]),
            (json!({"type": "stream", "durable": true}), vec![]),
        ] {
            assert_eq!(faults(&queue), expected, "{queue}");
        }
    }
}
