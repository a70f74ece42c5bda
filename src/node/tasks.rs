//! Tasks that must live as long as the process, or until what they are for is done. One that ends before, by a panic or
//! by itself, ends the process with its name: a process that goes on without it would be half dead, and nobody would
//! notice.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::{Id, JoinError, JoinHandle, JoinSet};

/// The tasks of one kind, by their names.
#[derive(Default)]
pub(super) struct LastingTasks<T> {
    running: JoinSet<T>,
    names: HashMap<Id, String>,
}

impl<T: Send + 'static> LastingTasks<T> {
    pub fn new() -> Self {
        Self {
            running: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = T> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.names.insert(id, name.into());
    }

    /// Waits until one ends, and returns its name. Without any it waits for ever.
    pub async fn ended(&mut self) -> String {
        match self.running.join_next_with_id().await {
            Some(Ok((id, _))) => self.name(id),
            Some(Err(error)) => self.name(error.id()),
            None => std::future::pending().await,
        }
    }

    fn name(&self, id: Id) -> String {
        self.names.get(&id).cloned().unwrap_or_default()
    }
}

/// A task that is to end by itself, or when it is told to.
pub(super) struct EndingTask {
    handle: JoinHandle<()>,
    has_ended: bool,
}

impl EndingTask {
    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            handle: tokio::spawn(task),
            has_ended: false,
        }
    }

    /// Whether it has ended, and if so whether it panicked.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Result<(), JoinError>> {
        if self.has_ended {
            return Poll::Ready(Ok(()));
        }
        let ended = Pin::new(&mut self.handle).poll(context);
        self.has_ended = ended.is_ready();
        ended
    }

    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// It panicked, which is told once.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        poll_fn(|context| self.poll_ended(context)).await
    }
}

impl Drop for EndingTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_is_named() {
        let mut tasks = LastingTasks::new();
        tasks.spawn("lives", std::future::pending());
        tasks.spawn("panics", async { panic!("on purpose") });
        assert_eq!(tasks.ended().await, "panics");
        tasks.spawn("ends", async {});
        assert_eq!(tasks.ended().await, "ends");
        let more = tokio::time::timeout(std::time::Duration::from_millis(10), tasks.ended());
        assert!(more.await.is_err(), "the other lives");
    }

    #[tokio::test]
    async fn a_task_that_should_end_has_ended_for_good_and_a_panic_is_told() {
        let mut task = EndingTask::spawn(tokio::task::yield_now());
        assert!(task.ended().await.is_ok());
        assert!(task.ended().await.is_ok(), "asked again");
        let mut task = EndingTask::spawn(async { panic!("on purpose") });
        assert!(task.ended().await.unwrap_err().is_panic());
    }
}
