//! What is asked of the service.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use order_tracker::{
    client::{
        Answer, ClientRequest,
        load::{Scenario, new_order},
    },
    order::OrderId,
};
use rand::seq::IndexedRandom as _;

/// One path for ever.
pub(crate) struct Same(pub(crate) &'static str);

impl Scenario for Same {
    fn ask(&self, _n: u64) -> ClientRequest {
        ClientRequest::get(self.0)
    }
}

/// Orders that exist, at random.
pub(crate) struct Reads(pub(crate) Vec<OrderId>);

impl Scenario for Reads {
    fn ask(&self, _n: u64) -> ClientRequest {
        let id = self.0.choose(&mut rand::rng()).expect("orders were placed");
        ClientRequest::get(format!("/orders/{id}"))
    }
}

/// Of ten requests two are new orders, seven ask for one, one lists the newest.
pub(crate) struct Mixed(pub(crate) Reads);

impl Scenario for Mixed {
    fn ask(&self, n: u64) -> ClientRequest {
        match rand::random_range(0..10) {
            0 | 1 => new_order(),
            2 => ClientRequest::get("/orders"),
            _ => self.0.ask(n),
        }
    }
}

/// New orders, and when each was due.
#[derive(Default)]
pub(crate) struct Timed(Mutex<Vec<(OrderId, Instant)>>);

impl Timed {
    pub(crate) fn placed(&self) -> Vec<(OrderId, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Scenario for Timed {
    fn ask(&self, _n: u64) -> ClientRequest {
        new_order()
    }

    fn answered(&self, due: Instant, answer: &Answer) {
        if let Some(id) = answer.order_id() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id, due));
        }
    }
}
