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
