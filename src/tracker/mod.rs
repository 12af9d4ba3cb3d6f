//! How whoever is not a loop places, reads and follows orders: place one, find, list, search, follow one or all.
//!
//! [`Tracker`] is the handle; each verb has a file of its own. [`Transitions`] is the other direction: what follows
//! a commit that made steps.

mod feed;
mod loader;
mod notifier;
mod places;
mod queue;
mod reports;
mod search;
mod transitions;

use std::{net::IpAddr, sync::Arc};

use serde_json::Value;

pub use feed::{EventReader, Feed, FeedError, Follower, Settled};
pub use loader::{CurrentOrder, Listing, OrderLoader};
pub use notifier::{Notifier, Subscriber};
pub use places::{NoPlace, Places};
pub use queue::{Accepted, Answer, PlaceError, PlaceQueue, PlaceRequest, PlaceRequests, place_queue};
pub use reports::{ReportAnswers, ReportBatch, ReportBatches, ReportError, ReportQueue, report_queue};
pub use search::{AMONG, Matches, Search};
pub use transitions::Transitions;

use crate::order::{OrderDetails, OrderId, Sight, Status};
pub use crate::store::{
    IdempotencyKey, MOVED_AT_ONCE, OrderReport, Page, ReportOutcome, Reported, Standing, StoreError,
};

/// All that can be done with orders from outside. Cheap to clone; the writers end with the last copy.
#[derive(Clone)]
pub struct Tracker {
    queue: PlaceQueue,
    reports: ReportQueue,
    loader: OrderLoader,
    notifier: Arc<Notifier>,
    feed: Arc<Feed>,
    search: Arc<Search>,
}

impl Tracker {
    /// What stands behind each verb.
    pub fn new(
        queue: PlaceQueue,
        reports: ReportQueue,
        loader: OrderLoader,
        notifier: Arc<Notifier>,
        feed: Arc<Feed>,
        search: Search,
    ) -> Self {
        Self { queue, reports, loader, notifier, feed, search: Arc::new(search) }
    }

    /// Hands an order in and waits until it is stored.
    pub async fn place(
        &self,
        details: OrderDetails,
        key: Option<IdempotencyKey>,
        meta: Option<Value>,
    ) -> Result<Accepted, PlaceError> {
        self.queue.place(details, key, meta).await
    }

    /// Hands reports in and waits until each has its fate; an error is that of all.
    pub async fn report(&self, reports: Vec<OrderReport>) -> Result<ReportAnswers, ReportError> {
        self.reports.report(reports).await
    }

    /// One order with its timeline, and the database's time.
    pub async fn find(&self, order_id: OrderId) -> Result<Arc<Option<CurrentOrder>>, StoreError> {
        self.loader.find(order_id).await
    }

    /// A page of orders, newest first.
    pub async fn list(&self, page: Page) -> Result<Arc<Listing>, StoreError> {
        self.loader.list(page).await
    }

    /// The newest `limit` orders that have these words, in this status if one is given; in names only for who sees them.
    pub async fn search(
        &self,
        words: &str,
        status: Option<Status>,
        sight: Sight,
        limit: usize,
    ) -> Result<Matches, StoreError> {
        self.search.find(words, status, sight, limit).await
    }

    /// Follows an order for this client, as far as it is known.
    pub fn subscribe(&self, order_id: OrderId, client: Option<IpAddr>) -> Result<Subscriber, NoPlace> {
        self.notifier.subscribe(order_id, client)
    }

    /// Everything that happened, for those who read or follow it.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// How many follow just now.
    pub fn subscribers(&self) -> usize {
        self.notifier.subscribers()
    }
}
