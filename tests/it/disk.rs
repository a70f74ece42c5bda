//! What the disk does to the real binary: it loses power, fails, fills up, dawdles; its directory is held, its cursors
//! are gone.
//!
//! No broker listens, unless a test says so: every record stays in the spool, where the library reads it back.

mod directory;
mod failure;
mod full;
mod power_cut;

use std::{path::Path, time::Duration};

use crate::support::{
    disk::{Survived, survived},
    forebay::Setup,
    sender::Outcome,
};

/// How long the process may take to end once its disk has failed.
const ENDED: Duration = Duration::from_secs(5);
const EXIT_DISK: Option<i32> = Some(74);

/// A Forebay with its spool there, a small one, and a broker that is never reached.
fn setup(spool: &Path) -> Setup {
    let mut setup = Setup::new("127.0.0.1:1", "nowhere").spool_at(spool);
    setup.wrapper = vec![
        "env".into(),
        key("SPOOL__BYTES_MAX", "64MiB"),
        key("SERVER__BODY_BYTES_MAX", "1MiB"),
    ];
    // Nothing is published: an orderly stop would wait for that.
    setup.wrapper.push(key("SERVER__SHUTDOWN_DEADLINE", "1s"));
    setup
}

/// A key of the configuration, as a variable of the environment.
fn key(name: &str, value: &str) -> String {
    format!("FOREBAY__{name}={value}")
}

/// Everything acknowledged is in the spool, and nothing in it is damaged.
fn assert_kept(spool: &Path, outcome: &Outcome) -> Survived {
    let survived = survived(spool);
    let lost: Vec<&String> = outcome.acknowledged.difference(&survived.feed_ids).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged webhooks are lost, such as {:?}; {} missing, {} damaged",
        lost.len(),
        outcome.acknowledged.len(),
        lost.first(),
        survived.missing,
        survived.damage
    );
    assert_eq!((survived.missing, survived.damage), (0, 0), "records missing, damaged");
    survived
}
