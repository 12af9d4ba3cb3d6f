//! Everything that happened, in one order, for all who follow it: pages of settled events, and waiting for the next.
//!
//! A cursor moves only up to the settled horizon, so that no event is passed over because it committed late. One
//! reader for each replica ([`EventReader`]) finds out how far that is and keeps the newest events in memory; it
//! sleeps while nobody asks.

mod reader;
mod tail;
#[cfg(test)]
mod tests;
mod unseen;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use reader::EventReader;

use super::places::{NoPlace, Place, Places};
use crate::{
    order::{Cursor, EventKind, FeedEvent},
    store::{EventLog, FeedPage, FeedQuery, Horizon, Span, StoreError},
    time::deadlines::QUEUE,
};
use tail::{KEPT, Tail};

/// How long the reader stays awake for one who has asked and may ask again.
const LINGER: Duration = Duration::from_secs(5);
/// How old its word may be for one who asks and does not wait.
const FRESH: Duration = Duration::from_secs(1);
/// Most events that one query reads for all.
const PAGE: usize = 1_000;

/// What the reader of events has found out.
#[derive(Debug, Clone, Default)]
struct Known {
    /// `None` until it has looked.
    horizon: Option<Horizon>,
    /// When that look began.
    looked: Option<Instant>,
    /// Counts the looks, good and bad.
    looks: u64,
    /// Why the last one failed.
    trouble: Option<StoreError>,
}

/// Everything that happened, for those who follow it.
pub struct Feed {
    log: Arc<dyn EventLog>,
    places: Arc<Places>,
    known: watch::Sender<Known>,
    /// How far all is settled; apart, since every look would wake those who wait for more.
    settled: watch::Sender<Cursor>,
    /// Locked while it is read on, so that those who wait for the same events read them once.
    tail: AsyncMutex<Tail>,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Followers {
    count: usize,
    /// The reader stays awake until then.
    until: Option<Instant>,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// No event has this id yet.
    #[error("no event has this id yet; the last one is {0}")]
    Ahead(Cursor),
    /// An open transaction hides how far the feed reaches, since this replica has asked for it.
    #[error("how far the events are complete is not known yet, since a transaction is open in the database")]
    Unsettled,
    /// The database can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Settled events behind a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Oldest first.
    pub events: Vec<FeedEvent>,
    /// The place behind all that was looked at.
    pub next: Cursor,
    /// Whether nothing settled is left behind it.
    pub caught_up: bool,
}

impl Feed {
    /// Of what is in `log`, for those who have places.
    pub fn new(log: Arc<dyn EventLog>, places: Arc<Places>) -> Arc<Self> {
        let (known, settled) = (watch::Sender::default(), watch::Sender::default());
        let (tail, followers) = (AsyncMutex::default(), Mutex::default());
        Arc::new(Self { log, places, known, settled, tail, followers })
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().expect("no holder panics")
    }

    /// Whether anybody follows, or has asked lately.
    fn is_followed(&self) -> bool {
        let followers = self.followers();
        followers.count > 0 || followers.until.is_some_and(|until| until > Instant::now())
    }

    /// The reader stays awake for a while.
    fn linger(&self) {
        self.followers().until = Some(Instant::now() + LINGER);
        self.places.wake_reader();
    }

    /// What is known now, from a look that is no older than `age`.
    async fn known(&self, age: Duration) -> Result<Known, StoreError> {
        self.linger();
        let mut known = self.known.subscribe();
        let (asked, looks) = (Instant::now(), known.borrow().looks);
        let young = |known: &Known| known.looked.is_some_and(|at| at + age > asked);
        let answered = |known: &Known| young(known) || known.looks > looks && known.trouble.is_some();
        let found = timeout_at(asked + QUEUE, known.wait_for(answered)).await;
        let found = found.map_err(|_| StoreError::Timeout(QUEUE))?;
        let found =
            found.map_err(|_| StoreError::Unavailable("the reader of events has ended".to_owned()))?;
        match &found.trouble {
            Some(trouble) if !young(&found) => Err(trouble.clone()),
            _ => Ok(found.clone()),
        }
    }

    /// How long ago the reader has looked well; `None` if it never has.
    pub fn looked(&self) -> Option<Duration> {
        Some(self.known.borrow().looked?.elapsed())
    }

    /// The place behind everything that is settled now.
    pub async fn now(&self) -> Result<Cursor, FeedError> {
        let Horizon { settled, found, .. } = self.known(FRESH).await?.horizon.unwrap_or_default();
        if found { Ok(settled) } else { Err(FeedError::Unsettled) }
    }

