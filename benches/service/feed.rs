//! Readers of the feed: one that pages through everything, and one at its end that notes when each order is seen.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use order_tracker::{
    client::{ClientRequest, Connection, Target},
    order::{Cursor, FeedEvent, OrderId},
};
use serde::Deserialize;
use tokio::task::JoinHandle;

/// A page, without what is not needed here.
#[derive(Deserialize)]
struct Page<E> {
    events: Vec<E>,
    next: Cursor,
    caught_up: bool,
}

/// An event that is counted and not looked at.
#[derive(Deserialize)]
struct Counted {}

async fn page<E: for<'de> Deserialize<'de>>(connection: &mut Connection, query: &str) -> Result<Page<E>> {
    let answer = connection.ask(ClientRequest::get(format!("/events?limit=1000&{query}"))).await?;
    ensure!(answer.is_good(), "{}", String::from_utf8_lossy(&answer.body));
    Ok(serde_json::from_slice(&answer.body)?)
}

/// How many events there are, read one page after the other.
pub(crate) async fn read_all(target: &Target) -> Result<usize> {
    let (mut connection, mut after, mut count) = (Connection::open(target).await?, Cursor::START, 0);
    loop {
        let page: Page<Counted> = page(&mut connection, &format!("after={after}")).await?;
        count += page.events.len();
        after = page.next;
        if page.caught_up {
            return Ok(count);
        }
    }
}

type Seen = Arc<Mutex<HashMap<OrderId, Instant>>>;

/// Reads from the moment it is made until it is dropped.
pub(crate) struct Reader {
    seen: Seen,
    task: JoinHandle<Result<()>>,
}

impl Reader {
    pub(crate) async fn start(target: &Target) -> Result<Self> {
        let (seen, mut connection) = (Seen::default(), Connection::open(target).await?);
        let mut after = page::<Counted>(&mut connection, "after=now").await.context("the end")?.next;
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let news: Page<FeedEvent> = page(&mut connection, &format!("after={after}&wait=5s")).await?;
                after = news.next;
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                for event in news.events {
                    noted.entry(event.order_id).or_insert_with(Instant::now);
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// When this order was seen.
    pub(crate) fn seen(&self, id: OrderId) -> Option<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
