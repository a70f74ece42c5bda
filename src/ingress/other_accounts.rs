//! Notices that an endpoint takes events of another account than it should, or than it did.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::IntCounter;

use crate::{
    event::{Content, Event},
    senders::EndpointReceiver,
    telemetry::LogThrottle,
};

/// An endpoint logs one such event in this time, and counts the rest.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What an endpoint knows of the accounts that it sees.
pub(super) struct OtherAccounts {
    /// Events may be of any account.
    is_any: bool,
    /// The account of the newest signed event that had one.
    newest: Mutex<Option<Arc<str>>>,
    counter: IntCounter,
    log: LogThrottle,
}

impl OtherAccounts {
    pub fn new(receiver: &EndpointReceiver, counter: IntCounter) -> Self {
        Self {
            is_any: receiver.accounts().listed.is_empty(),
            newest: Mutex::new(receiver.learned_account()),
            counter,
            log: LogThrottle::new(LOG_INTERVAL),
        }
    }

    /// Counts and logs an event that names an account which is not the endpoint's, or where any is, of another account
    /// than the signed event before it.
    pub fn observe(&self, event: &Event) {
        let account = event.account.as_deref();
        if let Some(claimed) = event.account_claimed.as_deref() {
            self.report(&event.endpoint, claimed, account);
        } else if let Some(account) = account.filter(|_| self.is_any) {
            let before = self.replace(account, event.content == Content::Json);
            if let Some(before) = before.filter(|before| **before != *account) {
                self.report(&event.endpoint, account, Some(&before));
            }
        }
    }

    /// The newest account; `account` takes its place if it `is_signed`.
    fn replace(&self, account: &str, is_signed: bool) -> Option<Arc<str>> {
        let mut newest = self.newest.lock();
        let before = newest.clone();
        if is_signed && before.as_deref() != Some(account) {
            *newest = Some(account.into());
        }
        before
    }

    fn report(&self, endpoint: &str, named: &str, account: Option<&str>) {
        self.counter.inc();
        if let Some(more) = self.log.due(Instant::now()) {
            tracing::warn!(endpoint, named, account, more, "took an event of another account");
        }
    }
}
