//! What must hold of the kit, whatever the history: the same state from any order, with duplicates, split and merged;
//! and transitions that agree with it. The state is compared with what an oracle makes of the *set* of events.
//!
//! Models with a wrong rule go through the same checks, and through the vectors, which must find them out.

mod checks;
mod history;
mod input;
mod model;
mod vectors;

use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use checks::{check, check_merged};
use history::{arrivals, history, permutations};
use model::{Model, Wrong};

/// Each shuffle of these is a case.
const SHUFFLES: u32 = 4096;

#[test]
fn every_order_of_a_short_history_gives_the_same_state() {
    let mut runner = TestRunner::new(config(200));
    runner
        .run(&history(1..6), |events| {
            for arrivals in permutations(&events) {
                check(Model::new(None), &events, &arrivals)?;
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn thousands_of_shuffles_of_long_histories_with_duplicates_give_the_same_state() {
    let mut runner = TestRunner::new(config(SHUFFLES));
    runner
        .run(&arrivals(history(1..60)), |(events, arrivals)| {
            check(Model::new(None), &events, &arrivals)
        })
        .unwrap();
}

#[test]
fn states_that_saw_parts_of_a_history_merge_into_the_same_state() {
    let mut runner = TestRunner::new(config(SHUFFLES));
    let parts = prop::collection::vec(0..4_usize, 1..200);
    runner
        .run(&(arrivals(history(1..40)), parts), |((events, arrivals), parts)| {
            check_merged(None, &events, &arrivals, &parts)
        })
        .unwrap();
}

/// Without this, the properties could hold of anything.
#[test]
fn a_wrong_rule_turns_the_properties_red() {
    for wrong in Wrong::OF_ONE_STATE {
        let found = in_a_known_order().run(&arrivals(history(1..40)), |(events, arrivals)| {
            check(Model::new(Some(wrong)), &events, &arrivals)
        });
        assert!(found.is_err(), "{wrong:?} was not found out");
    }
    for wrong in Wrong::OF_ONE_STATE.into_iter().chain([Wrong::MergeKeepsItsOwn]) {
        let parts = prop::collection::vec(0..4_usize, 1..200);
        let found = in_a_known_order().run(&(arrivals(history(1..40)), parts), |((events, arrivals), parts)| {
            check_merged(Some(wrong), &events, &arrivals, &parts)
        });
        assert!(found.is_err(), "{wrong:?} was not found out where states merge");
    }
}

/// The same cases each time: whether a wrong rule is found out must not depend on luck.
fn in_a_known_order() -> TestRunner {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config(SHUFFLES), rng)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
