//! Every cause there is, from figures, health and a row that are made up.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;

use super::{CauseCode as C, *};
use crate::{
    order::{AuditedEvent, AuditedOrder, EventFacts, IdMint, OrderId},
    store::MOVED_AT_ONCE,
    telemetry::health::{Health, Issue, IssueKind, Issues},
};

const WELL: PartsHealth = PartsHealth {
    broker: Health::Up,
    relay: Health::Up,
    consumer: Health::Up,
    dead_letters: Health::Up,
    scheduler: Health::Up,
    events: Health::Up,
    keys: Health::Up,
};

fn at(second: i64) -> Timestamp {
    "2026-01-02T03:04:05.678Z".parse::<Timestamp>().expect("a moment") + TimeDelta::seconds(second)
}

fn id(n: u64) -> OrderId {
    IdMint::default().mint(n, 7)
}

/// An order in this status, with the timeline that leads there, a second a step; its next step is due at second 10.
fn order(status: Status) -> AuditedOrder {
    let steps = Status::plain_life().take_while(|step| *step != status).chain([status]);
    let kinds = std::iter::once(EventKind::Created).chain(steps.map(EventKind::Reached));
    let facts = EventFacts::default();
    let event =
        |(seq, event): (i64, EventKind)| AuditedEvent { seq, event, timestamp: at((seq - 2).max(0)), facts };
    let events: Vec<_> = (1..).zip(kinds).map(event).collect();
    let last = events.last().expect("some");
    AuditedOrder {
        order_id: id(1),
        status,
        created_at: at(0),
        updated_at: last.timestamp,
        seq: last.seq,
        due_at: (!status.is_final()).then(|| at(10)),
        expected_at: None,
        unsent: false,
        events,
    }
}

fn degraded(issues: Vec<Issue>) -> Health {
    Health::Degraded(Issues(issues))
}

/// What was read: so many unsent orders for so long, and so many late ones.
struct Read(Backlog, LateSteps);

impl Read {
    fn of(unsent_for: u64, late: u64) -> Self {
        let oldest_unsent_age = Duration::from_secs(unsent_for);
        let late_steps =
            LateSteps { most: Duration::from_secs(3 * late.min(1)), orders: late, ..LateSteps::default() };
        Self(Backlog { unsent: 1, oldest_unsent_age, ..Backlog::default() }, late_steps)
    }

    fn figures(&self) -> Figures<'_> {
        Figures { stale: None, away: None, backlog: Ok(&self.0), overdue: Ok(&self.1), unread: None }
    }
}

fn part(figures: Option<&Figures<'_>>, parts: &PartsHealth, name: &str) -> PartLine {
    diagnose(figures, parts).into_iter().find(|line| line.part == name).expect("a part")
}

fn codes(explanation: &Explanation) -> Vec<CauseCode> {
    explanation.causes.iter().map(|cause| cause.code).collect()
}

fn told(explanation: &Explanation) -> &str {
    &explanation.causes[0].text
}

/// Promise 6: it says what is wrong. Nothing is, and each part says so.
#[test]
fn what_is_well_has_no_cause() {
    let read = Read::of(0, 0);
    for line in diagnose(Some(&read.figures()), &WELL) {
        assert_eq!((line.state, line.causes), (State::Ok, Vec::new()), "{}", line.part);
    }
}

/// What is said of one part: how much of its work it does, why, and the line of `/readyz`.
fn assert_part(line: &PartLine, state: State, codes: &[CauseCode], reason: &str) {
    let found: Vec<CauseCode> = line.causes.iter().map(|cause| cause.code).collect();
    assert_eq!((line.state, found.as_slice()), (state, codes), "{line:?}");
    assert!(line.reason().starts_with(reason), "{line:?}");
    assert!(line.causes.iter().all(|cause| !cause.remedy.is_empty()), "no next step: {line:?}");
}

