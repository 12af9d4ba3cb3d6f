//! The handle of whoever asks how the service is.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::overview::Overview;
use crate::{order::dead_letter, telemetry::health::HealthRegistry};

/// Where it is told how the service is.
pub struct Operations {
    /// What waits.
    pub overview: Arc<Overview>,
    /// What each part says of itself.
    pub parts: HealthRegistry,
    /// What lies on the dead-letter topic.
    pub dead_letter_backlog: dead_letter::Watcher,
    /// Cancelled as soon as the service is told to stop, while requests are still served.
    pub leaving: CancellationToken,
}

impl Operations {
    /// Why no requests should be sent here; asks the database.
    pub async fn unavailable(&self) -> Option<String> {
        if self.leaving.is_cancelled() {
            return Some("the service is stopping".to_owned());
        }
        self.overview.ping().await.err().map(|error| error.to_string())
    }
}
