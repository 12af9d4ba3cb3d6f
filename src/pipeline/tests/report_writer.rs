//! The report writer: sets, retries, and what may not be written twice.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Outcome,
    doubles::{Troubled, WriteFailure},
    start,
};
use crate::{
    order::{EventKind, Ignored, OrderId, Report, Rules, Source, Status},
    pipeline::ReportWriter,
    store::{
        NewOrder, OrderReport, OrderStore as _, Outbox, ReportOutcome, Store, conformance::new_orders,
        memory::MemoryStore,
    },
    telemetry::metrics::Metrics,
    time::{Alarm, VirtualClock},
    tracker::{self, ReportAnswers, ReportError, ReportQueue, Transitions},
};

/// A store that makes trouble, some orders, and a queue with its writer.
struct Reporting {
    store: Arc<Troubled>,
    orders: Vec<OrderId>,
    alarm: Arc<Alarm>,
    metrics: Arc<Metrics>,
    queue: ReportQueue,
    writer: ReportWriter,
}

impl Reporting {
    async fn of(orders: u64, wrap: impl FnOnce(Arc<dyn Store>) -> Troubled) -> Self {
        let clock = Arc::new(VirtualClock::new(start()));
        let inner = MemoryStore::new(Arc::default(), clock, 1);
        let placed: Vec<NewOrder> = new_orders(orders);
        inner.place(&placed, Outbox::Mine).await.expect("places");
        let store = Arc::new(wrap(Arc::new(inner)));
        let shared: Arc<dyn Store> = store.clone();
        let (queue, batches) = tracker::report_queue();
        let (alarm, metrics) = (Arc::new(Alarm::default()), Arc::new(Metrics::new()));
        let writer = ReportWriter::new(
            batches,
            shared.clone(),
            Rules::default(),
            Transitions::unfollowed(&shared, Arc::clone(&metrics), Arc::clone(&alarm)),
            Arc::clone(&metrics),
            CancellationToken::new(),
        );
        let orders = placed.into_iter().map(|order| order.order_id).collect();
        Self { store, orders, alarm, metrics, queue, writer }
    }

    async fn with(script: impl IntoIterator<Item = WriteFailure>) -> Self {
        Self::of(3, |store| Troubled::new(store, script)).await
    }

    /// That an order is ready, under an id if there is one.
    fn ready(&self, n: usize, id: Option<&str>) -> OrderReport {
        let report = Report { id: id.map(str::to_owned), ..Report::of(EventKind::Ready, Source::Kitchen) };
        OrderReport { order_id: self.orders[n], report, if_match: None }
    }

    /// Hands these in, each alone, and lets the writer write once.
    async fn report(&mut self, reports: Vec<OrderReport>) -> Vec<Result<ReportOutcome, ReportError>> {
        let waiting = reports.into_iter().map(|report| self.queue.report(vec![report]));
        let (answers, _) = tokio::join!(join_all(waiting), self.writer.step());
        answers.into_iter().map(only).collect()
    }

    /// That an order is being cooked already, under an id.
    fn cooking(&self, n: usize, id: &str) -> OrderReport {
        let event = EventKind::Reached(Status::Cooking);
        let report = Report { id: Some(id.to_owned()), ..Report::of(event, Source::Kitchen) };
        OrderReport { order_id: self.orders[n], report, if_match: None }
    }

    fn metric(&self, series: &str) -> String {
        let text = String::from_utf8(self.metrics.render().expect("renders")).expect("text");
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {series}: {text}")).to_owned()
    }

    /// How many reports of COOKING were applied and ignored, and how many steps led there.
    fn counted(&self) -> [String; 3] {
        [
            "reports_total{event=\"COOKING\",outcome=\"applied\"}",
            "reports_total{event=\"COOKING\",outcome=\"ignored\"}",
            "status_transitions_total{from=\"PREPARING\",to=\"COOKING\"}",
        ]
        .map(|series| self.metric(series))
    }