/// Promise 6: it says what is wrong. What the parts say of themselves, and what to do.
#[test]
fn a_part_that_complains_is_judged_by_what_it_says() {
    let read = Read::of(0, 0);
    let down = |reason: &str| Health::Down(reason.to_owned());
    let partition = Issue::new(IssueKind::Partition, "partition 3 has no leader");
    let refused = Issue::about(IssueKind::Refused, id(7), "the broker refuses it: too large");
    let locked = Issue::new(IssueKind::Other, "another session holds 2 outbox rows");
    let held = Issue::about(IssueKind::Held, id(7), "ORD-7 can't be moved: a trigger");
    let more = Issue::new(IssueKind::Held, "and 4 more");
    let (relayed, moved) = (degraded(vec![partition, refused, locked]), degraded(vec![held, more]));
    let part_of = |parts: PartsHealth, name: &str| part(Some(&read.figures()), &parts, name);

    let broker = part_of(PartsHealth { broker: down("refused"), ..WELL }, "broker");
    assert_part(&broker, State::Down, &[C::BrokerAway], "refused");
    let broker = part_of(PartsHealth { broker: Health::Unknown, ..WELL }, "broker");
    assert_part(&broker, State::Down, &[C::NotKnownYet], "not reached yet");
    let relay = part_of(PartsHealth { relay: relayed, ..WELL }, "relay");
    let all = [C::PartitionAway, C::OrderRefused, C::RelayDegraded];
    let reason = "partition 3 has no leader; the broker refuses it: too large; another session holds";
    assert_part(&relay, State::Degraded, &all, reason);
    let relay = part_of(PartsHealth { relay: down("no order can be published"), ..WELL }, "relay");
    assert_part(&relay, State::Down, &[C::RelayDegraded], "no order can be published");
    let consumer = part_of(PartsHealth { consumer: down("messages wait"), ..WELL }, "consumer");
    assert_part(&consumer, State::Down, &[C::ConsumerDown], "messages wait");
    let dead = part_of(PartsHealth { dead_letters: down("no such topic"), ..WELL }, "dead_letters");
    assert_part(&dead, State::Down, &[C::DeadLettersUnusable], "no such topic");
    let events = part_of(PartsHealth { events: down("no right"), ..WELL }, "events");
    assert_part(&events, State::Down, &[C::EventsBehind], "no right");
    let events = part_of(PartsHealth { events: Health::Unknown, ..WELL }, "events");
    assert_part(&events, State::Ok, &[], "");
    let keys = part_of(PartsHealth { keys: down("no right"), ..WELL }, "keys");
    assert_part(&keys, State::Down, &[C::KeysNotRead], "no right");
    let keys = part_of(PartsHealth { keys: Health::Unknown, ..WELL }, "keys");
    assert_part(&keys, State::Ok, &[], "");
    let scheduler = part_of(PartsHealth { scheduler: down("locked"), ..WELL }, "scheduler");
    assert_part(&scheduler, State::Down, &[C::SchedulerDown], "locked");
    let scheduler = part_of(PartsHealth { scheduler: moved, ..WELL }, "scheduler");
    let reason = "ORD-7 can't be moved: a trigger; and 4 more";
    assert_part(&scheduler, State::Degraded, &[C::OrderHeld], reason);
}

/// Promise 6: it says what is wrong. What the figures say of the parts, or that they can't be read.
#[test]
fn a_part_that_is_behind_is_judged_by_its_figures() {
    let (well, behind, late) = (Read::of(0, 0), Read::of(11, 0), Read::of(0, 1));
    let figures = well.figures();
    let (away, slow) =
        (StoreError::Unavailable("refused".to_owned()), StoreError::Timeout(Duration::from_secs(2)));
    let unreachable = Figures { away: Some(&away), unread: Some(&away), ..figures.clone() };
    let old = Figures { stale: Some(Duration::from_secs(40)), ..figures.clone() };
    let unread = Figures { backlog: Err(&slow), unread: Some(&slow), ..figures.clone() };
    let late_since = LateSteps { since: Some(at(0)), ..LateSteps::default() };
    let in_part = Figures { overdue: Ok(&late_since), ..figures.clone() };
    let unknown = [C::FiguresUnknown];

    let database = |figures: Option<&Figures<'_>>| part(figures, &WELL, "database");
    assert_part(&database(None), State::Degraded, &[C::NotKnownYet], "not read yet");
    let reason = "the database is unavailable: refused";
    assert_part(&database(Some(&unreachable)), State::Down, &[C::DatabaseUnreachable], reason);
    assert_part(&database(Some(&old)), State::Degraded, &unknown, "last read 40 s ago");
    assert_part(&database(Some(&unread)), State::Degraded, &unknown, "not all figures can be read: ");

    let relay = |figures: &Figures<'_>| part(Some(figures), &WELL, "relay");
    let reason = "1 orders unsent, the oldest for 11.0 s";
    assert_part(&relay(&behind.figures()), State::Degraded, &[C::RelayBehind], reason);
    assert_part(&relay(&unread), State::Degraded, &unknown, "not known: the database did not answer");
    assert_part(&relay(&unreachable), State::Degraded, &unknown, "not known without the database");

    let scheduler = |figures: &Figures<'_>| part(Some(figures), &WELL, "scheduler");
    let reason = "the most overdue step is 3.0 s late";
    assert_part(&scheduler(&late.figures()), State::Degraded, &[C::SchedulerBehind], reason);
    let reason = "whether steps due before 2026-01-02T03:04:05Z are late is not known";
    assert_part(&scheduler(&in_part), State::Degraded, &unknown, reason);
}

