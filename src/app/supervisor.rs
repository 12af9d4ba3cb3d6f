//! Runs the tasks by name, so that one that ends by itself is noticed and named.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};
use tracing::{debug, error};

/// The running tasks.
#[derive(Default)]
pub(super) struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Supervisor {
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits for any task to end and answers its name. Never ready without tasks.
    pub(super) async fn first_end(&mut self) -> &'static str {
        match self.next_end().await {
            Some((name, _)) => name,
            None => std::future::pending().await,
        }
    }

    /// Waits for all tasks to end and answers the names of those that panicked.
    pub(super) async fn all_ended(&mut self) -> Vec<&'static str> {
        let mut panicked = Vec::new();
        while let Some((name, well)) = self.next_end().await {
            if !well {
                panicked.push(name);
            }
        }
        panicked
    }

    /// The tasks that have not ended.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.names.values().copied().collect()
    }

    async fn next_end(&mut self) -> Option<(&'static str, bool)> {
        let (id, failure) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(failure) => (failure.id(), Some(failure)),
        };
        let name = self.names.remove(&id).unwrap_or("unknown task");
        match &failure {
            None => debug!("the {name} has ended"),
            Some(failure) => error!(%failure, "the {name} has failed"),
        }
        Some((name, failure.is_none()))
    }
}
