//! One suite for every adapter. An adapter's tests make a [`Fixture`] on an empty database of its
//! own and hand it to each case through [`conformance!`].

mod attention;
pub(crate) mod cases;
pub(crate) mod events;
pub(crate) mod histories;
mod kept;
pub(crate) mod keys;
mod names;
mod odd;
pub(crate) mod outbox;
mod report_races;
mod reported;
pub(crate) mod reports;
mod timers;
pub(crate) mod upgrade;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde_json::json;

use super::{Backlog, Due, Incoming, LateSteps, NewOrder, Outbox, Placement, Store, Transition};
use crate::{
    order::{
        EventKind, IdMint, OrderDetails, OrderId, OrderPlaced, PerStatus, StageDelays, Start, Status,
        Timestamp, TrackedOrder,
    },
    time::ManualClock,
};

/// The suite's delays: 3, 5, 7 and 10 s, the defaults.
const DELAYS: [i64; 4] = [3, 5, 7, 10];

/// Runs a statement as somebody with a database console would.
type ByHand = dyn Fn(&str) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// An empty database behind the contract.
pub(crate) struct Fixture {
    /// The store under test.
    pub store: Arc<dyn Store>,
    /// A second replica on the same database, or the same store where there can be only one.
    pub replica: Arc<dyn Store>,
    /// The clock that both go by.
    pub clock: Arc<ManualClock>,
    /// Runs a statement as somebody with a database console would; `Err` is the database's refusal.
    pub by_hand: Box<ByHand>,
    /// How that person writes; none where nobody could reach in.
    pub dialect: Option<Dialect>,
    /// Kept alive as long as the fixture.
    pub _guard: Box<dyn std::any::Any + Send + Sync>,
}

/// What a console needs to know of a database.
pub(crate) struct Dialect {
    /// How a moment is written.
    pub stamp: fn(Timestamp) -> String,
    /// Values of that type that are no moments of ours.
    pub odd_moments: &'static [&'static str],
    /// Before a statement whose rows the database is to check, as it does for everybody but a careless console.
    pub checked: &'static str,
    /// What the 32 bytes of a key's hash may be in a row `i` of many.
    pub hash_of_i: &'static str,
    /// What makes the database take rows that it would refuse.
    pub allow_odd: &'static [&'static str],
}

/// Where the suite's time begins.
pub(crate) fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("a moment")
}

fn details(name: &str) -> OrderDetails {
    OrderDetails::new(name, "1 High St", "pizza", "large").expect("valid")
}

/// `count` new orders with rising ids.
pub(crate) fn new_orders(count: u64) -> Vec<NewOrder> {
    let mut mint = IdMint::default();
    let order = |n| NewOrder {
        order_id: mint.mint(start().timestamp_millis().unsigned_abs() + n, rand::random()),
        details: details(&format!("customer {n}")),
        key: None,
        meta: None,
        start: Start::timer(StageDelays::default().first()),
    };
    (0..count).map(order).collect()
}

fn new_order() -> NewOrder {
    new_orders(1).remove(0)
}

fn incoming(order: &NewOrder, created_at: Timestamp) -> Incoming {
    let placed = OrderPlaced::new(order.order_id, order.details.clone(), created_at);
    Incoming { placed, meta: Some(json!({"offset": 7})), start: order.start }
}

impl Fixture {
    async fn place(&self, orders: &[NewOrder]) -> Vec<Placement> {
        self.store.place(orders, Outbox::Mine).await.expect("places")
    }

    async fn find(&self, order_id: OrderId) -> TrackedOrder {
        self.store.find(order_id).await.expect("reads").expect("is stored")
    }

    async fn advance(&self) -> Vec<Transition> {
        let mut transitions = self.store.advance(1_000).await.expect("advances").transitions;
        // The clock may have been set back; one look is for what has just become due, one for all before.
        for _ in 0..2 {
            let overlooked = Due::Overlooked { limit: 1_000, after: None, except: &[] };
            transitions.extend(
                self.store
                    .advance_due(overlooked, &StageDelays::default())
                    .await
                    .expect("advances")
                    .transitions,
            );
        }
        transitions
    }

    async fn backlog(&self) -> Backlog {
        self.store.backlog().await.expect("reads")
    }

    async fn counts(&self) -> PerStatus<u64> {
        self.store.count(&Status::ALL).await.expect("reads").orders
    }

    async fn overdue(&self, late: Duration, limit: usize) -> LateSteps {
        self.store.overdue(late, limit).await.expect("reads")
    }

    /// Moves everything to the end and answers how many steps that took.
    async fn deliver_all(&self) -> usize {
        let mut steps = 0;
        for delay in DELAYS {
            self.clock.advance(seconds(delay));
            loop {
                let transitions = self.advance().await;
                if transitions.is_empty() {
                    break;
                }
                steps += transitions.len();
            }
        }
        steps
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.unsigned_abs())
}

