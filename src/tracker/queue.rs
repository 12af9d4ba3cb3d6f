//! Where an order is handed in, by a POST or by the simulator, and waits for the batch
//! writer. Bounded; when it is full the answer is "busy", at once.

use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use crate::{
    order::{OrderDetails, OrderId, promises::PLACE_QUEUE as CAPACITY},
    store::{IdempotencyKey, StoreError},
    telemetry::RequestId,
    time::deadlines::QUEUE as PATIENCE,
};

/// An order handed in.
#[derive(Debug)]
pub struct PlaceRequest {
    /// What is ordered.
    pub details: OrderDetails,
    /// The client's `Idempotency-Key`.
    pub key: Option<IdempotencyKey>,
    /// Kept with the CREATED event.
    pub meta: Option<Value>,
    /// The request that handed it in, if one did.
    pub request: Option<RequestId>,
    /// When it was handed in.
    pub since: Instant,
    /// Where the answer goes; closed when nobody waits for it any more.
    pub answer: Answer,
}

/// Takes the answer to a request.
pub type Answer = oneshot::Sender<Result<Accepted, PlaceError>>;

/// An order that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub order_id: OrderId,
    /// Whether the idempotency key had placed it before.
    pub replayed: bool,
}

/// Why an order was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Too many wait already; nothing was written.
    #[error("too many orders are waiting to be written")]
    Busy,
    /// The service is stopping; nothing was written.
    #[error("the service is stopping")]
    Closed,
    /// The database is away; nothing was written, as far as can be known.
    #[error("the database is unavailable")]
    Unavailable,
    /// No answer in time; the order may still be written.
    #[error("the order was not written in time")]
    TooSlow,
    /// The idempotency key has placed a different order.
    #[error("the idempotency key was used for another order")]
    KeyReused,
    /// The database refuses this order.
    #[error("the database refused the order: {0}")]
    Refused(String),
}

impl From<&StoreError> for PlaceError {
    fn from(error: &StoreError) -> Self {
        if error.is_transient() { Self::Unavailable } else { Self::Refused(error.to_string()) }
    }
}

/// The writers' ends of the queue: orders with an idempotency key are written apart from those without, since
/// a key may be locked by somebody else and a new order can't.
#[derive(Debug)]
pub struct PlaceRequests {
    /// Orders without a key.
    pub keyless: mpsc::Receiver<PlaceRequest>,
    /// Orders with one.
    pub keyed: mpsc::Receiver<PlaceRequest>,
}

/// Makes a queue and the writers' ends of it.
pub fn place_queue() -> (PlaceQueue, PlaceRequests) {
    let ((to_keyless, keyless), (to_keyed, keyed)) = (mpsc::channel(CAPACITY), mpsc::channel(CAPACITY));
    (PlaceQueue { keyless: to_keyless, keyed: to_keyed }, PlaceRequests { keyless, keyed })
}

/// The customers' side. The writers end when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct PlaceQueue {
    keyless: mpsc::Sender<PlaceRequest>,
    keyed: mpsc::Sender<PlaceRequest>,
}

impl PlaceQueue {
    /// Hands an order in and waits until it is stored.
    pub async fn place(
        &self,
        details: OrderDetails,
        key: Option<IdempotencyKey>,
        meta: Option<Value>,
    ) -> Result<Accepted, PlaceError> {
        let (answer, stored) = oneshot::channel();
        let requests = if key.is_some() { &self.keyed } else { &self.keyless };
        let request =
            PlaceRequest { details, key, meta, request: RequestId::current(), since: Instant::now(), answer };
        requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PlaceError::Busy,
            mpsc::error::TrySendError::Closed(_) => PlaceError::Closed,
        })?;
        match timeout(PATIENCE, stored).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(PlaceError::Closed),
            Err(_) => Err(PlaceError::TooSlow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details() -> OrderDetails {
        OrderDetails::new("Ada", "1 High St", "pizza", "small").expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_busy_and_a_slow_one_is_left() {
        let (queue, requests) = place_queue();
        let waiting = (0..CAPACITY).map(|_| queue.place(details(), None, None));
        let (outcomes, refused) =
            tokio::join!(futures::future::join_all(waiting), queue.place(details(), None, None));
        assert_eq!(refused, Err(PlaceError::Busy));
        assert!(outcomes.iter().all(|outcome| *outcome == Err(PlaceError::TooSlow)));
        drop(requests);
        assert_eq!(queue.place(details(), None, None).await, Err(PlaceError::Closed));
    }
}
