//! Time that passes on purpose. Whoever waits for something to happen waits for the condition.

use std::time::Duration;

use tokio::time::sleep;

/// Lets an outage, or whatever a test has set up, last for so long.
pub async fn last_for(time: Duration) {
    sleep(time).await;
}

/// Leaves what must not happen so long to happen.
pub async fn observe_for(time: Duration) {
    sleep(time).await;
}
