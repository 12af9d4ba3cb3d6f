//! The cases, one rule each.

pub(crate) use super::{
    attention::{
        orders_that_people_have_not_moved_are_late_by_status,
        what_needs_a_look_comes_oldest_first_and_is_counted,
    },
    events::{
        a_kind_is_looked_for_among_so_many, a_page_of_events_says_where_it_ends,
        a_place_is_held_by_one_replica, a_place_may_be_taken_anew, a_place_set_by_hand_counts,
        an_odd_event_is_passed_over, an_unknown_kind_of_event_is_waited_at,
        arrivals_are_looked_for_in_every_gap, every_event_lies_in_one_order, facts_are_what_never_changes,
        repeated_calls_tell_nothing_new,
    },
    kept::what_is_kept_of_reports_is_audited,
    keys::{
        a_key_is_good_until_it_is_revoked, a_name_is_of_one_good_key, an_odd_key_takes_no_other_away,
        only_so_many_keys_are_good_at_a_time, racing_makers_make_one_key_of_a_name,
        uses_are_noted_and_never_go_back, what_is_no_key_is_refused_by_the_table,
    },
    names::tables_take_these_names_and_no_others,
    odd::an_odd_row_is_one_orders_trouble,
    outbox::{
        a_claim_may_be_repeated, orders_are_published_again_once, own_rows_that_nobody_holds_are_found,
        rows_in_memory_are_not_taken, unsent_rows_are_taken_once_and_stay_until_marked,
    },
    report_races::{
        a_report_races_a_timer, racing_ids_are_one_report, racing_reports_do_each_thing_once,
        racing_reverts_take_back_one_step,
    },
    reported::{
        a_late_step_is_stamped_after_what_was_said, a_set_is_answered_again_as_it_was,
        a_timer_goes_on_from_a_report, an_order_is_ready_until_it_goes_on, notes_lie_beside_their_events,
        people_move_what_is_expected_of_them, reports_are_in_the_feed, what_nobody_takes_is_cancelled,
    },
    reports::{
        a_full_timeline_takes_what_moves_it, a_report_is_known_by_its_id, a_skip_infers_what_lies_between,
        every_kind_of_report_is_stored, reports_of_one_set_see_each_other,
        what_is_ignored_or_refused_is_not_written,
    },
    timers::{
        a_clock_that_steps_back_delays_but_never_reorders, a_limit_leaves_the_rest_for_the_next_call,
        an_overdue_step_does_not_shorten_the_next, orders_move_when_due_and_never_before,
        those_left_out_stay_until_they_are_named,
    },
};
use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::TimeDelta;
use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

use super::{DELAYS, Fixture, assert_consistent, details, incoming, new_order, new_orders, seconds, start};
use crate::{
    order::{OrderDetails, OrderId, OrderPlaced, PerStatus, Status},
    store::{
        Admission, Backlog, IDEMPOTENCY_KEY_LIFETIME, IdempotencyKey, Incoming, LateSteps, NewOrder, Outbox,
        Page, Placement, StoreError,
    },
    time::Clock as _,
};

/// Promise 1: accepted means durable.
pub(crate) async fn a_placed_order_is_found_with_its_first_events(t: Fixture) {
    let new = NewOrder { meta: Some(json!({"source": "test"})), ..new_order() };
    let placements = t.place(std::slice::from_ref(&new)).await;
    let message = OrderPlaced::new(new.order_id, new.details.clone(), start());
    assert_eq!(placements, [Placement::Placed(message)]);

    let found = t.find(new.order_id).await;
    assert_consistent(&found);
    assert_eq!((&found.order.details, found.order.status), (&new.details, Status::Placed));
    assert_eq!(found.order.created_at, start());
    assert_eq!(found.events.len(), 2);
    assert_eq!(found.events[0].meta, Some(json!({"source": "test"})));
    assert_eq!(found.events[1].meta, None);
    assert_eq!(t.store.find(new_order().order_id).await.expect("reads"), None);
}

pub(crate) async fn nothing_at_all_is_a_valid_set(t: Fixture) {
    assert_eq!(t.place(&[]).await, []);
    assert_eq!(t.store.admit(&[]).await.expect("admits"), []);
    t.store.mark_sent(&[]).await.expect("marks");
    t.store.release(&[]).await.expect("releases");
    assert_eq!(t.store.claim(&[]).await.expect("claims"), []);
    assert_eq!(t.store.republish(&[]).await.expect("writes"), []);
    assert_eq!(t.store.unclaimed(None, 0).await.expect("reads"), []);
    assert_eq!(t.store.advance(10).await.expect("advances").next_due_in, None);
    assert_eq!(t.backlog().await, Backlog::default());
}

