//! The secrets of one endpoint, by the sources that they come from: each is read on its own.
//!
//! A source that cannot be read keeps what it last held for a grace time, because a file that is being replaced, or a
//! volume that is away for a moment, is no reason to refuse webhooks that are authentic. Then its secrets are revoked,
//! for deleting the file is how a secret is taken away; but only while another source can be read: an endpoint without
//! secrets would refuse everything.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use crate::{config::SecretSource, senders::Secret};

/// All sources of an endpoint, in the order of the configuration.
pub(super) struct SecretSources {
    sources: Vec<(SecretSource, SourceState)>,
    grace: Duration,
}

/// What is known of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SourceState {
    Readable(Vec<Secret>),
    /// It could not be read since then; what it last held is still active.
    Failing {
        last: Vec<Secret>,
        since: Instant,
        error: String,
    },
    Revoked {
        error: String,
    },
}

/// What a reading changed of the source at `index`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SourceChange {
    /// It holds other secrets than before.
    Secrets {
        index: usize,
    },
    Failing {
        index: usize,
    },
    Revoked {
        index: usize,
    },
    /// It can be read again, and holds what it held before.
    Recovered {
        index: usize,
    },
}

/// A secret in use, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlacedSecret {
    pub position: SecretPosition,
    pub secret: Secret,
}

/// Where a secret stands: the number of its source, and within a source that holds several its own: `1`, `2`, `2.2`,
/// `2.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SecretPosition {
    source: usize,
    within: usize,
}

impl SecretPosition {
    /// Of the source at `index`, and the first secret in it.
    pub fn of_source(index: usize) -> Self {
        Self {
            source: index,
            within: 0,
        }
    }
}

impl Display for SecretPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.within {
            0 => write!(f, "{}", self.source + 1),
            within => write!(f, "{}.{}", self.source + 1, within + 1),
        }
    }
}

impl SourceState {
    /// Its name in `/status`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Readable(_) => "readable",
            Self::Failing { .. } => "failing",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// Why it could not be read the last time.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Readable(_) => None,
            Self::Failing { error, .. } | Self::Revoked { error } => Some(error),
        }
    }

    fn active(&self) -> &[Secret] {
        match self {
            Self::Readable(secrets) | Self::Failing { last: secrets, .. } => secrets,
            Self::Revoked { .. } => &[],
        }
    }

    fn after_failure(&self, error: String, now: Instant) -> Self {
        match self {
            Self::Readable(secrets) => Self::Failing {
                last: secrets.clone(),
                since: now,
                error,
            },
            Self::Failing { last, since, .. } => Self::Failing {
                last: last.clone(),
                since: *since,
                error,
            },
            Self::Revoked { .. } => Self::Revoked { error },
        }
    }
}

