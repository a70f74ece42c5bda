//! Routes that publish the same events to the same place.
//!
//! Which events two routes both want is found by trying: every endpoint, every kind that is known or that a route
//! names, and one that none does. Of each of these the topics are compared, where what only the event itself says (its
//! account, its name, an unknown kind) stands for anything. Where they are equal whatever that is, each such event is
//! there twice; where they are equal for some, they may be.

use std::collections::{BTreeSet, HashSet};

use super::{
    EndpointConfig, RouteConfig, SinkConfig, UNROUTED,
    load::NamedSection,
    routes::{NEW_KIND, kinds_to_try},
};
use crate::{
    senders,
    sink::{TemplatePart, TopicTemplate},
};

/// What stands for anything: no topic has these.
const ANY_ACCOUNT: u8 = 1;
const ANY_EVENT: u8 = 2;
const ANY_KIND: u8 = 3;

/// Two routes, and what both publish to one place.
#[derive(Debug)]
pub(super) struct RouteOverlap {
    pub one: String,
    pub other: String,
    /// The kinds, `""` for all others.
    pub kinds: BTreeSet<String>,
    pub endpoints: BTreeSet<String>,
    /// Whatever account and name an event has.
    pub is_certain: bool,
}

/// The pairs of routes that overlap, and do not say that it is meant.
pub(super) fn overlaps(
    routes: &[RouteConfig],
    sinks: &[SinkConfig],
    endpoints: &[NamedSection<EndpointConfig>],
) -> Vec<RouteOverlap> {
    let kinds = kinds_to_try(routes.iter().map(|route| &route.matches));
    let mut overlaps = Vec::new();
    let routes: Vec<&RouteConfig> = routes.iter().filter(|route| route.name != UNROUTED).collect();
    for (at, other) in routes.iter().enumerate() {
        for one in &routes[..at] {
            if one.overlap || other.overlap || !is_same_broker(one, other, sinks) {
                continue;
            }
            overlaps.extend(overlap(one, other, &kinds, endpoints));
        }
    }
    overlaps
}

fn overlap(
    one: &RouteConfig,
    other: &RouteConfig,
    kinds: &[String],
    endpoints: &[NamedSection<EndpointConfig>],
) -> Option<RouteOverlap> {
    let mut certain = RouteOverlap {
        one: one.name.clone(),
        other: other.name.clone(),
        kinds: BTreeSet::new(),
        endpoints: BTreeSet::new(),
        is_certain: true,
    };
    let mut possible = RouteOverlap {
        one: one.name.clone(),
        other: other.name.clone(),
        kinds: BTreeSet::new(),
        endpoints: BTreeSet::new(),
        is_certain: false,
    };
    for endpoint in endpoints {
        for kind in kinds {
            if !one.matches.accepts(kind, &endpoint.name) || !other.matches.accepts(kind, &endpoint.name) {
                continue;
            }
            let (is_same, may_be_same) = compare(one, other, kind, endpoint);
            for found in [(is_same, &mut certain), (may_be_same, &mut possible)] {
                if let (true, overlap) = found {
                    overlap.kinds.insert(kind.clone());
                    overlap.endpoints.insert(endpoint.name.clone());
                }
            }
        }
    }
    [certain, possible]
        .into_iter()
        .find(|overlap| !overlap.kinds.is_empty())
}

/// Whether an event goes to the same topic by both routes: whatever else it says, and at all.
fn compare(
    one: &RouteConfig,
    other: &RouteConfig,
    kind: &str,
    endpoint: &NamedSection<EndpointConfig>,
) -> (bool, bool) {
    let (Some(one), Some(other)) = (one.template(), other.template()) else {
        // Where they go is said by the event alone.
        return (true, true);
    };
    let known: &[String] = endpoint.value.as_ref().map_or(&[], |endpoint| &endpoint.accounts);
    let accounts = known.iter().map(|account| Some(account.as_str())).chain([None]);
    let mut is_same = false;
    let mut may_be_same = false;
    for account in accounts {
        let topic = |template: &TopicTemplate| expand(template, kind, endpoint, account);
        let (one, other) = (topic(one), topic(other));
        is_same |= one == other;
        may_be_same |= can_be_equal(&one, &other);
    }
    (is_same, may_be_same)
}

