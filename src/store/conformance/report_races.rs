//! Reports at the same moment: each thing is done once, whoever is first.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;

use super::{
    DELAYS, Fixture, new_order,
    reports::{kitchen, rules},
    seconds,
};
use crate::{
    order::{Event, EventKind, OrderId, StageDelays, Status, Transition},
    store::{Due, OrderReport, ReportOutcome, Store},
};

/// How many report at once.
const REPORTERS: usize = 32;

/// What was done, as those were told who did it.
#[derive(Default)]
struct Outcomes {
    events: Vec<Event>,
    transitions: Vec<Transition>,
}

/// Reports until it is decided; an answer says what to do then, as a client that is told 503 does.
async fn decided(store: &dyn Store, report: OrderReport) -> ReportOutcome {
    loop {
        match store.report(std::slice::from_ref(&report), &rules()).await {
            Ok(mut answers) => match answers.remove(0).outcome {
                ReportOutcome::Contended => {}
                outcome => return outcome,
            },
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Fixture {
    /// All of these at once, on both replicas in turn.
    async fn race(&self, reports: impl IntoIterator<Item = OrderReport>) -> Outcomes {
        let mut reporters = JoinSet::new();
        for (n, report) in reports.into_iter().enumerate() {
            let store = Arc::clone(if n % 2 == 0 { &self.store } else { &self.replica });
            reporters.spawn(async move { decided(&*store, report).await });
        }
        let mut told = Outcomes::default();
        while let Some(outcome) = reporters.join_next().await {
            if let ReportOutcome::Applied(events, transitions) = outcome.expect("no panic") {
                told.events.extend(events);
                told.transitions.extend(transitions);
            }
        }
        told
    }

    /// What is stored is what was told, each position once, and nothing else.
    async fn assert_told(&self, order_id: OrderId, mut told: Outcomes) {
        self.assert_audited().await;
        let found = self.find(order_id).await;
        told.events.sort_by_key(|event| event.seq);
        assert_eq!(found.events[2..], told.events, "every event was somebody's, and everybody's is there");
        told.transitions.sort_by_key(|step| step.seq);
        let mut status = Status::FIRST;
        for step in &told.transitions {
            assert_eq!(step.from, status, "{:?}", told.transitions);
            status = step.to;
        }
        assert_eq!(status, found.order.status);
    }
}

/// Promise 3: an effect happens once. The same and different things of one order, on two replicas at the same moment.
pub(crate) async fn racing_reports_do_each_thing_once(t: Fixture) {
    let kinds = [
        EventKind::Reached(Status::Preparing),
        EventKind::Reached(Status::Cooking),
        EventKind::Ready,
        EventKind::Reached(Status::OutForDelivery),
        EventKind::CourierAtDoor,
        EventKind::Delayed,
        EventKind::Reached(Status::Delivered),
        EventKind::Reached(Status::Cancelled),
    ];
    for kinds in [&kinds[..1], &kinds[..2], &kinds[..6], &kinds[..], &kinds[2..3]] {
        let order_id = t.place_one(new_order()).await;
        let reports = (0..REPORTERS).map(|n| kitchen(order_id, kinds[n % kinds.len()]));
        let told = t.race(reports).await;
        let mut reached: BTreeMap<Status, usize> = BTreeMap::new();
        for step in &told.transitions {
            *reached.entry(step.to).or_default() += 1;
        }
        assert!(reached.values().all(|count| *count == 1), "{reached:?}");
        let readied = told.events.iter().filter(|event| event.event == EventKind::Ready).count();
        if kinds == [EventKind::Ready] {
            assert_eq!(readied, REPORTERS, "each is an event");
        }
        t.assert_told(order_id, told).await;
    }
}

/// The same id of all at once is one report, and everybody is answered alike.
pub(crate) async fn racing_ids_are_one_report(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    let mut report = kitchen(order_id, EventKind::Ready);
    report.report.id = Some("one".to_owned());
    report.report.note = Some("for all".to_owned());
    let told = t.race((0..REPORTERS).map(|_| report.clone())).await;
    assert_eq!(told.events.len(), 1);
    t.assert_told(order_id, told).await;
    let again = decided(&*t.store, report).await;
    assert!(matches!(&again, ReportOutcome::Replayed(events, _) if events[0].seq == 3), "{again:?}");
}

/// Undone by all at once, what was meant is taken back once: whoever names the step can't take back another.
pub(crate) async fn racing_reverts_take_back_one_step(t: Fixture) {
    let order_id = t.place_one(new_order()).await;
    let steps = [Status::Preparing, Status::Cooking].map(EventKind::Reached);
    let mut told = Outcomes::default();
    for step in steps {
        told.events.extend(t.race([kitchen(order_id, step)]).await.events);
    }
    let mut report = kitchen(order_id, EventKind::Reverted);
    report.report.reverts = Some(4);
    let reverted = t.race((0..REPORTERS).map(|_| report.clone())).await;
    assert_eq!((reverted.events.len(), reverted.transitions.len()), (1, 1));
    assert_eq!(t.find(order_id).await.order.status, Status::Preparing);
    t.assert_audited().await;
}

/// Promise 4: timers are rows. A report and a timer make one step at the same moment, not two.
pub(crate) async fn a_report_races_a_timer(t: Fixture) {
    let orders: Vec<OrderId> = {
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(t.place_one(new_order()).await);
        }
        ids
    };
    let mut made = HashSet::new();
    for (delay, to) in DELAYS.into_iter().zip(Status::FIRST.onwards()) {
        t.clock.advance(seconds(delay));
        let mut racers: JoinSet<Vec<Transition>> = JoinSet::new();
        for (n, order_id) in orders.iter().copied().enumerate() {
            let (store, other) = if n % 2 == 0 { (&t.store, &t.replica) } else { (&t.replica, &t.store) };
            let (store, other) = (Arc::clone(store), Arc::clone(other));
            racers.spawn(async move {
                match decided(&*store, kitchen(order_id, EventKind::Reached(to))).await {
                    ReportOutcome::Applied(_, transitions) => transitions,
                    ReportOutcome::Ignored(_) => Vec::new(),
                    outcome => panic!("{outcome:?}"),
                }
            });
            racers.spawn(async move {
                let alone = other.advance_due(Due::Alone(order_id), &StageDelays::default()).await;
                let soonest = other.advance(3).await.expect("advances");
                alone.expect("advances").transitions.into_iter().chain(soonest.transitions).collect()
            });
        }
        while let Some(steps) = racers.join_next().await {
            for step in steps.expect("no panic") {
                assert!(made.insert((step.order_id, step.to)), "{step:?} was made twice");
            }
        }
        t.assert_audited().await;
        for order_id in &orders {
            assert_eq!(t.find(*order_id).await.order.status, to);
        }
    }
    assert_eq!(made.len(), orders.len() * DELAYS.len());
}
