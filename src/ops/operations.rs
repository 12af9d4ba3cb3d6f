//! The handle of whoever asks how the service is.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    diagnosis::{self, Explanation},
    overview::Overview,
};
use crate::{
    order::{OrderId, dead_letter::DeadLetterBacklog},
    store::StoreError,
    telemetry::health::HealthRegistry,
};

/// Where it is told how the service is.
pub struct Operations {
    /// What waits.
    pub overview: Arc<Overview>,
    /// What each part says of itself.
    pub parts: HealthRegistry,
    /// What lies on the dead-letter topic; `None` until it was read once.
    pub dead_letter_backlog: watch::Receiver<Option<DeadLetterBacklog>>,
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

    /// Why this order stands where it stands; `None` if there is no such order.
    pub async fn explain(&self, order_id: OrderId) -> Result<Option<Explanation>, StoreError> {
        // The figures are the same for all who ask.
        let (found, reading) = tokio::join!(self.overview.audited(order_id), self.overview.read());
        let (order, now) = found?;
        let explained = |order| diagnosis::explain(&order, now, Some(&reading.figures()), &self.parts.read());
        Ok(order.map(explained))
    }
}