fn expand(
    template: &TopicTemplate,
    kind: &str,
    endpoint: &NamedSection<EndpointConfig>,
    account: Option<&str>,
) -> Vec<u8> {
    let mut topic = Vec::new();
    for part in &template.parts {
        match part {
            TemplatePart::Literal(text) => topic.extend(text.as_bytes()),
            TemplatePart::Provider => {
                let sender = endpoint
                    .value
                    .as_ref()
                    .map_or_else(senders::usual, EndpointConfig::sender);
                topic.extend(sender.provider().name.bytes());
            }
            TemplatePart::Endpoint => topic.extend(TopicTemplate::word(&endpoint.name).bytes()),
            TemplatePart::Account => match account {
                Some(account) => topic.extend(TopicTemplate::word(account).bytes()),
                None => topic.push(ANY_ACCOUNT),
            },
            TemplatePart::Kind if kind == NEW_KIND => topic.push(ANY_KIND),
            TemplatePart::Kind => topic.extend(TopicTemplate::word(kind).bytes()),
            TemplatePart::Event => topic.push(ANY_EVENT),
        }
    }
    topic
}

/// Whether two topics can be the same for one event. What both begin or end with is the same in both; of the rest each
/// thing that stands for anything is taken for something of its own.
fn can_be_equal(one: &[u8], other: &[u8]) -> bool {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[same..], &other[same..]);
    let same = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b);
    let same = same.count();
    let (one, other) = (&one[..one.len() - same], &other[..other.len() - same]);
    let is_any = |byte: u8| [ANY_ACCOUNT, ANY_EVENT, ANY_KIND].contains(&byte);
    let mut seen = HashSet::new();
    let mut open = vec![(0, 0)];
    while let Some((a, b)) = open.pop() {
        if (a, b) == (one.len(), other.len()) {
            return true;
        }
        if a == one.len() || b == other.len() || !seen.insert((a, b)) {
            continue;
        }
        if is_any(one[a]) {
            open.push((a, b + 1));
        }
        if is_any(other[b]) {
            open.push((a + 1, b));
        }
        if one[a] == other[b] || is_any(one[a]) || is_any(other[b]) {
            open.push((a + 1, b + 1));
        }
    }
    false
}

/// Whether two routes with the same address publish to the same place.
fn is_same_broker(one: &RouteConfig, other: &RouteConfig, sinks: &[SinkConfig]) -> bool {
    if one.sink == other.sink {
        return true;
    }
    let settings = |route: &RouteConfig| Some(&sinks.iter().find(|sink| sink.name == route.sink)?.settings);
    match (settings(one), settings(other)) {
        (Some(one), Some(other)) => one.is_same_place(other),
        _ => false,
    }
}

impl RouteOverlap {
    fn what(&self) -> String {
        let kinds = self.kinds.iter().map(|kind| match kind.as_str() {
            NEW_KIND => "kinds that are not known",
            kind => kind,
        });
        let endpoints: Vec<&str> = self.endpoints.iter().map(String::as_str).collect();
        format!("{} of {}", kinds.collect::<Vec<_>>().join(", "), endpoints.join(", "))
    }

    pub(super) fn text(&self) -> String {
        let Self { one, is_certain, .. } = self;
        let what = self.what();
        match is_certain {
            true => format!(
                "publishes to the same place as routes.{one} what both match ({what}): each of these events would be there twice. Narrow the match of \
                 one of them, or say on one that it is meant: `overlap = true`"
            ),
            false => format!(
                "can publish to the same topic as routes.{one} what both match ({what}): for some accounts or names of events, each of these is there \
                 twice"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_can_be_equal_where_what_stands_for_anything_can_be_what_the_other_has() {
        let endpoint = NamedSection {
            name: "acme".to_owned(),
            value: None,
        };
        let topic = |text: &str| expand(&TopicTemplate::parse(text).unwrap(), "feeds", &endpoint, None);
        for (one, other, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "aa", false),
            ("events.{kind}", "events.feeds", true),
            ("events.{kind}", "events.media", false),
            ("{endpoint}.{kind}", "acme.feeds", true),
            ("{account}", "feeds", true),
            ("{account}", "{account}.feeds", false),
            ("{account}", "{account}", true),
            ("a.{account}", "b.{account}", false),
            ("{account}.a", "{account}.b", false),
            ("a.{account}", "{event}.b", true),
            ("a.{event}", "a", false),
            ("{account}.x.{event}", "{event}.x.{account}", true),
            ("{account}-{event}", "plain", false),
            ("{account}-{event}", "with-hyphen", true),
        ] {
            let (one_topic, other_topic) = (topic(one), topic(other));
            assert_eq!(can_be_equal(&one_topic, &other_topic), expected, "{one} {other}");
            assert_eq!(can_be_equal(&other_topic, &one_topic), expected, "{other} {one}");
        }
    }
}
