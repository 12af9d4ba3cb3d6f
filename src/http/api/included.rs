//! What may be asked for beside an order and its timeline.

use serde::Serialize;
use utoipa::ToSchema;

use super::super::Problem;
use crate::{
    keys::Caller,
    order::{
        Event, EventKind, FieldCode, Order, Rules, Shown, Timestamp, TrackedOrder, allowed, rfc3339_millis,
        schema,
    },
    tracker::CurrentOrder,
};

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Included {
    allowed: bool,
    eta: bool,
}

impl Included {
    /// Reads the words of `include`.
    pub(super) fn parse(words: &str) -> Result<Self, Problem> {
        let mut included = Self::default();
        for word in words.split(',') {
            match word {
                "allowed" => included.allowed = true,
                "eta" => included.eta = true,
                _ => {
                    let message = "must be allowed, eta, or both with a comma between them";
                    return Err(Problem::invalid_value("include", FieldCode::Choice, message));
                }
            }
        }
        Ok(included)
    }

    /// As much of the order as who asks may see, with all that, as of when it was read.
    pub(super) fn with<'a>(self, found: &'a CurrentOrder, caller: &Caller, rules: &Rules) -> FoundOrder<'a> {
        let CurrentOrder { tracked, now } = found;
        let TrackedOrder { order, events } = tracked;
        let eta = || {
            let estimate = rules.delays.estimate(order, *now)?;
            Some(Eta { from: estimate.from, by: estimate.by })
        };
        FoundOrder {
            order: Shown::new(order, caller.sight()),
            events: Shown::new(events, caller.sight()),
            allowed: self.allowed.then(|| allowed(tracked, caller.role(), rules, *now)),
            eta: self.eta.then(eta).map(Expected),
        }
    }
}

/// An order with its whole timeline, oldest event first.
#[derive(Serialize, ToSchema)]
#[schema(as = TrackedOrder)]
pub(in crate::http) struct FoundOrder<'a> {
    /// The order itself.
    #[schema(value_type = Order)]
    order: Shown<&'a Order>,
    /// Its events, each at its position.
    #[schema(schema_with = schema::timeline)]
    events: Shown<&'a [Event]>,
    /// What may be reported now and would be applied; only if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<EventKind>, required = false)]
    allowed: Option<Vec<EventKind>>,
    /// When it is expected, or null once nothing more is; only if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Eta>, required = false)]
    eta: Option<Expected>,
}

/// When an order is expected, or null.
#[derive(Serialize)]
#[serde(transparent)]
struct Expected(Option<Eta>);

/// Between which moments an order is expected.
#[derive(Serialize, ToSchema)]
struct Eta {
    /// Not before.
    #[serde(serialize_with = "rfc3339_millis")]
    #[schema(schema_with = schema::timestamp)]
    from: Timestamp,
    /// Not after, as far as can be said.
    #[serde(serialize_with = "rfc3339_millis")]
    #[schema(schema_with = schema::timestamp)]
    by: Timestamp,
}
