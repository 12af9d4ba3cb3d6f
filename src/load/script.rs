//! What is asked of the service.

use std::{borrow::Cow, sync::Mutex, time::Instant};

use hyper::{Method, body::Bytes};

use super::Answer;
use crate::{order::OrderId, sample};

/// One request.
#[derive(Debug, Clone)]
pub struct Ask {
    pub(super) method: Method,
    pub(super) path: Cow<'static, str>,
    pub(super) body: Bytes,
}

impl Ask {
    /// `GET` of a path.
    pub fn get(path: impl Into<Cow<'static, str>>) -> Self {
        Self { method: Method::GET, path: path.into(), body: Bytes::new() }
    }

    /// `POST /orders` of an order that somebody might place.
    pub fn new_order() -> Self {
        let draft = serde_json::to_vec(&sample::plausible_draft()).expect("a draft is JSON");
        Self { method: Method::POST, path: "/orders".into(), body: draft.into() }
    }
}

/// Says what the n-th request is, and sees its answer.
pub trait Script: Send + Sync + 'static {
    /// The n-th request.
    fn ask(&self, n: u64) -> Ask;

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

impl Script for NewOrders {
    fn ask(&self, _n: u64) -> Ask {
        Ask::new_order()
    }

    fn answered(&self, _due: Instant, answer: &Answer) {
        if let Some(ids) = &self.ids
            && let Some(id) = answer.order_id()
        {
            ids.lock().expect("no holder panics").push(id);
        }
    }
}
