//! What is asked of the service.

use std::{sync::Mutex, time::Instant};

use crate::{
    client::{Answer, ClientRequest},
    order::{OrderId, in_full, sample},
};

/// `POST /orders` of an order that somebody might place.
pub fn new_order() -> ClientRequest {
    let mut body = serde_json::Serializer::new(Vec::new());
    in_full(&sample::plausible_order(), &mut body).expect("an order is JSON");
    ClientRequest::post("/orders", body.into_inner())
}

/// Says what the n-th request is, and sees its answer.
pub trait Scenario: Send + Sync + 'static {
    /// The n-th request.
    fn ask(&self, n: u64) -> ClientRequest;

    /// A good answer to a request that was due at this moment.
    fn answered(&self, _due: Instant, _answer: &Answer) {}
}

/// Orders and nothing else.
#[derive(Debug, Default)]
pub struct NewOrders {
    ids: Option<Mutex<Vec<OrderId>>>,
}

impl NewOrders {
    /// Keeps the ids of the orders that were placed.
    pub fn kept() -> Self {
        Self { ids: Some(Mutex::default()) }
    }

    /// The ids so far, in the order of the answers.
    pub fn ids(&self) -> Vec<OrderId> {
        self.ids.as_ref().map(|ids| ids.lock().expect("no holder panics").clone()).unwrap_or_default()
    }
}

impl Scenario for NewOrders {
    fn ask(&self, _n: u64) -> ClientRequest {
        new_order()
    }

    fn answered(&self, _due: Instant, answer: &Answer) {
        if let Some(ids) = &self.ids
            && let Some(id) = answer.order_id()
        {
            ids.lock().expect("no holder panics").push(id);
        }
    }
}
