//! What was found, for people and for programs.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, time::Duration};

use serde_json::{Map, Value, json};

use super::{EventCensus, numbers::SeenNumbers};
use crate::{cli::printable, sink::ReadPlace};

/// How many gaps are shown.
const SHOWN_MAX: usize = 10;

/// The findings of all routes.
pub struct VerifyReport {
    routes: Vec<EventCensus>,
    replicas: Vec<ReplicaReport>,
    /// Every record must be in one of the routes.
    is_whole: bool,
    dead_letters: u64,
    took: Duration,
}

/// What is missing of a replica, over all routes.
struct ReplicaReport {
    name: String,
    first: u64,
    last: u64,
    gaps: Vec<RangeInclusive<u64>>,
    /// Of the missing, those that cannot have left a topic or queue by themselves.
    missing: u64,
    may_have_left: u64,
}

fn count(gaps: &[RangeInclusive<u64>]) -> u64 {
    gaps.iter().map(|gap| gap.end() - gap.start() + 1).sum()
}

impl VerifyReport {
    pub fn new(routes: Vec<(EventCensus, Vec<ReadPlace>)>, is_whole: bool, dead_letters: u64, took: Duration) -> Self {
        let mut all: BTreeMap<String, (SeenNumbers, Option<u64>)> = BTreeMap::new();
        for (census, places) in &routes {
            for (name, seen, whole_from) in census.replicas(places) {
                let (numbers, from) = all
                    .entry(name.to_owned())
                    .or_insert_with(|| (SeenNumbers::default(), Some(0)));
                numbers.extend(seen);
                *from = from.zip(whole_from).map(|(a, b)| a.max(b));
            }
        }
        // A route that has nothing of a replica, in places that were cut, may have had all of it.
        let replicas = all.into_iter().map(|(name, (numbers, from))| {
            let emptied = routes.iter().any(|(census, places)| {
                places.iter().any(|place| place.is_cut) && !census.replicas(places).any(|(known, _, _)| known == name)
            });
            let from = from.filter(|_| !emptied);
            let gaps = numbers.gaps(0);
            let missing = from.map_or(0, |from| count(&numbers.gaps(from)));
            ReplicaReport {
                first: numbers.first().unwrap_or(0),
                last: numbers.last().unwrap_or(0),
                may_have_left: count(&gaps) - missing,
                gaps,
                missing,
                name,
            }
        });
        let replicas = replicas.collect();
        let routes = routes.into_iter().map(|(census, _)| census).collect();
        Self {
            routes,
            replicas,
            is_whole,
            dead_letters,
            took,
        }
    }

    fn missing(&self) -> u64 {
        self.replicas.iter().map(|replica| replica.missing).sum()
    }

    fn is_complete(&self) -> bool {
        !self.is_whole || self.missing() <= self.dead_letters
    }

    /// Nothing is wrong.
    pub fn is_right(&self) -> bool {
        self.is_complete() && self.routes.iter().all(EventCensus::is_right)
    }

    pub fn json(&self) -> Value {
        let routes: Vec<Value> = self.routes.iter().map(route).collect();
        let replicas: Vec<Value> = self.replicas.iter().map(ReplicaReport::json).collect();
        json!({
            "is_right": self.is_right(),
            "gaps_are_errors": self.is_whole,
            "dead_letters": self.dead_letters,
            "routes": routes,
            "replicas": replicas,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

fn route(census: &EventCensus) -> Value {
    let mistakes: Map<String, Value> = census
        .mistakes()
        .into_iter()
        .map(|(name, _, found)| (name.to_owned(), json!({ "count": found.count, "first": found.shown })))
        .collect();
    let repeated = census
        .repeated_types()
        .map(|(name, of_type)| json!({ "type": name, "records": of_type.records, "repeats": of_type.repeats }));
    json!({
        "route": census.name,
        "events": census.events,
        "streams": census.streams(),
        "repeats": census.repeats,
        "published_again": census.published_again,
        "repeated_types": repeated.collect::<Vec<_>>(),
        "duplicates": census.duplicates,
        "reordered": census.reordered,
        "late": { "count": census.late, "ms_max": census.late_ms_max },
        "mistakes": mistakes,
    })
}

impl ReplicaReport {
    fn json(&self) -> Value {
        let gaps = self
            .gaps
            .iter()
            .take(SHOWN_MAX)
            .map(|gap| json!([gap.start(), gap.end()]));
        json!({
            "replica": self.name,
            "first": self.first,
            "last": self.last,
            "missing": self.missing,
            "may_have_left": self.may_have_left,
            "gaps": self.gaps.len(),
            "first_gaps": gaps.collect::<Vec<_>>(),
        })
    }

    fn gaps(&self) -> String {
        let shown = self
            .gaps
            .iter()
            .take(SHOWN_MAX)
            .map(|gap| match gap.start() == gap.end() {
                true => gap.start().to_string(),
                false => format!("{}–{}", gap.start(), gap.end()),
            });
        let more = if self.gaps.len() > SHOWN_MAX { ", …" } else { "" };
        format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for census in &self.routes {
            writeln!(f, "{}", census.name)?;
            writeln!(f, "  {} events of {} streams", census.events, census.streams())?;
            writeln!(f, "  {} repeats, {} duplicates", census.repeats, census.duplicates)?;
            if census.published_again > 0 {
                writeln!(f, "  {} replayed or redriven", census.published_again)?;
            }
            for (name, of_type) in census.repeated_types() {
                writeln!(
                    f,
                    "  {}: {} records, {} of them again: do two routes that publish here match the same events (`overlap`)?",
                    printable(name),
                    of_type.records,
                    of_type.repeats
                )?;
            }
            if census.late > 0 {
                writeln!(f, "  {} late, by up to {} ms", census.late, census.late_ms_max)?;
            }
            if census.reordered > 0 {
                writeln!(f, "  {} behind younger ones by a reorder window", census.reordered)?;
            }
            for (_, what, found) in census.mistakes().into_iter().filter(|(_, _, found)| found.count > 0) {
                writeln!(f, "  WRONG: {} {what}", found.count)?;
                for one in &found.shown {
                    writeln!(f, "    {}", printable(one))?;
                }
            }
        }
        for replica in &self.replicas {
            let (name, first, last) = (printable(&replica.name), replica.first, replica.last);
            writeln!(f, "replica {name}: sequence {first} to {last}")?;
            if replica.gaps.is_empty() {
                continue;
            }
            let word = if self.is_complete() || replica.missing == 0 {
                ""
            } else {
                "WRONG: "
            };
            let (missing, left) = (replica.missing, replica.may_have_left);
            writeln!(
                f,
                "  {word}{missing} missing, {left} that may have left before: {}",
                replica.gaps()
            )?;
        }
        let verdict = if self.is_right() {
            "all in order"
        } else {
            "not in order"
        };
        writeln!(f, "{verdict}, in {:.1} s", self.took.as_secs_f64())
    }
}
