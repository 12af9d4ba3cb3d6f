//! Stories: whatever happens to a store, in whatever order, keeps the promises.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::{Fixture, arrival, assert_consistent, new_orders, outbox::take, seconds, start};
use crate::{order::Status, store::Outbox, time::Clock as _};

/// How many orders a story is about.
const ORDERS: usize = 8;

/// Something that may happen to a store at any moment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Happening {
    /// A new order, or an earlier try again.
    Place(usize),
    /// A message about an order, known or not.
    Admit(usize),
    /// A look for due steps, at most so many.
    Advance(usize),
    /// The relay takes rows.
    Take(usize),
    /// The broker acknowledges what was taken.
    MarkTaken,
    /// The relay gives back what was taken.
    ReleaseTaken,
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The clock steps back, in milliseconds.
    StepBack(u32),
}

/// Any sequence of happenings.
pub(crate) fn stories() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        (0..ORDERS).prop_map(Happening::Place),
        (0..ORDERS).prop_map(Happening::Admit),
        (1..9_usize).prop_map(Happening::Advance),
        (1..5_usize).prop_map(Happening::Take),
        Just(Happening::MarkTaken),
        Just(Happening::ReleaseTaken),
        (0..12_000_u64).prop_map(Happening::Wait),
        (0..9_000_u32).prop_map(Happening::StepBack),
    ];
    proptest::collection::vec(happening, 1..40)
}

/// Promise 3: an effect happens once. After any story every order is consistent and ends
/// delivered, and every order placed here is taken for the topic exactly once.
pub(crate) async fn any_story_keeps_the_promises(t: Fixture, story: &[Happening]) {
    let orders = new_orders(ORDERS as u64);
    let (mut stored, mut placed) = (HashSet::new(), HashSet::new());
    let (mut taken, mut sent) = (Vec::new(), Vec::new());
    let mut steps = HashSet::new();
    for happening in story {
        match *happening {
            Happening::Place(n) => {
                t.store.place(&orders[n..=n], Outbox::Anyones).await.expect("places");
                if stored.insert(n) {
                    placed.insert(orders[n].order_id);
                }
            }
            Happening::Admit(n) => {
                t.store.admit(&[arrival(&orders[n], start())]).await.expect("admits");
                stored.insert(n);
            }
            Happening::Advance(limit) => {
                for step in t.store.advance(limit).await.expect("advances").moves {
                    let legal = step.from.may_become(step.to);
                    assert!(legal && steps.insert((step.order_id, step.to)), "{step:?}");
                }
            }
            Happening::Take(limit) => {
                let rows = take(&*t.store, limit).await;
                taken.extend(rows.into_iter().map(|message| message.order_id));
            }
            Happening::MarkTaken => {
                t.store.mark_sent(&taken).await.expect("marks");
                sent.append(&mut taken);
            }
            Happening::ReleaseTaken => {
                t.store.release(&taken).await.expect("releases");
                taken.clear();
            }
            Happening::Wait(millis) => t.clock.advance(Duration::from_millis(millis)),
            Happening::StepBack(millis) => {
                t.clock.set(t.clock.now() - TimeDelta::milliseconds(i64::from(millis)));
            }
        }
        for n in &stored {
            assert_consistent(&t.find(orders[*n].order_id).await);
        }
    }
    t.clock.advance(seconds(3_600));
    t.deliver_all().await;
    for n in &stored {
        let found = t.find(orders[*n].order_id).await;
        assert_consistent(&found);
        assert_eq!(found.order.status, Status::Delivered);
    }
    let rest = take(&*t.store, 100).await;
    sent.extend(taken.into_iter().chain(rest.into_iter().map(|message| message.order_id)));
    assert_eq!(sent.len(), placed.len(), "each once: {sent:?}");
    assert_eq!(sent.into_iter().collect::<HashSet<_>>(), placed);
}