    /// How many events were added to an order.
    async fn added(&self, n: usize) -> usize {
        self.store.find(self.orders[n]).await.expect("reads").expect("is stored").events.len() - 2
    }
}

fn only(answers: Result<ReportAnswers, ReportError>) -> Result<ReportOutcome, ReportError> {
    let mut answers = answers?;
    assert_eq!(answers.len(), 1);
    answers.remove(0).map(|reported| reported.outcome)
}

fn is_applied(answer: &Result<ReportOutcome, ReportError>) -> bool {
    matches!(answer, Ok(ReportOutcome::Applied(..)))
}

#[tokio::test(start_paused = true)]
async fn all_that_wait_are_judged_in_one_step() {
    let mut t = Reporting::with([]).await;
    let mut cancel = t.ready(0, None);
    cancel.report = Report::of(EventKind::Reached(Status::Cancelled), Source::Customer);
    let several = vec![t.ready(0, None), cancel, t.ready(0, None)];
    let (one, other) = (vec![t.ready(1, None)], Vec::new());
    let waiting = [several, one, other].map(|reports| t.queue.report(reports));
    let (answers, outcome) = tokio::join!(join_all(waiting), t.writer.step());
    assert_eq!(outcome, Outcome::Worked(4));
    let lengths: Vec<usize> = answers.iter().map(|answer| answer.as_ref().expect("answers").len()).collect();
    assert_eq!(lengths, [3, 1, 0], "each has what it asked for");
    let last = answers[0].as_ref().expect("answers")[2].clone().expect("is judged");
    assert!(matches!(last.outcome, ReportOutcome::Refused(_)), "{last:?}");
}

/// Nobody waits for the rest of what somebody else has sent.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_a_set_begins_the_next() {
    let mut t = Reporting::of(600, |store| Troubled::new(store, [])).await;
    let batch = |n: usize| (n..n + 100).map(|n| t.ready(n, None)).collect();
    let batches: Vec<Vec<OrderReport>> = (0..600).step_by(100).map(batch).collect();
    let mut waiting = batches.into_iter().map(|reports| t.queue.report(reports)).collect::<Vec<_>>();
    let last = waiting.pop().expect("the sixth");
    let work = async {
        let first = t.writer.step().await;
        (first, t.writer.step().await)
    };
    let work = timeout(Duration::from_mins(1), work);
    let (answers, last, steps) = tokio::join!(join_all(waiting), last, work);
    assert_eq!(steps, Ok((Outcome::Worked(500), Outcome::Worked(100))));
    for answer in answers.into_iter().chain([last]).flat_map(|answers| answers.expect("answers")) {
        assert!(is_applied(&answer.map(|reported| reported.outcome)));
    }
}

/// Promise 1: accepted means durable. A lost answer is asked for again where the id says that it is the same report.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_under_the_id() {
    let script = [WriteFailure::NotDone, WriteFailure::AnswerLost, WriteFailure::AnswerLost];
    let mut t = Reporting::with(script).await;
    let reports = vec![t.ready(0, Some("a")), t.ready(1, Some("a")), t.ready(0, Some("b"))];
    let answers = t.report(reports).await;
    assert!(answers.iter().all(is_applied), "{answers:?}");
    assert_eq!((t.added(0).await, t.added(1).await), (2, 1));
}

