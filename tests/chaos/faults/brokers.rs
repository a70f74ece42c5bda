//! What goes wrong at either broker.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::forebay::wait_until;

use crate::{
    broker::NEXT_PASSWORD,
    scenario::{AROUND, Stage},
};

/// By when a fault has shown.
const FELT: Duration = Duration::from_secs(30);

/// Killed, and back after a time that will be missed.
pub fn killed(stage: &mut Stage) {
    down(stage, stage.scale.outage());
}

/// Killed, and back after ten minutes.
pub fn down_for_minutes(stage: &mut Stage) {
    down(
        stage,
        stage.scale.pick(Duration::from_secs(10), Duration::from_secs(600)),
    );
}

fn down(stage: &mut Stage, period: Duration) {
    stage.broker.kill(0);
    stage.broker.assert_away();
    sleep(period);
    stage.broker.restart(0);
}

/// Connections stay, and nobody answers.
pub fn hung(stage: &mut Stage) {
    stage.broker.freeze();
    stage.broker.assert_away();
    sleep(stage.scale.outage());
    stage.broker.thaw();
}

/// While it is away Forebay, or the bridge, is killed too.
pub fn away_while_the_process_is_killed(stage: &mut Stage) {
    stage.broker.kill(0);
    stage.broker.assert_away();
    sleep(stage.scale.outage() / 2);
    stage.subjects.iter_mut().for_each(|subject| subject.restart(false));
    sleep(stage.scale.outage() / 2);
    stage.broker.restart(0);
}

/// Connections are reset at every moment of a batch.
pub fn reset(stage: &mut Stage) {
    let reset = stage
        .broker
        .reset_connections(stage.scale.outage() / 2, Duration::from_millis(730));
    assert!(reset > 3, "{reset} connections were reset");
}

/// It runs a tenth of the time, in pieces.
pub fn slow(stage: &mut Stage) {
    let began = Instant::now();
    stage.broker.freeze();
    stage.broker.assert_away();
    while began.elapsed() < stage.scale.outage() {
        stage.broker.freeze();
        sleep(Duration::from_millis(900));
        stage.broker.thaw();
        sleep(Duration::from_millis(100));
    }
}

/// One node after the other.
pub fn rolled(stage: &mut Stage) {
    stage.broker.roll();
}

/// Forebay may not write any more, and then it may again.
pub fn rights_revoked(stage: &mut Stage) {
    let topic = stage.forebay().kind.topic();
    stage.broker.grant(topic, "-");
    assert_blocked(stage);
    sleep(stage.scale.outage() / 2);
    stage.broker.grant(topic, "");
}

/// The broker knows another password; then the file has it.
pub fn password_changed(stage: &mut Stage) {
    stage.broker.change_password();
    assert_blocked(stage);
    sleep(stage.scale.outage() / 2);
    let dir = stage.forebay().dir.path().to_owned();
    stage.broker.write_password(&dir, Some(NEXT_PASSWORD));
}

/// The load of [`limited`]: every twentieth webhook of a connection is large.
pub const LARGE: Option<(usize, usize)> = Some((20, 50_000));

/// From a moment on the broker takes no large messages.
pub fn limited(stage: &mut Stage) {
    let topic = stage.forebay().kind.topic();
    stage.broker.limit_messages(stage.runtime, topic, 20_000);
    wait_until("something is refused", FELT, || stage.forebay().dead_letters() > 0);
    sleep(AROUND);
}

/// The fault is there: Forebay says that its route is blocked.
pub fn assert_blocked(stage: &mut Stage) {
    wait_until("the route is blocked", FELT, || {
        !stage.forebay().replicas()[0].running.blocked().is_null()
    });
}

/// The fault is there: what comes in waits, much more than it does else.
pub fn assert_behind(stage: &mut Stage) {
    const RECORDS: usize = 100;
    wait_until("the route is behind", FELT, || stage.forebay().backlog() > RECORDS);
}
