//! Tasks that must live as long as the process, or until what they are for is done. One that ends before, by a panic or
//! by itself, ends the process with its name: a process that goes on without it would be half dead, and nobody would
//! notice.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinSet};

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

    /// Waits until all have ended by themselves, as they should. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The name of one that panicked.
    pub async fn finished(&mut self) -> Result<(), String> {
        while let Some(ended) = self.running.join_next_with_id().await {
            ended.map_err(|error| self.name(error.id()))?;
        }
        Ok(())
    }

    /// Waits until all have ended, as they were asked to.
    pub async fn all_ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }

    fn name(&self, id: Id) -> String {
        self.names.get(&id).cloned().unwrap_or_default()
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
    async fn those_that_should_end_have_finished_unless_one_panics() {
        let mut tasks = LastingTasks::new();
        tasks.spawn("ends", async {});
        tasks.spawn("ends too", tokio::task::yield_now());
        assert_eq!(tasks.finished().await, Ok(()));
        tasks.spawn("ends", async {});
        tasks.spawn("panics", async { panic!("on purpose") });
        assert_eq!(tasks.finished().await, Err("panics".to_owned()));
    }
}