/// Promise 3: an effect happens once. It is written once and counted once, and whoever sent it is not told that it is a repeat,
/// whichever way the set that it was in is written again.
#[tokio::test(start_paused = true)]
async fn what_was_written_before_its_answer_got_lost_is_counted_once() {
    let (lost, late) = (WriteFailure::AnswerLost, WriteFailure::AnswerLate);
    for (script, beside) in [
        (vec![lost], true),
        (vec![lost, WriteFailure::NotDone, lost], true),
        (vec![late], true),
        (vec![lost], false),
    ] {
        let mut t = Reporting::with(script.clone()).await;
        // The one without an id alone keeps others from being written again with it.
        let other = t.ready(1, beside.then_some("b"));
        let answers = t.report(vec![t.cooking(0, "a"), t.cooking(0, "a"), other]).await;
        let [Ok(ReportOutcome::Applied(events, steps)), Ok(ReportOutcome::Replayed(again, _)), _] =
            &answers[..]
        else {
            panic!("{script:?}: {answers:?}");
        };
        assert_eq!((events.len(), steps.len(), again), (2, 2, events));
        let steps: Vec<(Status, Status, u32)> = steps.iter().map(|s| (s.from, s.to, s.seq)).collect();
        assert_eq!(
            steps,
            [(Status::Placed, Status::Preparing, 3), (Status::Preparing, Status::Cooking, 4)],
            "{script:?}"
        );
        assert_eq!(t.counted(), ["1", "1", "1"], "{script:?}");
        assert_eq!(t.added(0).await, 2);
        let begun = Instant::now();
        t.alarm.wait(Duration::from_hours(1)).await;
        assert!(begun.elapsed() <= Duration::from_secs(7), "the next step is made in time");
    }
}

/// Promise 3: an effect happens once. What said nothing new before its answer got lost is not judged by what came behind it,
/// and what nobody may write again takes all before it along.
#[tokio::test(start_paused = true)]
async fn a_batch_whose_answer_got_lost_is_not_judged_by_what_it_wrote() {
    let steps = [EventKind::Created, EventKind::Reached(Status::Placed)];
    for failure in [WriteFailure::AnswerLost, WriteFailure::AnswerLate] {
        for named in [true, false] {
            let mut t = Reporting::with([]).await;
            assert!(is_applied(&t.report(vec![t.cooking(0, "a")]).await[0]));
            tokio::time::advance(Duration::from_secs(1)).await;
            // The connection is lost too, and making another takes longer than the first write did.
            t.store.script([failure, WriteFailure::Waits(Duration::from_millis(300))]);
            // Known already, and then taken back: what is known again then would be done again.
            let mut undo = t.ready(0, named.then_some("c"));
            undo.report.event = EventKind::Reverted;
            let batch = vec![t.cooking(0, "b"), undo, t.cooking(0, "a"), t.ready(1, Some("d"))];
            let batch = t.queue.report(batch);
            let (answers, _) = tokio::join!(batch, t.writer.step());
            let outcomes: Vec<_> =
                answers.expect("answers").into_iter().map(|answer| answer.map(|told| told.outcome)).collect();
            match &outcomes[..] {
                [Ok(known), undone, Ok(ReportOutcome::Replayed(..)), other] if named => {
                    assert_eq!(*known, ReportOutcome::Ignored(Ignored::Same), "{failure:?}");
                    assert!(is_applied(undone) && is_applied(other), "{failure:?}: {outcomes:?}");
                }
                [of_order @ .., other] => {
                    assert!(!named && is_applied(other), "{failure:?}: {outcomes:?}");
                    assert_eq!(of_order, [const { Err(ReportError::Unavailable) }; 3], "{failure:?}");
                }
                [] => panic!("nothing is answered"),
            }
            let found = t.store.find(t.orders[0]).await.expect("reads").expect("is stored");
            assert_eq!(found.order.status, Status::Placed, "{failure:?} {named}");
            let kinds: Vec<EventKind> = found.events.iter().map(|event| event.event).collect();
            let added = [Status::Preparing, Status::Cooking].map(EventKind::Reached);
            assert_eq!(kinds, [&steps[..], &added, &[EventKind::Reverted]].concat());
        }
    }
}