impl SecretSources {
    /// Nothing is read yet.
    pub fn new(sources: &[SecretSource], grace: Duration, now: Instant) -> Self {
        let unread = |source: &SecretSource| {
            let state = SourceState::Failing {
                last: Vec::new(),
                since: now,
                error: "not read yet".to_owned(),
            };
            (source.clone(), state)
        };
        Self {
            sources: sources.iter().map(unread).collect(),
            grace,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SecretSource, &SourceState)> {
        self.sources.iter().map(|(source, state)| (source, state))
    }

    pub fn state(&self, index: usize) -> &SourceState {
        &self.sources[index].1
    }

    /// Reads each source, and revokes what has not been readable for too long.
    pub fn read<E: Display>(
        &mut self,
        now: Instant,
        read: impl Fn(&SecretSource) -> Result<Vec<Secret>, E>,
    ) -> Vec<SourceChange> {
        let mut changes = Vec::new();
        for (index, (source, state)) in self.sources.iter_mut().enumerate() {
            match read(source) {
                Ok(secrets) => {
                    let is_other = state.active() != secrets;
                    let was_failing = state.error().is_some();
                    *state = SourceState::Readable(secrets);
                    if is_other {
                        changes.push(SourceChange::Secrets { index });
                    } else if was_failing {
                        changes.push(SourceChange::Recovered { index });
                    }
                }
                Err(error) => {
                    if state.error().is_none() {
                        changes.push(SourceChange::Failing { index });
                    }
                    *state = state.after_failure(error.to_string(), now);
                }
            }
        }
        changes.extend(self.revoke(now));
        changes
    }

    /// The secrets that are in use, each once.
    pub fn active(&self) -> Vec<PlacedSecret> {
        let mut placed: Vec<PlacedSecret> = Vec::new();
        for (source, (_, state)) in self.sources.iter().enumerate() {
            for (within, secret) in state.active().iter().enumerate() {
                if placed.iter().all(|other| other.secret != *secret) {
                    placed.push(PlacedSecret {
                        position: SecretPosition { source, within },
                        secret: secret.clone(),
                    });
                }
            }
        }
        placed
    }

    fn revoke(&mut self, now: Instant) -> Vec<SourceChange> {
        let is_readable = |(_, state): &(_, SourceState)| matches!(state, SourceState::Readable(_));
        if !self.sources.iter().any(is_readable) {
            return Vec::new();
        }
        let mut revoked = Vec::new();
        for (index, (_, state)) in self.sources.iter_mut().enumerate() {
            if let SourceState::Failing { last, since, error } = state
                && now.duration_since(*since) >= self.grace
            {
                if !last.is_empty() {
                    revoked.push(SourceChange::Revoked { index });
                }
                *state = SourceState::Revoked { error: error.clone() };
            }
        }
        revoked
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    /// What the files hold, by name: texts in base64.
    type Files = RefCell<BTreeMap<&'static str, Vec<&'static str>>>;

    fn secret(text: &str) -> Secret {
        Secret::from_base64(text).unwrap()
    }

    fn sources(names: &[&str], start: Instant) -> SecretSources {
        let sources: Vec<_> = names
            .iter()
            .map(|name| SecretSource::File(PathBuf::from(name)))
            .collect();
        SecretSources::new(&sources, GRACE, start)
    }

    fn read(sources: &mut SecretSources, files: &Files, now: Instant) -> Vec<SourceChange> {
        sources.read(now, |source| {
            let SecretSource::File(path) = source else {
                return Err("no file".to_owned());
            };
            let files = files.borrow();
            let texts = files.get(path.to_str().unwrap()).ok_or("gone")?;
            Ok(texts.iter().map(|text| secret(text)).collect())
        })
    }

    fn active(sources: &SecretSources) -> Vec<(String, Secret)> {
        let placed = sources.active().into_iter();
        placed
            .map(|placed| (placed.position.to_string(), placed.secret))
            .collect()
    }

    #[test]
    fn a_source_that_cannot_be_read_is_revoked_after_the_grace_time_while_another_can() {
        use SourceChange::{Failing, Revoked, Secrets};

        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let files = Files::new([("old", vec!["b2xk"]), ("new", vec!["bmV3"])].into());
        let mut sources = sources(&["old", "new"], start);
        assert_eq!(
            read(&mut sources, &files, start),
            [Secrets { index: 0 }, Secrets { index: 1 }]
        );
        files.borrow_mut().remove("old");
        assert_eq!(read(&mut sources, &files, at(10)), [Failing { index: 0 }]);
        // Its neighbour is read all the same.
        files.borrow_mut().insert("new", vec!["bmV3ZXI="]);
        assert_eq!(read(&mut sources, &files, at(609)), [Secrets { index: 1 }]);
        let both = [("1".to_owned(), secret("b2xk")), ("2".to_owned(), secret("bmV3ZXI="))];
        assert_eq!(active(&sources), both);
        assert_eq!(read(&mut sources, &files, at(610)), [Revoked { index: 0 }]);
        assert_eq!(active(&sources), both[1..]);
        assert_eq!(sources.state(0).error(), Some("gone"));
        // The last one stays, however long its file is away.
        files.borrow_mut().clear();
        assert_eq!(read(&mut sources, &files, at(620)), [Failing { index: 1 }]);
        assert_eq!(read(&mut sources, &files, at(10_000)), []);
        assert_eq!(active(&sources), both[1..]);
        files.borrow_mut().insert("old", vec!["b2xk"]);
        assert_eq!(
            read(&mut sources, &files, at(10_001)),
            [Secrets { index: 0 }, Revoked { index: 1 }]
        );
        assert_eq!(active(&sources), both[..1]);
    }

    #[test]
    fn what_comes_back_in_time_was_never_away() {
        let start = Instant::now();
        let files = Files::new([("a", vec!["YQ=="]), ("b", vec!["Yg=="])].into());
        let mut sources = sources(&["a", "b"], start);
        read(&mut sources, &files, start);
        let before = active(&sources);
        let a = files.borrow_mut().remove("a").unwrap();
        let later = start + GRACE - Duration::from_secs(1);
        assert_eq!(
            read(&mut sources, &files, start + Duration::from_secs(1)),
            [SourceChange::Failing { index: 0 }]
        );
        assert_eq!(read(&mut sources, &files, later), []);
        assert_eq!(active(&sources), before);
        files.borrow_mut().insert("a", a);
        assert_eq!(
            read(&mut sources, &files, later),
            [SourceChange::Recovered { index: 0 }]
        );
        assert_eq!(active(&sources), before);
    }

    #[test]
    fn several_secrets_of_a_source_have_positions_of_their_own_and_the_same_one_is_there_once() {
        let start = Instant::now();
        let files = Files::new([("a", vec!["YQ==", "Yg==", "Yw=="]), ("b", vec!["Yg==", "ZA=="])].into());
        let mut sources = sources(&["a", "b", "never"], start);
        read(&mut sources, &files, start);
        let positions: Vec<_> = active(&sources).into_iter().map(|(position, _)| position).collect();
        assert_eq!(positions, ["1", "1.2", "1.3", "2.2"]);
        assert_eq!(sources.state(2).name(), "failing");
        assert_eq!(
            read(&mut sources, &files, start + GRACE),
            [],
            "there was nothing to revoke"
        );
        assert_eq!(sources.state(2).name(), "revoked");
    }
}
