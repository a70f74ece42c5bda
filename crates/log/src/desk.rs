//! Where answers to appends arrive: one at a time, or many with one wake-up.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::AppendError;

/// What became of an append: the record's sequence number, or why it was not taken.
pub type AppendReply = Result<u64, AppendError>;

/// Where the answers to many appends arrive together.
///
/// Waking a task of another thread costs a system call. With a future for each append the writer would make one for
/// every record that it has synced; a desk's owner is woken once a batch, and wakes its own tasks for nothing.
#[derive(Default)]
pub struct AppendReplies {
    answers: Mutex<Vec<(u64, AppendReply)>>,
    waker: AtomicWaker,
}

impl AppendReplies {
    /// Moves the answers that have come into `answers`, each with the ticket that its append was given; pending when
    /// there is none. One task at a time may wait.
    pub fn poll(&self, context: &mut Context<'_>, answers: &mut Vec<(u64, AppendReply)>) -> Poll<()> {
        if self.drain_replies(answers) {
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        // One may have come before the waker was there.
        if self.drain_replies(answers) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn drain_replies(&self, answers: &mut Vec<(u64, AppendReply)>) -> bool {
        answers.append(&mut self.answers.lock());
        !answers.is_empty()
    }

    /// Puts an answer down; `true` when it is the first one there, and the owner has to be woken.
    fn put(&self, ticket: u64, answer: AppendReply) -> bool {
        let mut answers = self.answers.lock();
        answers.push((ticket, answer));
        answers.len() == 1
    }
}

/// Who waits for the answer to an append. Dropped without one, the answer is that the spool failed.
pub(super) enum ReplyTo {
    One(oneshot::Sender<AppendReply>),
    Desk(ReplyTicket),
}

/// An append of a [`AppendReplies`].
pub(super) struct ReplyTicket {
    desk: Arc<AppendReplies>,
    number: u64,
    answered: bool,
}

impl ReplyTicket {
    pub(super) fn new(desk: Arc<AppendReplies>, number: u64) -> Self {
        Self {
            desk,
            number,
            answered: false,
        }
    }
}

impl Drop for ReplyTicket {
    fn drop(&mut self) {
        if !self.answered && self.desk.put(self.number, Err(AppendError::Failed)) {
            self.desk.waker.wake();
        }
    }
}

/// Answers many, and wakes each desk once, when it is dropped.
#[derive(Default)]
pub(super) struct ReplyDelivery {
    to_wake: Vec<Arc<AppendReplies>>,
}

impl ReplyDelivery {
    pub(super) fn give(&mut self, asker: ReplyTo, answer: AppendReply) {
        match asker {
            // Who no longer waits for the answer does not take the record back.
            ReplyTo::One(sender) => drop(sender.send(answer)),
            ReplyTo::Desk(mut ticket) => {
                ticket.answered = true;
                if ticket.desk.put(ticket.number, answer) {
                    self.to_wake.push(ticket.desk.clone());
                }
            }
        }
    }
}

impl Drop for ReplyDelivery {
    fn drop(&mut self) {
        for desk in self.to_wake.drain(..) {
            desk.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_batch_wakes_its_desk_once_and_brings_every_answer() {
        let (desk, count) = (Arc::new(AppendReplies::default()), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut got = Vec::new();
        assert!(desk.poll(&mut context, &mut got).is_pending());

        let mut answers = ReplyDelivery::default();
        for number in 0..3 {
            answers.give(ReplyTo::Desk(ReplyTicket::new(desk.clone(), number)), Ok(number + 10));
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "not before the batch is over");
        drop(answers);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(desk.poll(&mut context, &mut got).is_ready());
        assert_eq!(got, [(0, Ok(10)), (1, Ok(11)), (2, Ok(12))]);
    }

    #[test]
    fn a_ticket_that_nobody_answers_is_answered_that_the_spool_failed() {
        let (desk, count) = (Arc::new(AppendReplies::default()), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut got = Vec::new();
        assert!(desk.poll(&mut context, &mut got).is_pending());
        drop(ReplyTicket::new(desk.clone(), 7));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(desk.poll(&mut context, &mut got).is_ready());
        assert_eq!(got, [(7, Err(AppendError::Failed))]);
    }
}