/// The write whose answer got lost may hold its rows when it is asked for again: what it does counts still.
#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_stays_so_while_its_order_is_changed() {
    let mut t = Reporting::with([WriteFailure::AnswerLost]).await;
    let held = |held: bool| {
        let mut orders = t.store.held.lock().expect("no panic");
        if held { orders.extend(t.orders[..1].to_vec()) } else { orders.clear() }
    };
    let holding = async {
        sleep(Duration::from_millis(1)).await;
        held(true);
        sleep(Duration::from_millis(300)).await;
        held(false);
    };
    let mut undo = t.ready(0, Some("b"));
    undo.report.event = EventKind::Reverted;
    let batch = t.queue.report(vec![t.cooking(0, "a"), t.ready(1, Some("a")), undo]);
    let (answers, _, ()) = tokio::join!(batch, t.writer.step(), holding);
    let outcomes: Vec<_> =
        answers.expect("answers").into_iter().map(|answer| answer.map(|told| told.outcome)).collect();
    assert!(outcomes.iter().all(is_applied), "{outcomes:?}");
    assert_eq!([t.added(0).await, t.added(1).await], [3, 1]);
}

/// What was applied before is a repeat, though an answer got lost since.
#[tokio::test(start_paused = true)]
async fn a_repeat_stays_one_after_a_lost_answer() {
    for failure in [WriteFailure::NotDone, WriteFailure::AnswerLost, WriteFailure::AnswerLate] {
        let mut t = Reporting::with([]).await;
        assert!(is_applied(&t.report(vec![t.cooking(0, "a")]).await[0]));
        tokio::time::advance(Duration::from_secs(1)).await;
        t.store.script([failure]);
        let answers = t.report(vec![t.cooking(0, "a"), t.ready(1, Some("a"))]).await;
        assert!(
            matches!(&answers[0], Ok(ReportOutcome::Replayed(events, _)) if events.len() == 2),
            "{answers:?}"
        );
        assert!(is_applied(&answers[1]), "{answers:?}");
        assert_eq!(t.counted(), ["1", "1", "1"], "{failure:?}");
    }
}

/// Nobody could tell whether a report without an id was written: it is not written again, and whoever sent it is told.
#[tokio::test(start_paused = true)]
async fn what_has_no_id_is_not_written_twice() {
    for (failure, written) in [(WriteFailure::NotDone, 0), (WriteFailure::AnswerLost, 1)] {
        let mut t = Reporting::with([failure]).await;
        let answers = t.report(vec![t.ready(0, None)]).await;
        assert_eq!(answers, [Err(ReportError::Unavailable)]);
        assert_eq!(t.added(0).await, written);
        // It takes those who share its commit and have an id nowhere.
        t.store.script([failure]);
        let answers = t.report(vec![t.ready(1, Some("a")), t.ready(2, None)]).await;
        assert_eq!((answers[0].is_ok(), &answers[1]), (true, &Err(ReportError::Unavailable)), "{answers:?}");
        assert_eq!((t.added(1).await, t.added(2).await), (1, written));
    }
}

