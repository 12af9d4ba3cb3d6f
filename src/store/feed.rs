//! What the reader of events and the writer of their topic ask the store, and are answered.

use std::time::Duration;

use crate::order::{Cursor, EventKind, FeedEvent, OrderId};

/// How far the events are settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Horizon {
    /// No event up to here will ever become visible that is not visible now: what is read up to here is complete.
    pub settled: Cursor,
    /// No event has a greater id yet, visible or not.
    pub last: Cursor,
    /// How long something has waited to be settled; zero if nothing does.
    pub held: Duration,
    /// Whether it was ever found out since the server began; if not, `settled` is a place of long ago.
    pub found: bool,
}

/// Events between two ids, of which the first is out and the second in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Above this one.
    pub after: Cursor,
    /// Up to this one.
    pub upto: Cursor,
}

/// An event that became visible, settled or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its id.
    pub cursor: Cursor,
    /// Whose event it is.
    pub order_id: OrderId,
    /// Its position in the order's timeline.
    pub seq: u32,
}

/// Which events to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedQuery {
    /// Within these ids.
    pub span: Span,
    /// Only of this kind.
    pub event: Option<EventKind>,
    /// At most so many.
    pub limit: usize,
}

impl FeedQuery {
    /// Most rows that one answer is looked for in.
    pub const EXAMINED: usize = 10_000;
}

/// Events that were read, smallest id first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedPage {
    /// Those that were asked for.
    pub events: Vec<FeedEvent>,
    /// The id of the last row that was looked at, be it told or not; `None` if there was none.
    pub examined: Option<Cursor>,
    /// Whether some of those that were asked for may come behind it.
    pub more: bool,
}

/// How a database's rows of events are read.
pub(super) struct RowReader<R> {
    pub(super) cursor: fn(&R) -> sqlx::Result<Cursor>,
    pub(super) kind: fn(&R) -> sqlx::Result<EventKind>,
    /// Leaves out those that can't be read.
    pub(super) events: fn(&[R]) -> Vec<FeedEvent>,
}

impl<R> RowReader<R> {
    /// The page in these rows, of which there may be one more than was asked for; `is_followed` says whether others come
    /// behind those that were looked at. Of one kind, the last row came along to tell how far that was.
    pub(super) fn page(
        &self,
        mut rows: Vec<R>,
        is_followed: bool,
        query: &FeedQuery,
    ) -> sqlx::Result<FeedPage> {
        let FeedQuery { event, limit, .. } = *query;
        let more = rows.len() > limit || is_followed;
        rows.truncate(limit);
        // Who asks for one kind misses none of it behind another.
        let known = if event.is_none() { self.known(&rows)? } else { rows.len() };
        let more = more || known < rows.len();
        rows.truncate(known);
        let examined = rows.last().map(self.cursor).transpose()?;
        let mut events = (self.events)(&rows);
        events.retain(|told| event.is_none_or(|event| told.event == event));
        Ok(FeedPage { events, examined, more })
    }

    /// How many rows are of kinds that this version knows. What a newer one writes is left to those who know it, and what
    /// comes behind it, too: an event that was passed over would be lost to whoever follows.
    fn known(&self, rows: &[R]) -> sqlx::Result<usize> {
        match rows.iter().enumerate().find_map(|(at, row)| Some((at, (self.kind)(row).err()?))) {
            Some((0, error)) => Err(error),
            first => Ok(first.map_or(rows.len(), |(at, _)| at)),
        }
    }
}

/// A session of the database whose open transaction holds the horizon back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process, or the name of a prepared transaction.
    pub session: String,
    /// What it calls itself.
    pub application: String,
    /// Where it works; not always in ours.
    pub database: String,
    /// How long its transaction is open, where we may see that.
    pub age: Option<Duration>,
}

/// A reader's place in the events, held by one replica at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Rises with each replica that takes it over, so that an earlier one can change nothing.
    pub term: i64,
    /// All up to here is done.
    pub cursor: Cursor,
}