/// Promise 6: it says what is wrong. An order whose time has not come is not said to stand still, and until when.
#[test]
fn an_order_in_time_waits_for_the_end_of_its_stage() {
    let (order, read) = (order(Status::Preparing), Read::of(0, 0));
    let explained = explain(&order, at(9), Some(&read.figures()), &WELL);
    assert_eq!((explained.status, explained.since), (Status::Preparing, at(1)));
    assert_eq!((explained.waits_for, explained.allowed.len()), (Some(Status::Cooking), 0));
    assert_eq!(codes(&explained), [CauseCode::StageNotOver]);
    let text =
        "its stage is not over yet: COOKING is due at 2026-01-02T03:04:15.678Z. Nothing is to be done.";
    assert_eq!(told(&explained), text);
    for now in [10, 12] {
        assert_eq!(codes(&explain(&order, at(now), Some(&read.figures()), &WELL)), [CauseCode::StepDue]);
    }
}

/// What nothing follows waits for nothing.
#[test]
fn an_order_that_was_delivered_says_so() {
    let explained = explain(&order(Status::Delivered), at(60), None, &WELL);
    assert_eq!((explained.waits_for, codes(&explained)), (None, vec![CauseCode::Finished]));
}

/// Promise 6: it says what is wrong. A late step has one cause, and it is the order's own where one is named.
#[test]
fn a_late_step_says_what_holds_it_up() {
    let (order, few, many) = (order(Status::Placed), Read::of(0, 1), Read::of(0, MOVED_AT_ONCE as u64 + 1));
    let late = |read: &Read, scheduler: Health| {
        explain(&order, at(22), Some(&read.figures()), &PartsHealth { scheduler, ..WELL })
    };
    let mine = Issue::about(IssueKind::Held, order.order_id, "it can't be moved: a trigger");
    let other = Issue::about(IssueKind::Held, id(9), "ORD-9 can't be moved: a trigger");
    let more = Issue::new(IssueKind::Held, "and 4 more");
    let cases = [
        (
            late(&few, Health::Down("locked".to_owned())),
            CauseCode::SchedulerDown,
            "can't write steps (locked)",
        ),
        (late(&few, Health::Unknown), CauseCode::NotKnownYet, "has only just started"),
        (late(&few, Health::Up), CauseCode::OrderPassedOver, "passes over it"),
        (late(&many, Health::Up), CauseCode::SchedulerBehind, "more is due than is done"),
        (
            late(&few, degraded(vec![other.clone(), mine, more.clone()])),
            CauseCode::OrderHeld,
            "it can't be moved: a trigger (PREPARING was due at 2026-01-02T03:04:15.678Z, 12 s ago)",
        ),
        (late(&few, degraded(vec![other.clone(), more])), CauseCode::OrderHeld, "may be one of them"),
        (late(&few, degraded(vec![other])), CauseCode::OrderPassedOver, "passes over it"),
    ];
    for (explained, code, words) in cases {
        assert_eq!(codes(&explained), [code], "{explained:?}");
        assert!(told(&explained).contains(words), "{explained:?}");
        assert!(told(&explained).matches(". ").count() > 0, "no next step: {explained:?}");
    }
}

/// Promise 6: it says what is wrong. That an order is not on the topic does not keep it from moving, and is said too.
#[test]
fn an_order_that_is_not_published_says_why() {
    let unsent = AuditedOrder { unsent: true, ..order(Status::Placed) };
    let why = |broker: Health, relay: Health| {
        let explained = explain(&unsent, at(5), None, &PartsHealth { broker, relay, ..WELL });
        assert_eq!(explained.causes[0].code, CauseCode::StageNotOver, "{explained:?}");
        let rest = &explained.causes[1..];
        assert!(rest.iter().all(|cause| cause.text.starts_with("it waits in the outbox: ")), "{rest:?}");
        let codes: Vec<CauseCode> = rest.iter().map(|cause| cause.code).collect();
        (codes, rest.iter().map(|cause| cause.text.as_str()).collect::<String>())
    };
    let partition = Issue::new(IssueKind::Partition, "partition 3 has no leader");
    let mine = Issue::about(IssueKind::Refused, unsent.order_id, "the broker refuses it: too large");
    let other = Issue::about(IssueKind::Refused, id(9), "the broker refuses ORD-9: too large");
    let many = Issue { others: true, ..other.clone() };
    let down = || Health::Down("connection refused".to_owned());
    for (broker, relay, codes, words) in [
        (
            down(),
            Health::Up,
            vec![C::BrokerAway],
            "the broker is away (connection refused). It goes out when",
        ),
        (Health::Unknown, Health::Up, vec![C::NotKnownYet], "not been reached yet"),
        (Health::Up, Health::Unknown, vec![C::NotKnownYet], "only just started"),
        (Health::Up, Health::Up, vec![C::RelayBehind], "it is being sent"),
        (Health::Up, down(), vec![C::RelayDegraded], "connection refused"),
        (Health::Up, degraded(vec![partition.clone()]), vec![C::PartitionAway], "has no leader"),
        (
            Health::Up,
            degraded(vec![partition.clone(), mine]),
            vec![C::OrderRefused],
            "the broker refuses it: too large. It goes out when that is over. Mend what the broker names;",
        ),
        (Health::Up, degraded(vec![other]), vec![C::RelayBehind], "it is being sent"),
        (Health::Up, degraded(vec![partition, many]), vec![C::PartitionAway, C::OrderRefused], "ORD-9"),
    ] {
        let found = why(broker, relay);
        assert_eq!(found.0, codes, "{}", found.1);
        assert!(found.1.contains(words), "{}", found.1);
    }
    let fresh = explain(&unsent, at(0), None, &WELL);
    assert_eq!(codes(&fresh), [CauseCode::StageNotOver], "it is on its way");
}

