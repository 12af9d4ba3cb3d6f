//! Compares the topic of events with their table, up to the place of the one who writes them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde::Serialize;

use super::{Orders, Row, Verification, VerifyError, order_of};
use crate::{
    broker::{BrokerError, DeadLetter, Kafka, TopicExtent},
    order::Cursor,
    store::{EventLog, FeedQuery, Patience, Span},
};

/// Events in one page.
const PAGE: usize = 5_000;
/// Most orders of which single positions are kept, since an earlier one has not been found; of further ones all behind
/// that count as missing.
const AHEAD: usize = 10_000;

/// What the topic of events held.
#[derive(Debug, Default, Serialize)]
pub struct EventTopicReport {
    /// Up to this event everything was written.
    pub written: Cursor,
    /// Messages read.
    pub messages: u64,
    /// Messages about an event beyond its first, as they may follow a takeover.
    pub duplicates: u64,
    /// Messages that are about no order of the database, such as orders placed since.
    pub others: u64,
    /// Whether retention has deleted messages, so that a missing one proves nothing.
    pub truncated: bool,
}

/// What was found on the topic beside the orders' own rows.
#[derive(Default)]
struct Found {
    report: EventTopicReport,
    /// Positions behind one that has not been found yet, by the place of their order.
    ahead: HashMap<usize, BTreeSet<u16>>,
}

pub(super) async fn verify(
    store: &dyn EventLog,
    kafka: Arc<Kafka>,
    topic: &str,
    written: Cursor,
    orders: &mut Orders,
    report: &mut Verification,
) -> Result<(), VerifyError> {
    if written == Cursor::START {
        // Then it may not be there.
        report.event_topic = Some(EventTopicReport::default());
        return Ok(());
    }
    read_events(store, written, orders).await?;
    let (topic, mut read) = (topic.to_owned(), std::mem::take(orders));
    let reading = tokio::task::spawn_blocking(move || {
        let mut found = Found::default();
        let extent = kafka.read_all(&topic, |message| found.note(&mut read, &message));
        extent.map(|extent| (extent, found, read))
    });
    let (extent, found, read) = reading.await.map_err(|error| BrokerError(error.to_string()))??;
    *orders = read;
    let TopicExtent { messages, truncated } = extent;
    if !truncated {
        let missing = |at: usize, row: &Row| found.misses(at, *row);
        report.rules.push(orders.rule("every event that was written is on the event topic", missing));
        let disordered = |_, row: &Row| row.disordered;
        report.rules.push(orders.rule("the event topic holds each order's events in order", disordered));
    }
    report.event_topic = Some(EventTopicReport { written, messages, truncated, ..found.report });
    Ok(())
}

/// Notes how far each order's events were written. What is too much at once is read in smaller pages.
async fn read_events(store: &dyn EventLog, upto: Cursor, orders: &mut Orders) -> Result<(), VerifyError> {
    let (mut after, mut limit, mut patience) = (Cursor::START, PAGE, Patience::default());
    while after < upto {
        let query = FeedQuery { span: Span { after, upto }, event: None, limit };
        let page = match store.events(&query).await {
            Err(error) if error.is_transient() && patience.wait().await => {
                limit = (limit / 4).max(1);
                continue;
            }
            page => page?,
        };
        patience = Patience::default();
        for event in &page.events {
            if let Some(row) = orders.row(event.order_id) {
                row.written = row.written.max(u16::try_from(event.seq).unwrap_or(u16::MAX));
            }
        }
        after = page.examined.filter(|_| page.more).unwrap_or(upto);
    }
    Ok(())
}

impl Found {
    fn note(&mut self, orders: &mut Orders, message: &DeadLetter) {
        let seq = || message.header("ce_id")?.rsplit_once(':')?.1.parse().ok();
        let place = order_of(message.record.key.as_deref()).and_then(|id| orders.ids.binary_search(&id).ok());
        match (place, seq()) {
            (Some(at), Some(seq)) => self.note_event(&mut orders.rows[at], at, seq),
            _ => self.report.others += 1,
        }
    }

    /// By its first appearance: what comes again says nothing of the order.
    fn note_event(&mut self, row: &mut Row, at: usize, seq: u16) {
        let room = self.ahead.len() < AHEAD;
        let ahead = self.ahead.get_mut(&at);
        if seq <= row.seen || ahead.as_ref().is_some_and(|ahead| ahead.contains(&seq)) {
            self.report.duplicates += 1;
            return;
        }
        row.disordered |= ahead.as_ref().and_then(|ahead| ahead.last()).is_some_and(|last| *last > seq);
        match ahead {
            Some(ahead) if seq > row.seen + 1 => drop(ahead.insert(seq)),
            Some(ahead) => {
                row.seen = seq;
                while ahead.remove(&(row.seen + 1)) {
                    row.seen += 1;
                }
                if ahead.is_empty() {
                    self.ahead.remove(&at);
                }
            }
            None if seq == row.seen + 1 => row.seen = seq,
            None if room => drop(self.ahead.insert(at, BTreeSet::from([seq]))),
            None => {}
        }
    }

    fn misses(&self, at: usize, row: Row) -> bool {
        let ahead = self.ahead.get(&at);
        let found = |seq| ahead.is_some_and(|ahead| ahead.contains(&seq));
        (row.seen + 1..=row.written).any(|seq| !found(seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of an order of five events after these were found: is it in order, is it whole, how many came again.
    fn judged(seqs: &[u16]) -> (bool, bool, u64) {
        let (mut found, mut row) = (Found::default(), Row { written: 5, ..Row::default() });
        for seq in seqs {
            found.note_event(&mut row, 7, *seq);
        }
        (!row.disordered, !found.misses(7, row), found.report.duplicates)
    }

    #[test]
    fn events_are_judged_by_their_first_appearance() {
        assert_eq!(judged(&[1, 2, 3, 4, 5]), (true, true, 0));
        assert_eq!(judged(&[1, 2, 1, 2, 3, 2, 4, 5, 5]), (true, true, 4));
        assert_eq!(judged(&[1, 2, 3, 4, 5, 6, 7]), (true, true, 0), "more was written meanwhile");
        assert_eq!(judged(&[1, 3, 2, 4, 5]), (false, true, 0));
        assert_eq!(judged(&[5, 4, 3, 2, 1]), (false, true, 0));
        assert_eq!(judged(&[1, 4, 3, 5, 5]), (false, false, 1));
        assert_eq!(judged(&[1, 2, 4, 5, 4]), (true, false, 1));
        assert_eq!(judged(&[1, 2, 3]), (true, false, 0));
        assert_eq!(judged(&[]), (true, false, 0));
    }

    /// Promise 5: memory, queues and time are bounded.
    #[test]
    fn only_so_many_gaps_are_kept() {
        let mut found = Found::default();
        for at in 0..2 * AHEAD {
            let mut row = Row { written: 2, ..Row::default() };
            found.note_event(&mut row, at, 2);
            assert!(found.misses(at, row));
        }
        assert_eq!((found.ahead.len(), size_of::<Row>()), (AHEAD, 8));
    }
}