    /// Up to `limit` settled events behind a cursor, of one kind if one is given; does not wait for any.
    pub async fn page(
        &self,
        after: Cursor,
        event: Option<EventKind>,
        limit: usize,
    ) -> Result<Settled, FeedError> {
        let mut horizon = self.known(FRESH).await?.horizon.unwrap_or_default();
        if after > horizon.last {
            // Another replica may have told of what happened since.
            horizon = self.known(Duration::ZERO).await?.horizon.unwrap_or_default();
            if after > horizon.last {
                return Err(FeedError::Ahead(horizon.last));
            }
        }
        let mut page = self.read(after, horizon.settled, event, limit).await?;
        if page.caught_up
            && let Ok(Known { horizon: Some(newest), .. }) = self.known(Duration::ZERO).await
        {
            // Whoever has just written something finds it at the end.
            let rest = limit - page.events.len();
            let Settled { events, next, caught_up } =
                self.read(page.next, newest.settled, event, rest).await?;
            page.events.extend(events);
            (page.next, page.caught_up, horizon) = (next, caught_up, newest);
        }
        Ok(Settled { caught_up: page.caught_up && horizon.found, ..page })
    }

    async fn read(
        &self,
        after: Cursor,
        upto: Cursor,
        event: Option<EventKind>,
        limit: usize,
    ) -> Result<Settled, StoreError> {
        if after >= upto {
            return Ok(Settled { events: Vec::new(), next: after, caught_up: true });
        }
        let is_near = usize::try_from(upto.0 - after.0).is_ok_and(|behind| behind <= KEPT);
        let newest = if is_near { self.newest(after, upto, event, limit).await? } else { None };
        let FeedPage { events, examined, more } = match newest {
            Some(page) => page,
            None => self.log.events(&FeedQuery { span: Span { after, upto }, event, limit }).await?,
        };
        Ok(Settled { events, next: examined.unwrap_or(after), caught_up: !more })
    }

    /// What stands behind a cursor near the end, from memory; whoever is there first reads it for all.
    async fn newest(
        &self,
        after: Cursor,
        upto: Cursor,
        event: Option<EventKind>,
        limit: usize,
    ) -> Result<Option<FeedPage>, StoreError> {
        let mut tail = self.tail.lock().await;
        if after > tail.end() {
            *tail = Tail::behind(after);
        }
        if tail.is_empty_behind(after) && tail.end() < upto {
            let query = FeedQuery { span: Span { after: tail.end(), upto }, event: None, limit: PAGE };
            let FeedPage { events, examined, more } = self.log.events(&query).await?;
            tail.extend(events, if more { examined.unwrap_or(upto) } else { upto });
        }
        let rest = tail.end() < upto;
        Ok(tail.page(after, event, limit).map(|page| FeedPage { more: page.more || rest, ..page }))
    }

    /// Follows everything behind a cursor, for this client, as far as it is known.
    pub fn follow(
        self: &Arc<Self>,
        after: Cursor,
        event: Option<EventKind>,
        client: Option<IpAddr>,
    ) -> Result<Follower, NoPlace> {
        let place = self.places.take(client)?;
        let mut follower = self.follow_inside(after, event);
        follower.place = Some(place);
        Ok(follower)
    }

    /// The same for a part of the service, which takes no client's place.
    pub fn follow_inside(self: &Arc<Self>, after: Cursor, event: Option<EventKind>) -> Follower {
        self.followers().count += 1;
        self.places.wake_reader();
        let settled = self.settled.subscribe();
        Follower { feed: Arc::clone(self), settled, after, event, caught_up: None, place: None }
    }
}

/// Follows everything; dropping it ends that.
pub struct Follower {
    feed: Arc<Feed>,
    settled: watch::Receiver<Cursor>,
    after: Cursor,
    event: Option<EventKind>,
    /// What the last look said.
    caught_up: Option<bool>,
    place: Option<Place>,
}

impl Follower {
    /// Up to here everything was handed out.
    pub fn cursor(&self) -> Cursor {
        self.after
    }

    /// Cancelled when followers are to be told nothing more.
    pub fn stop(&self) -> CancellationToken {
        self.feed.places.stop().clone()
    }

    /// Whether nothing settled was left behind the cursor when it looked last; `None` if it has not looked.
    pub fn caught_up(&self) -> Option<bool> {
        self.caught_up
    }

    /// Waits for settled events behind those that were handed out, and hands out up to `limit` of them. Where it
    /// looks for one kind and finds none among many others it answers none, and the cursor has moved. Cancel safe:
    /// what was not handed out comes again.
    pub async fn news(&mut self, limit: usize) -> Result<Vec<FeedEvent>, StoreError> {
        let ended = |_| StoreError::Unavailable("the reader of events has ended".to_owned());
        loop {
            let after = self.after;
            let upto = *self.settled.wait_for(|settled| *settled > after).await.map_err(ended)?;
            let page = self.feed.read(after, upto, self.event, limit).await?;
            let moved = page.next > after;
            (self.after, self.caught_up) = (page.next, Some(page.caught_up));
            if !page.events.is_empty() || !page.caught_up && moved {
                return Ok(page.events);
            }
            // What is left up to there was rolled back.
            self.settled.wait_for(|settled| *settled != upto).await.map_err(ended)?;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followers = self.feed.followers();
        followers.count -= 1;
    }
}