/// Promise 3: an effect happens once. A try whose answer got lost is repeated.
pub(crate) async fn placing_again_changes_nothing(t: Fixture) {
    let orders = new_orders(3);
    let first = t.place(&orders).await;
    t.store.mark_sent(&[orders[0].order_id]).await.expect("marks");
    t.clock.advance(seconds(1));
    assert_eq!(t.place(&orders).await, first, "the first stamps stay");
    for order in &orders {
        assert_consistent(&t.find(order.order_id).await);
    }
    assert_eq!(t.backlog().await.unsent, 2, "what was sent is not sent again");
}

pub(crate) async fn texts_are_stored_as_they_are(t: Fixture) {
    let texts = ["O'Brien \"x\" \\ %_", "<script>alert(1)</script>", "مها 東京 🍕\u{202e}", "{\"a\": [1]}"];
    let orders: Vec<NewOrder> = new_orders(4)
        .into_iter()
        .zip(texts)
        .map(|(order, text)| NewOrder {
            details: OrderDetails::new(text, text, text, "small").expect("valid"),
            ..order
        })
        .collect();
    t.place(&orders).await;
    for order in &orders {
        assert_eq!(t.find(order.order_id).await.order.details, order.details);
    }
}

/// Promise 3: an effect happens once. Our own messages come back, and come twice.
pub(crate) async fn a_known_arrival_changes_nothing(t: Fixture) {
    let order = new_order();
    t.place(std::slice::from_ref(&order)).await;
    t.deliver_all().await;
    let before = t.find(order.order_id).await;
    let mut late = incoming(&order, start());
    late.placed.details = details("somebody else");
    let admissions = t.store.admit(&[incoming(&order, start()), late]).await.expect("admits");
    assert_eq!(admissions, [Admission::Known, Admission::Known]);
    let alone = t.store.admit_alone(&incoming(&order, start())).await;
    assert_eq!(alone, Ok(Admission::Known));
    assert_eq!(t.find(order.order_id).await, before);
}

pub(crate) async fn an_unknown_arrival_starts_at_placed(t: Fixture) {
    let orders = new_orders(3);
    t.clock.advance(seconds(60));
    let batch = [
        incoming(&orders[0], start()),
        incoming(&orders[0], start()),
        incoming(&orders[1], start() + TimeDelta::hours(1)),
    ];
    let admissions = t.store.admit(&batch).await.expect("admits");
    assert_eq!(admissions, [Admission::Admitted, Admission::Known, Admission::Admitted]);
    let alone = t.store.admit_alone(&incoming(&orders[2], start())).await;
    assert_eq!(alone, Ok(Admission::Admitted));
    assert_consistent(&t.find(orders[2].order_id).await);

    let found = t.find(orders[0].order_id).await;
    assert_consistent(&found);
    assert_eq!((found.order.created_at, found.order.updated_at), (start(), t.clock.now()));
    assert_eq!(found.events[0].meta, Some(json!({"offset": 7})));
    let ahead = t.find(orders[1].order_id).await;
    assert_consistent(&ahead);
    assert_eq!(ahead.order.created_at, t.clock.now(), "a clock ahead of ours is brought back");

    assert_eq!(t.backlog().await.unsent, 0, "it came from the topic, so it is not sent there");
    assert_eq!(t.deliver_all().await, 12);
}

/// Promise 3: an effect happens once. Not even by hand.
pub(crate) async fn events_are_immutable_by_hand_too(t: Fixture) {
    let order = new_order();
    t.place(std::slice::from_ref(&order)).await;
    let before = t.find(order.order_id).await;
    for statement in [
        "UPDATE order_events SET event = 'DELIVERED'",
        "UPDATE order_events SET meta = '{}'",
        "DELETE FROM order_events",
        "DELETE FROM orders",
    ] {
        (t.by_hand)(statement).await.expect_err(statement);
    }
    let doubled = "INSERT INTO order_events (order_id, event, seq, \"timestamp\")
        SELECT order_id, event, seq, \"timestamp\" FROM order_events";
    (t.by_hand)(doubled).await.expect_err(doubled);
    assert_eq!(t.find(order.order_id).await, before);
}

