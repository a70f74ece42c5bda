//! Tasks that must live as long as the process. One that ends, by a panic or by itself, ends the process with its name:
//! a process that goes on without it would be half dead, and nobody would notice.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinSet};

/// The tasks of one kind, by their names.
#[derive(Default)]
pub(super) struct Tasks<T> {
    running: JoinSet<T>,
    names: HashMap<Id, String>,
}

impl<T: Send + 'static> Tasks<T> {
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
        let mut tasks = Tasks::new();
        tasks.spawn("lives", std::future::pending());
        tasks.spawn("panics", async { panic!("on purpose") });
        assert_eq!(tasks.ended().await, "panics");
        tasks.spawn("ends", async {});
        assert_eq!(tasks.ended().await, "ends");
        let more = tokio::time::timeout(std::time::Duration::from_millis(10), tasks.ended());
        assert!(more.await.is_err(), "the other lives");
    }
}
