//! What an order is and what it may become: pure rules, no I/O, no clock.
//!
//! Everything that enters (a POST body, a message from the topic, a database row) becomes one of
//! these types or is refused here, so that the rest of the code never meets a half-valid order.

mod backlog;
pub mod dead_letter;
mod details;
mod feed;
mod field_error;
mod id;
mod json;
mod lifecycle;
mod message;
pub mod promises;
mod report;
mod role;
pub mod sample;
mod schedule;
pub(crate) mod schema;
mod shown;
mod timeline;
mod transition;
mod violations;
mod visible;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Serializer};
use utoipa::ToSchema;

pub use backlog::{Backlog, COUNTED_TO, LateOrders, LateSteps, Overdue, UNSENT_LISTED, Unsent};
pub use details::{DetailsErrors, OrderDetails, OrderRequest, Size};
pub use feed::{Cursor, EventMessage, FeedEvent, FeedMeta, OrderFacts, ParseCursorError};
pub use field_error::{FieldCode, FieldError};
pub use id::{IdMint, OrderId, ParseIdError};
pub use lifecycle::{ParseStatusError, PerStatus, Status, Words, listed};
pub use message::{MAX_MESSAGE_BYTES, OrderPlaced, Reject, RejectReason};
pub use report::{
    Change, Conflict, EventFacts, Ignored, MAX_EVENTS, Reason, Report, ReportErrors, ReportItem,
    ReportRequest, Reporter, Rules, Source, Steps, Verdict, allowed, events_of, judge, not_accepted,
    transitions_of,
};
pub(crate) use report::{MAX_MINUTES, MAX_POSITION};
pub use role::{Action, ParseRoleError, Role, Sight};
pub use schedule::{Estimate, ParseDelaysError, Path, Progression, StageDelays, Start};
pub(crate) use schema::ID_CHARACTERS;
pub(crate) use shown::in_full;
pub use shown::{Show, Shown};
pub use timeline::{Event, EventKind, ParseEventError, listed as listed_events, ready_at};
pub use transition::Transition;
pub use violations::{AuditedEvent, AuditedOrder, AuditedReport, ReportAudit, Violation};

/// A moment in UTC; whole milliseconds wherever it was stamped by this service.
pub type Timestamp = DateTime<Utc>;

/// Cuts a moment to whole milliseconds, the resolution of every stored and shown stamp.
pub fn to_millis(at: Timestamp) -> Timestamp {
    at.trunc_subsecs(3)
}

/// An order as the `orders` table holds it; clients see the eight columns of the data model, as [`Shown`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Order {
    /// Business key, `ORD-` and 26 characters.
    pub order_id: OrderId,
    /// What was ordered, by whom and where to; never changes.
    #[serde(flatten, deserialize_with = "details::as_stored")]
    pub details: OrderDetails,
    /// Where the order is now: the last event of its timeline.
    pub status: Status,
    /// When it was created.
    #[schema(schema_with = schema::timestamp)]
    pub created_at: Timestamp,
    /// When its status last changed.
    #[schema(schema_with = schema::timestamp)]
    pub updated_at: Timestamp,
    /// When the service acts next, whatever the delays are now; `None` where it does not.
    #[serde(skip)]
    pub due_at: Option<Timestamp>,
    /// When people should have acted; `None` for an order that timers move. Also says for ever who moves it.
    #[serde(skip)]
    pub expected_at: Option<Timestamp>,
}

/// An order with its whole timeline, oldest event first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TrackedOrder {
    /// The order itself.
    pub order: Order,
    /// Its events, each at its position.
    #[serde(deserialize_with = "timeline::numbered")]
    pub events: Vec<Event>,
}

/// A moment as RFC 3339 in UTC with milliseconds: `2026-11-23T12:00:00.000Z`.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    // Half the price of `format`, and lists are full of these.
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Writes a moment in that way.
pub(crate) fn rfc3339_millis<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&rfc3339(*at))
}