pub(crate) async fn lists_are_newest_first_by_keyset_and_by_status(t: Fixture) {
    let orders = new_orders(7);
    t.place(&orders[..4]).await;
    t.clock.advance(seconds(DELAYS[0]));
    t.advance().await;
    t.place(&orders[4..]).await;
    let list = async |status, before, limit| -> Vec<OrderId> {
        let page = t.store.list(&Page { status, before, limit }).await.expect("lists");
        assert!(page.iter().all(|order| status.is_none_or(|status| order.status == status)));
        page.into_iter().map(|order| order.order_id).collect()
    };
    let newest: Vec<OrderId> = orders.iter().rev().map(|order| order.order_id).collect();
    assert_eq!(list(None, None, 10).await, newest);
    assert_eq!(list(None, None, 2).await, newest[..2]);
    assert_eq!(list(None, Some(newest[1]), 3).await, newest[2..5]);
    assert_eq!(list(Some(Status::Placed), None, 10).await, newest[..3]);
    assert_eq!(list(Some(Status::Preparing), Some(newest[3]), 10).await, newest[4..]);
    assert_eq!(list(Some(Status::Delivered), None, 10).await, []);
}

pub(crate) async fn idempotency_keys_place_once(t: Fixture) {
    let keyed =
        |order: &NewOrder, key: &str| NewOrder { key: Some(IdempotencyKey::open(key)), ..order.clone() };
    let orders = new_orders(6);
    let same = |order: &NewOrder| NewOrder { details: orders[0].details.clone(), ..order.clone() };
    let batch = [
        keyed(&orders[0], "a"),
        keyed(&same(&orders[1]), "a"),
        keyed(&orders[2], "a"),
        keyed(&orders[3], "b'\"ü"),
    ];
    let first = t.place(&batch).await;
    assert!(matches!(&first[0], Placement::Placed(message) if message.order_id == orders[0].order_id));
    assert_eq!(first[1], Placement::Replayed(orders[0].order_id));
    assert_eq!(first[2], Placement::KeyReused);
    assert!(matches!(&first[3], Placement::Placed(_)));

    let second = t.place(&[keyed(&same(&orders[4]), "a"), keyed(&orders[5], "a"), batch[0].clone()]).await;
    assert_eq!(second, [Placement::Replayed(orders[0].order_id), Placement::KeyReused, first[0].clone()]);
    assert_eq!(t.counts().await[Status::Placed], 2, "orders 0 and 3, once each");

    t.clock.advance(IDEMPOTENCY_KEY_LIFETIME);
    assert_eq!(t.store.expire_idempotency_keys(10).await.expect("expires"), 0);
    t.clock.advance(Duration::from_millis(1));
    assert_eq!(t.store.expire_idempotency_keys(10).await.expect("expires"), 2);
    assert!(matches!(t.place(&[keyed(&orders[5], "a")]).await[0], Placement::Placed(_)));
}

/// Two owners that call theirs the same have two keys.
pub(crate) async fn idempotency_keys_are_their_owners(t: Fixture) {
    let of = |order: &NewOrder, owner: &str| NewOrder {
        key: Some(IdempotencyKey::new(owner, "a")),
        ..order.clone()
    };
    let orders = new_orders(4);
    let batch = [of(&orders[0], ""), of(&orders[1], "site"), of(&orders[2], "till")];
    let first = t.place(&batch).await;
    assert!(first.iter().all(|one| matches!(one, Placement::Placed(_))), "{first:?}");
    for (n, owner) in ["", "site", "till"].into_iter().enumerate() {
        let again = NewOrder { details: orders[n].details.clone(), ..of(&orders[3], owner) };
        assert_eq!(t.place(&[again]).await, [Placement::Replayed(orders[n].order_id)], "{owner}");
        assert_eq!(t.place(&[of(&orders[3], owner)]).await, [Placement::KeyReused], "{owner}");
    }
    assert_eq!(t.counts().await[Status::Placed], 3);
    t.clock.advance(IDEMPOTENCY_KEY_LIFETIME + Duration::from_millis(1));
    assert_eq!(t.store.expire_idempotency_keys(10).await.expect("expires"), 3);
    assert!(matches!(t.place(&[of(&orders[3], "site")]).await[0], Placement::Placed(_)));
}

pub(crate) async fn a_backlog_counts_what_is_under_way(t: Fixture) {
    t.place(&new_orders(3)).await;
    t.clock.advance(seconds(DELAYS[0]));
    t.store.advance(2).await.expect("advances");
    assert_eq!(t.counts().await, PerStatus::from_iter([(Status::Placed, 1), (Status::Preparing, 2)]));
    t.deliver_all().await;
    t.deliver_all().await;
    assert_eq!(t.counts().await, PerStatus::from_iter([(Status::Delivered, 3)]));
    assert_eq!(t.overdue(seconds(0), 9).await, LateSteps::default());
}