/// Checks one order: legal, complete up to its status, each event once, stamps that rise.
pub(crate) fn assert_consistent(tracked: &TrackedOrder) {
    let TrackedOrder { order, events } = tracked;
    let last = EventKind::Reached(order.status);
    let expected = EventKind::ALL.into_iter().take_while(|kind| *kind <= last);
    assert!(events.iter().map(|event| event.event).eq(expected), "{tracked:?}");
    assert!(events.is_sorted_by_key(|event| event.timestamp), "{tracked:?}");
    assert_eq!(events.first().map(|event| event.timestamp), Some(order.created_at), "{tracked:?}");
    assert_eq!(events.last().map(|event| event.timestamp), Some(order.updated_at), "{tracked:?}");
    assert_eq!(order.due_at.is_none(), order.status == Status::Delivered, "{tracked:?}");
}

/// Declares the whole suite for the adapter whose fixture `$fixture` makes; `$attribute`s go on each case.
macro_rules! conformance {
    ($fixture:path $(, #[$attribute:meta])?) => {
        $crate::store::conformance::conformance! { $fixture $(, #[$attribute])?;
            a_placed_order_is_found_with_its_first_events,
            nothing_at_all_is_a_valid_set,
            placing_again_changes_nothing,
            texts_are_stored_as_they_are,
            orders_move_when_due_and_never_before,
            an_overdue_step_does_not_shorten_the_next,
            a_limit_leaves_the_rest_for_the_next_call,
            a_clock_that_steps_back_delays_but_never_reorders,
            a_known_arrival_changes_nothing,
            an_unknown_arrival_starts_at_placed,
            events_are_immutable_by_hand_too,
            lists_are_newest_first_by_keyset_and_by_status,
            unsent_rows_are_taken_once_and_stay_until_marked,
            rows_in_memory_are_not_taken,
            a_claim_may_be_repeated,
            own_rows_that_nobody_holds_are_found,
            orders_are_published_again_once,
            idempotency_keys_place_once,
            idempotency_keys_are_their_owners,
            a_key_is_good_until_it_is_revoked,
            a_name_is_of_one_good_key,
            racing_makers_make_one_key_of_a_name,
            uses_are_noted_and_never_go_back,
            an_odd_key_takes_no_other_away,
            what_is_no_key_is_refused_by_the_table,
            only_so_many_keys_are_good_at_a_time,
            a_backlog_counts_what_is_under_way,
            what_needs_a_look_comes_oldest_first_and_is_counted,
            orders_that_people_have_not_moved_are_late_by_status,
            positions_tell_how_far_and_when,
            an_audit_reads_every_order_once,
            those_left_out_stay_until_they_are_named,
            an_odd_row_is_one_orders_trouble,
            tables_take_these_names_and_no_others,
            racing_writers_do_each_thing_once,
            every_event_lies_in_one_order,
            repeated_calls_tell_nothing_new,
            a_page_of_events_says_where_it_ends,
            a_kind_is_looked_for_among_so_many,
            arrivals_are_looked_for_in_every_gap,
            facts_are_what_never_changes,
            an_odd_event_is_passed_over,
            an_unknown_kind_of_event_is_waited_at,
            a_place_is_held_by_one_replica,
            a_place_may_be_taken_anew,
            a_place_set_by_hand_counts,
            every_kind_of_report_is_stored,
            a_skip_infers_what_lies_between,
            what_is_ignored_or_refused_is_not_written,
            a_full_timeline_takes_what_moves_it,
            a_report_is_known_by_its_id,
            reports_of_one_set_see_each_other,
            notes_lie_beside_their_events,
            a_set_is_answered_again_as_it_was,
            reports_are_in_the_feed,
            what_is_kept_of_reports_is_audited,
            an_order_is_ready_until_it_goes_on,
            a_timer_goes_on_from_a_report,
            a_late_step_is_stamped_after_what_was_said,
            people_move_what_is_expected_of_them,
            what_nobody_takes_is_cancelled,
            racing_reports_do_each_thing_once,
            racing_ids_are_one_report,
            racing_reverts_take_back_one_step,
            a_report_races_a_timer,
        }
    };
    ($fixture:path; $($case:ident,)*) => {
        $(#[tokio::test]
        async fn $case() {
            $crate::store::conformance::cases::$case($fixture().await).await;
        })*
    };
    ($fixture:path, #[$attribute:meta]; $($case:ident,)*) => {
        $(#[tokio::test]
        #[$attribute]
        async fn $case() {
            $crate::store::conformance::cases::$case($fixture().await).await;
        })*
    };
}
pub(crate) use conformance;
