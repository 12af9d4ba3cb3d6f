//! Those who follow all events: from one replica to the next, with nothing but their cursor.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::world::Replicas;
use crate::{
    order::{Cursor, FeedEvent},
    store::{EventLog as _, FeedQuery, Horizon, Span, memory::MemoryStore},
    tracker::Feed,
};

/// How one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Waits at a replica for what comes, as a stream does.
    Stream,
    /// Asks for a page now and then.
    Pages,
}

/// One that follows everything.
pub(super) struct FeedReader {
    pub(super) way: Way,
    pub(super) replicas: Replicas,
    pub(super) luck: u64,
    /// Its clock.
    pub(super) view: MemoryStore,
    /// How late a stream may tell of an event, where nothing is in the way.
    pub(super) late: Option<TimeDelta>,
    /// The last event of all, once there is one.
    pub(super) last: watch::Receiver<Option<Cursor>>,
}

impl FeedReader {
    /// Follows to the end; answers all that it was told.
    pub(super) async fn run(self) -> Vec<FeedEvent> {
        let mut random = StdRng::seed_from_u64(self.luck);
        let (mut told, mut after) = (Vec::new(), Cursor::START);
        while *self.last.borrow() != Some(after) {
            let feed = {
                let replicas = self.replicas.lock().expect("no panic");
                let chosen = random.random_range(0..replicas.len());
                replicas[chosen].as_ref().map(|replica| Arc::clone(&replica.feed))
            };
            let limit = random.random_range(1..20);
            match (feed, self.way) {
                (None, _) => {}
                (Some(feed), Way::Stream) => {
                    let until = Instant::now() + Duration::from_millis(random.random_range(100..6_000));
                    after = self.stream(&feed, (after, limit), until, &mut told).await;
                    continue;
                }
                (Some(feed), Way::Pages) => {
                    // One that is frozen, or away, does not answer; another one will.
                    if let Ok(page) = feed.page(after, None, limit).await {
                        told.extend(page.events);
                        after = page.next;
                    }
                }
            }
            sleep(Duration::from_millis(random.random_range(20..1_000))).await;
        }
        told
    }

    /// Follows at one replica for a while; answers how far it came.
    async fn stream(
        &self,
        feed: &Arc<Feed>,
        (after, limit): (Cursor, usize),
        until: Instant,
        told: &mut Vec<FeedEvent>,
    ) -> Cursor {
        let mut follower = feed.follow_inside(after, None);
        let begun = self.view.now();
        while let Ok(Ok(news)) = timeout_at(until, follower.news(limit)).await {
            for event in &news {
                let age = self.view.now() - event.timestamp.max(begun);
                assert!(self.late.is_none_or(|late| age <= late), "{event:?} is told after {age}");
            }
            told.extend(news);
        }
        follower.cursor()
    }
}

/// Every event that there is, once all transactions have ended.
pub(super) async fn all_events(view: &MemoryStore) -> Vec<FeedEvent> {
    loop {
        let Horizon { settled, last, .. } = view.horizon().await.expect("looks");
        if settled == last {
            let span = Span { after: Cursor::START, upto: last };
            let query = FeedQuery { span, event: None, limit: usize::MAX };
            return view.events(&query).await.expect("reads").events;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Each event once, all in their order, and those of an order without a gap.
pub(super) fn check(told: &[FeedEvent], all: &[FeedEvent]) {
    let ids = |events: &[FeedEvent]| events.iter().map(|event| event.cursor).collect::<Vec<_>>();
    assert_eq!(ids(told), ids(all), "each event once, in order");
    assert_eq!(told, all);
    for event in told {
        let before =
            told.iter().filter(|other| other.order_id == event.order_id && other.cursor < event.cursor);
        assert_eq!(before.count() + 1, usize::try_from(event.seq).expect("small"), "{event:?}");
    }
}