pub(crate) async fn positions_tell_how_far_and_when(t: Fixture) {
    let orders = new_orders(3);
    let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
    let ask = async |ids: &[OrderId]| {
        let mut positions = t.replica.positions(ids).await.expect("reads");
        positions.sort_by_key(|position| position.order_id);
        positions.into_iter().map(|found| (found.order_id, found.status, found.due_in)).collect::<Vec<_>>()
    };
    t.place(&orders[..1]).await;
    t.clock.advance(seconds(1));
    t.place(&orders[1..2]).await;
    let [first, second, unknown] = ids[..] else { unreachable!("three were made") };
    let expected = [(first, Status::Placed, Some(seconds(2))), (second, Status::Placed, Some(seconds(3)))];
    assert_eq!(ask(&[second, unknown, first]).await, expected);
    assert_eq!((ask(&[]).await, ask(&[unknown]).await), (vec![], vec![]));

    t.clock.advance(seconds(10));
    assert_eq!(ask(&[first]).await, [(first, Status::Placed, Some(Duration::ZERO))], "overdue");
    t.store.advance(1).await.expect("advances");
    assert_eq!(ask(&[first]).await, [(first, Status::Preparing, Some(seconds(DELAYS[1])))]);
    t.deliver_all().await;
    t.deliver_all().await;
    assert_eq!(ask(&[first]).await, [(first, Status::Delivered, None)]);
}

pub(crate) async fn an_audit_reads_every_order_once(t: Fixture) {
    let orders = new_orders(5);
    t.store.place(&orders, Outbox::Anyones).await.expect("places");
    t.store.mark_sent(&[orders[0].order_id]).await.expect("marks");
    t.clock.advance(seconds(DELAYS[0]));
    t.store.advance(3).await.expect("advances");
    let (mut audited, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = t.store.audit(after.as_deref(), 2).await.expect("reads");
        let Some(last) = page.orders.last() else { break };
        assert_eq!((page.now, page.last.as_ref()), (t.clock.now(), Some(&last.order_id.to_string())));
        after = page.last;
        audited.extend(page.orders);
    }
    let ids = |orders: &[NewOrder]| orders.iter().map(|order| order.order_id).collect::<Vec<_>>();
    assert_eq!(audited.iter().map(|order| order.order_id).collect::<Vec<_>>(), ids(&orders));
    for order in &audited {
        let found = t.find(order.order_id).await;
        assert!(
            (1..)
                .zip(&found.events)
                .map(|(seq, event)| (seq, event.event, event.timestamp))
                .eq(order.events.iter().map(|event| (event.seq, event.event, event.timestamp)))
        );
        assert_eq!((order.status, order.updated_at), (found.order.status, found.order.updated_at));
        assert_eq!(order.unsent, order.order_id != orders[0].order_id);
        assert_eq!(order.violations(t.clock.now()), []);
    }
    assert_eq!(audited.iter().filter(|order| order.status == Status::Preparing).count(), 3);
}

/// Promise 3: an effect happens once. Many hands do nothing twice and leave nothing.
pub(crate) async fn racing_writers_do_each_thing_once(t: Fixture) {
    let orders = new_orders(60);
    let mut racers = JoinSet::new();
    for n in 0..6 {
        let store = if n % 2 == 0 { Arc::clone(&t.store) } else { Arc::clone(&t.replica) };
        let mine: Vec<NewOrder> = orders[n / 2 * 20..][..20]
            .iter()
            .enumerate()
            .map(|(at, order)| {
                // Of two owners each key.
                let key = IdempotencyKey::new(["", "site"][at % 2], format!("key {}", n / 2 * 20 + at / 2));
                NewOrder { key: Some(key), ..order.clone() }
            })
            .collect();
        racers.spawn(async move {
            let incoming: Vec<Incoming> = mine.iter().map(|order| incoming(order, start())).collect();
            let place = async {
                // Another's key is waited for, but not for long.
                loop {
                    match store.place(&mine, Outbox::Anyones).await {
                        Err(StoreError::Timeout(_)) => {}
                        placed => return placed.expect("places"),
                    }
                }
            };
            let (_, admitted) = tokio::join!(place, store.admit(&incoming));
            admitted.expect("admits");
        });
    }
    while let Some(done) = racers.join_next().await {
        done.expect("no panic");
    }
    let mut moved = HashSet::new();
    for delay in DELAYS {
        t.clock.advance(seconds(delay));
        for _ in 0..5 {
            let looks = (0..4).map(|n| if n % 2 == 0 { t.store.advance(10) } else { t.replica.advance(10) });
            for advance in join_all(looks).await {
                for step in advance.expect("advances").transitions {
                    assert!(moved.insert((step.order_id, step.to)), "{step:?} was made twice");
                }
            }
        }
    }
    assert_eq!(moved.len(), 60 * 4);
    for order in &orders {
        let found = t.find(order.order_id).await;
        assert_consistent(&found);
        assert_eq!(found.order.status, Status::Delivered);
    }
}
