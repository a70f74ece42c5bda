//! One worker's appends: the spool's answers to them come together, and wake the worker once.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use prometheus::IntCounter;
use slab::Slab;

use crate::spool::{AppendError, AppendReplies, AppendReply};

/// The appends of one worker that wait for the disk.
pub(super) struct WorkerAppends {
    desk: Arc<AppendReplies>,
    waiting: RefCell<Slab<PendingAppend>>,
}

struct PendingAppend {
    /// Counts the event once it is durable, even if nobody waits for it any more: a sender that hung up takes nothing
    /// back.
    durable: IntCounter,
    state: PendingAppendState,
}

enum PendingAppendState {
    Queued(Option<Waker>),
    Answered(AppendReply),
    /// Its request is gone.
    Abandoned,
}

/// An append on its way: resolves when its record is durable, or was refused.
pub(super) struct AppendFuture {
    appends: Rc<WorkerAppends>,
    ticket: usize,
}

impl WorkerAppends {
    /// For the worker on whose thread, and in whose task set, this is called.
    pub fn open() -> Rc<Self> {
        let appends = Rc::new(Self {
            desk: Arc::default(),
            waiting: RefCell::default(),
        });
        actix_web::rt::spawn(Rc::clone(&appends).distribute());
        appends
    }

    /// Has `give` give a record to the spool, to be answered at this desk under this ticket; `durable` counts it once
    /// it is on disk.
    pub fn append(
        self: &Rc<Self>,
        durable: &IntCounter,
        give: impl FnOnce(&Arc<AppendReplies>, u64) -> Result<(), AppendError>,
    ) -> Result<AppendFuture, AppendError> {
        let mut waiting = self.waiting.borrow_mut();
        let entry = waiting.vacant_entry();
        let ticket = entry.key();
        give(&self.desk, ticket as u64)?;
        entry.insert(PendingAppend {
            durable: durable.clone(),
            state: PendingAppendState::Queued(None),
        });
        Ok(AppendFuture {
            appends: Rc::clone(self),
            ticket,
        })
    }

    /// Delivers replies to waiting requests, for as long as the worker lives.
    async fn distribute(self: Rc<Self>) {
        let mut answers = Vec::new();
        loop {
            poll_fn(|context| self.desk.poll(context, &mut answers)).await;
            let mut waiting = self.waiting.borrow_mut();
            for (ticket, answer) in answers.drain(..) {
                deliver_reply(&mut waiting, ticket as usize, answer);
            }
        }
    }
}

fn deliver_reply(waiting: &mut Slab<PendingAppend>, ticket: usize, answer: AppendReply) {
    let PendingAppend { durable, state } = &mut waiting[ticket];
    if answer.is_ok() {
        durable.inc();
    }
    match std::mem::replace(state, PendingAppendState::Answered(answer)) {
        PendingAppendState::Queued(Some(waker)) => waker.wake(),
        PendingAppendState::Queued(None) => {}
        PendingAppendState::Abandoned => drop(waiting.remove(ticket)),
        PendingAppendState::Answered(_) => unreachable!("a ticket is answered once"),
    }
}

impl Future for AppendFuture {
    type Output = AppendReply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<AppendReply> {
        let mut waiting = self.appends.waiting.borrow_mut();
        match &mut waiting[self.ticket].state {
            PendingAppendState::Answered(answer) => Poll::Ready(*answer),
            PendingAppendState::Queued(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            state => {
                *state = PendingAppendState::Queued(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for AppendFuture {
    fn drop(&mut self) {
        let mut waiting = self.appends.waiting.borrow_mut();
        match &mut waiting[self.ticket].state {
            PendingAppendState::Answered(_) => drop(waiting.remove(self.ticket)),
            state => *state = PendingAppendState::Abandoned,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::spool::{Audience, LogObserver, LogOptions, RecordClass, Spool};

    struct Nobody;

    impl LogObserver for Nobody {
        fn synced(&self, _: usize, _: Duration) {}
        fn damage(&self, _: &'static str) {}
    }

    fn spool(dir: &std::path::Path) -> Spool {
        let options = LogOptions {
            dir: dir.into(),
            bytes_max: 1 << 20,
            bulk_share_max: 1.0,
            segment_bytes: 1 << 18,
            replica: String::new(),
            numbers_from: 0,
            record_bytes_max: 0,
            hot_bytes_max: 1 << 16,
            readers_bytes_max: 1 << 20,
        };
        Spool::open(options, Arc::new(Nobody)).unwrap()
    }

    /// Runs a test as a worker runs its service. It appends records of a length.
    fn on_a_worker(test: impl AsyncFnOnce(&dyn Fn(usize) -> AppendFuture, IntCounter)) {
        let dir = tempfile::tempdir().unwrap();
        let durable = IntCounter::new("events", "durable").unwrap();
        actix_web::rt::System::new().block_on(async {
            let (appends, spool) = (WorkerAppends::open(), spool(dir.path()));
            let append = |bytes: usize| {
                let give = |desk: &Arc<AppendReplies>, ticket| {
                    spool.append_for(
                        desk,
                        ticket,
                        vec![0; bytes].into(),
                        RecordClass::Ordinary,
                        Audience::default(),
                    )
                };
                appends.append(&durable, give).unwrap()
            };
            test(&append, durable.clone()).await;
            assert!(appends.waiting.borrow().is_empty(), "nothing is left behind");
        });
    }

    #[test]
    fn every_append_gets_its_own_answer() {
        on_a_worker(async |append, durable| {
            let (small, large, last) = (append(10), append(1 << 19), append(10));
            assert_eq!(last.await, Ok(2));
            assert_eq!(large.await, Err(AppendError::TooLarge));
            assert_eq!(small.await, Ok(1));
            assert_eq!(durable.get(), 2);
        });
    }

    #[test]
    fn a_record_that_nobody_waits_for_any_more_still_counts() {
        on_a_worker(async |append, durable| {
            drop(append(1));
            assert_eq!(append(1).await, Ok(2));
            assert_eq!(durable.get(), 2);
        });
    }
}