/// Promise 5: memory, queues and time are bounded. Callers are told while the database is away.
/// A report is never written without those of its order that were sent before it.
#[tokio::test(start_paused = true)]
async fn what_came_behind_one_without_an_id_is_not_written_alone() {
    let mut t = Reporting::with([WriteFailure::NotDone]).await;
    let batch = vec![t.ready(0, None), t.ready(0, Some("a")), t.ready(1, Some("b"))];
    let answers = t.queue.report(batch);
    let (answers, _) = tokio::join!(answers, t.writer.step());
    let applied: Vec<bool> = answers.expect("answers").iter().map(Result::is_ok).collect();
    assert_eq!(applied, [false, false, true]);
    assert_eq!((t.added(0).await, t.added(1).await), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn trouble_that_lasts_is_answered_in_time() {
    let mut t = Reporting::with(std::iter::repeat_n(WriteFailure::NotDone, 1_000)).await;
    let begun = Instant::now();
    let answers = t.report(vec![t.ready(0, Some("a"))]).await;
    assert_eq!(answers, [Err(ReportError::Unavailable)]);
    assert!(begun.elapsed() < crate::time::deadlines::QUEUE, "{:?}", begun.elapsed());
    assert_eq!(t.added(0).await, 0);
    // Who stops does not wait.
    t.writer.hurry.cancel();
    let begun = Instant::now();
    assert_eq!(t.report(vec![t.ready(0, Some("a"))]).await, [Err(ReportError::Unavailable)]);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// A database that is slow at each report takes smaller sets, and the size that works is remembered.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_too_slow_is_halved() {
    let mut t = Reporting::of(100, |store| Troubled::slow(store, 40)).await;
    let answers = t.report((0..100).map(|n| t.ready(n, Some("a"))).collect()).await;
    assert!(answers.iter().all(is_applied), "{answers:?}");
    assert!(t.writer.portion.size() <= 50, "{}", t.writer.portion.size());
    let events = join_all((0..100).map(|n| t.added(n))).await;
    assert_eq!(events, [1; 100]);
}

/// Without ids the set that was too slow is given up, since it may have been written; the next one is smaller.
#[tokio::test(start_paused = true)]
async fn a_slow_set_without_ids_makes_the_next_one_smaller() {
    let mut t = Reporting::of(100, |store| Troubled::slow(store, 40)).await;
    for (size, fits) in [(100, false), (50, false), (25, true)] {
        let answers = t.report((0..size).map(|n| t.ready(n, None)).collect()).await;
        let expected =
            |answer| if fits { is_applied(answer) } else { *answer == Err(ReportError::Unavailable) };
        assert!(answers.iter().all(expected), "{size}: {answers:?}");
    }
    assert_eq!(join_all((0..100).map(|n| t.added(n))).await.iter().sum::<usize>(), 25);
}

/// A report must not be applied after its sender was told that it was not.
#[tokio::test(start_paused = true)]
async fn a_caller_that_has_left_is_not_served() {
    let mut t = Reporting::with([]).await;
    let left = timeout(Duration::ZERO, t.queue.report(vec![t.ready(0, None)]));
    assert!(left.await.is_err());
    let (stays, outcome) = tokio::join!(t.queue.report(vec![t.ready(1, None)]), t.writer.step());
    assert!(is_applied(&only(stays)));
    assert_eq!((outcome, t.added(0).await), (Outcome::Worked(1), 0));
}

/// Whoever waits for steps hears when the next one is due since.
#[tokio::test(start_paused = true)]
async fn what_was_applied_wakes_the_scheduler_in_time() {
    let mut t = Reporting::with([]).await;
    let mut report = t.ready(0, None);
    report.report.event = EventKind::Reached(Status::Cooking);
    assert!(is_applied(&t.report(vec![report]).await[0]));
    let begun = Instant::now();
    t.alarm.wait(Duration::from_hours(1)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn the_writer_ends_when_the_last_queue_is_gone() {
    let mut t = Reporting::with([]).await;
    let copy = t.queue.clone();
    drop(t.queue);
    assert!(timeout(Duration::from_mins(1), t.writer.step()).await.is_err(), "somebody may still report");
    drop(copy);
    assert_eq!(t.writer.step().await, Outcome::Finished);
}

/// Nobody waits for an order that somebody else is changing; its own reports are judged anew, and given up in time.
#[tokio::test(start_paused = true)]
async fn an_order_that_others_change_holds_up_no_other() {
    let mut t = Reporting::with([]).await;
    t.store.held.lock().expect("no panic").insert(t.orders[1]);
    let [other, held] = [t.ready(0, None), t.ready(1, None)].map(|report| {
        let queue = t.queue.clone();
        tokio::spawn(async move { only(queue.report(vec![report]).await) })
    });
    let begun = Instant::now();
    assert_eq!(t.writer.step().await, Outcome::Worked(2));
    assert!(is_applied(&other.await.expect("ends")));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    for pause in [5, 30, 150] {
        assert!(!held.is_finished());
        let before = Instant::now();
        assert_eq!(t.writer.step().await, Outcome::Worked(1));
        assert_eq!(before.elapsed().as_millis(), pause);
    }
    assert_eq!(held.await.expect("ends"), Ok(ReportOutcome::Contended));
    assert_eq!(t.added(1).await, 0);
}
