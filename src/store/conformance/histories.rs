//! Histories: whatever happens to a store, in whatever order, keeps the promises.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::{
    Fixture, assert_consistent, incoming, new_orders, outbox::take, reports::kitchen, seconds, start,
};
use crate::{
    order::Report,
    store::{NewOrder, Outbox, ReportOutcome},
    time::Clock as _,
};

/// How many orders a history is about.
const ORDERS: usize = 8;

/// Something that may happen to a store at any moment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    /// A new order, or an earlier try again.
    Place(usize),
    /// A message about an order, known or not.
    Admit(usize),
    /// A report of an order, known or not: which of the kinds there are, and under which id of a few, if any.
    Report(usize, usize, Option<u8>),
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

/// Any sequence of operations.
pub(crate) fn histories() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        (0..ORDERS).prop_map(Operation::Place),
        (0..ORDERS).prop_map(Operation::Admit),
        (0..ORDERS, 0..Report::KINDS.len(), proptest::option::of(0..3_u8))
            .prop_map(|(n, kind, id)| Operation::Report(n, kind, id)),
        (1..9_usize).prop_map(Operation::Advance),
        (1..5_usize).prop_map(Operation::Take),
        Just(Operation::MarkTaken),
        Just(Operation::ReleaseTaken),
        (0..12_000_u64).prop_map(Operation::Wait),
        (0..9_000_u32).prop_map(Operation::StepBack),
    ];
    proptest::collection::vec(operation, 1..40)
}

/// What was reported of orders: of which, and what became of the ids.
#[derive(Default)]
struct Reports {
    of: HashSet<usize>,
    ids: HashMap<(usize, u8), (usize, ReportOutcome)>,
}

impl Reports {
    /// Reports, and holds the answer to what was answered before.
    async fn make(&mut self, t: &Fixture, orders: &[NewOrder], (n, kind, id): (usize, usize, Option<u8>)) {
        let mut report = kitchen(orders[n].order_id, Report::KINDS[kind]);
        report.report.id = id.map(|id| format!("report {id}"));
        let outcome = t.report_one(report).await;
        if let Some((first, same)) = id.and_then(|id| self.ids.get(&(n, id))) {
            return assert_eq!(outcome, if *first == kind { same.clone() } else { ReportOutcome::IdReused });
        }
        if let ReportOutcome::Applied(events, steps) = outcome {
            self.of.insert(n);
            self.ids.extend(id.map(|id| ((n, id), (kind, ReportOutcome::Replayed(events, steps)))));
        }
    }
}

/// Promise 3: an effect happens once. After any history every order is consistent and comes to an
/// end, and every order placed here is taken for the topic exactly once.
pub(crate) async fn any_history_keeps_the_promises(t: Fixture, history: &[Operation]) {
    let orders = new_orders(ORDERS as u64);
    let (mut stored, mut placed) = (HashSet::new(), HashSet::new());
    let (mut taken, mut sent) = (Vec::new(), Vec::new());
    let (mut steps, mut reports) = (HashSet::new(), Reports::default());
    for operation in history {
        match *operation {
            Operation::Place(n) => {
                t.store.place(&orders[n..=n], Outbox::Anyones).await.expect("places");
                if stored.insert(n) {
                    placed.insert(orders[n].order_id);
                }
            }
            Operation::Admit(n) => {
                t.store.admit(&[incoming(&orders[n], start())]).await.expect("admits");
                stored.insert(n);
            }
            Operation::Report(n, kind, id) => reports.make(&t, &orders, (n, kind, id)).await,
            Operation::Advance(limit) => {
                for step in t.store.advance(limit).await.expect("advances").transitions {
                    let legal = step.from.may_become(step.to);
                    assert!(legal && steps.insert((step.order_id, step.seq)), "{step:?}");
                }
            }
            Operation::Take(limit) => {
                let rows = take(&*t.store, limit).await;
                taken.extend(rows.into_iter().map(|message| message.order_id));
            }
            Operation::MarkTaken => {
                t.store.mark_sent(&taken).await.expect("marks");
                sent.append(&mut taken);
            }
            Operation::ReleaseTaken => {
                t.store.release(&taken).await.expect("releases");
                taken.clear();
            }
            Operation::Wait(millis) => t.clock.advance(Duration::from_millis(millis)),
            Operation::StepBack(millis) => {
                t.clock.set(t.clock.now() - TimeDelta::milliseconds(i64::from(millis)));
            }
        }
        t.assert_audited().await;
    }
    // Longer than all delays that may have been reported.
    t.clock.advance(seconds(36_000));
    t.deliver_all().await;
    for n in &stored {
        let found = t.find(orders[*n].order_id).await;
        assert!(found.order.status.is_final(), "{found:?}");
        if !reports.of.contains(n) {
            assert_consistent(&found);
        }
    }
    let page = t.store.audit(None, 100).await.expect("reads");
    assert!(page.orders.iter().all(|order| order.violations(page.now).is_empty()), "{page:?}");
    let rest = take(&*t.store, 100).await;
    sent.extend(taken.into_iter().chain(rest.into_iter().map(|message| message.order_id)));
    assert_eq!(sent.len(), placed.len(), "each once: {sent:?}");
    assert_eq!(sent.into_iter().collect::<HashSet<_>>(), placed);
}