/// Promise 6: it says what is wrong, where somebody has tampered with the rows too.
#[test]
fn rows_that_contradict_each_other_are_named() {
    let mut order = order(Status::Cooking);
    order.events.pop();
    order.due_at = None;
    let explained = explain(&order, at(5), None, &WELL);
    assert_eq!(codes(&explained), [CauseCode::TimelineBroken; 3], "its position, its row, its next step");
    assert!(explained.causes[1].text.contains("status and stamps are those of the events"), "{explained:?}");
    assert!(explained.causes[2].text.contains("waits for no step"), "{explained:?}");
}

/// Not to know of dead letters is not to have none, and why.
#[test]
fn dead_letters_that_are_not_known_have_a_cause() {
    let down = || Health::Down("no right".to_owned());
    for (broker, dead_letters, code, text) in [
        (down(), down(), CauseCode::BrokerAway, "the broker is away (no right)."),
        (Health::Unknown, Health::Unknown, CauseCode::NotKnownYet, "the broker has not been reached yet."),
        (
            Health::Up,
            down(),
            CauseCode::DeadLettersUnusable,
            "the dead-letter topic can't be used (no right).",
        ),
        (Health::Up, Health::Up, CauseCode::DeadLettersUnusable, "the topic has not been read since."),
    ] {
        let cause = unread(&PartsHealth { broker, dead_letters, ..WELL });
        assert_eq!(cause.code, code);
        assert!(cause.text().starts_with(text), "{}", cause.text());
    }
}

/// Several causes are one text: what was seen, then what to do, nothing twice.
#[test]
fn causes_are_said_in_one_breath() {
    let parts = PartsHealth {
        broker: Health::Down("refused\nand more lines".to_owned()),
        relay: Health::Down("the database does not answer (locked)".to_owned()),
        ..WELL
    };
    let text = sentences(&unsent(&parts));
    assert!(
        text.starts_with(
            "the broker is away (refused), and the database does not answer (locked). They go out"
        ),
        "{text}"
    );
    let codes: BTreeSet<CauseCode> = unsent(&parts).iter().map(|cause| cause.code).collect();
    assert_eq!(codes, [CauseCode::BrokerAway, CauseCode::RelayDegraded].into());
}

/// An order that people move waits for them, and for the service only where it cancels what nobody takes.
#[test]
fn an_order_that_people_move_waits_for_a_report() {
    let by_people = |status, due_at| AuditedOrder { expected_at: Some(at(10)), due_at, ..order(status) };
    let cooking = by_people(Status::Cooking, None);
    let early = explain(&cooking, at(5), None, &WELL);
    assert_eq!(codes(&early), [CauseCode::ReportAwaited]);
    assert!(early.causes[0].text.contains("OUT_FOR_DELIVERY is expected at"), "{early:?}");
    let late = explain(&cooking, at(70), None, &WELL);
    assert_eq!(codes(&late), [CauseCode::ReportLate]);
    assert!(late.causes[0].text.contains("60 s ago. Whoever does it reports it"), "{late:?}");
    assert_eq!(
        codes(&explain(&by_people(Status::Delivered, None), at(70), None, &WELL)),
        [CauseCode::Finished]
    );

    let placed = by_people(Status::Placed, Some(at(60)));
    let waits = explain(&placed, at(30), None, &WELL);
    assert_eq!(codes(&waits), [CauseCode::ReportLate]);
    assert!(waits.causes[0].text.contains("it is cancelled unless somebody takes it"), "{waits:?}");
    let scheduler = Health::Down("the database does not answer".to_owned());
    let held = explain(&placed, at(90), None, &PartsHealth { scheduler, ..WELL });
    assert_eq!(codes(&held), [CauseCode::SchedulerDown]);
    assert!(held.causes[0].text.contains("CANCELLED was due at"), "{held:?}");
}
