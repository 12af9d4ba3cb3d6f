//! What is wrong with the service: part by part, with what is late, and with what is not published.

use super::{Cause, CauseCode, Figures, PartsHealth, first_line, shown};
use crate::{
    order::{
        Backlog, LateSteps, OrderId,
        promises::{OVERDUE_AFTER, PUBLISHED_WITHIN},
    },
    store::{MOVED_AT_ONCE, StoreError},
    telemetry::health::{Health, Issue, IssueKind},
};

/// How much of its work a part does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All.
    Ok,
    /// It works, but not for all, or nobody knows.
    Degraded,
    /// None.
    Down,
}

/// A part and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartLine {
    /// Its name: `database`, `broker`, `relay`, `consumer`, `dead_letters`, `scheduler`, `events` or `keys`.
    pub part: &'static str,
    /// How much of its work it does.
    pub state: State,
    /// What there is to say while it does all.
    pub well: String,
    /// Why it does not; none while it does.
    pub causes: Vec<Cause>,
}

impl PartLine {
    fn ok(part: &'static str, well: impl Into<String>) -> Self {
        Self { part, state: State::Ok, well: well.into(), causes: Vec::new() }
    }

    fn wrong(part: &'static str, state: State, causes: Vec<Cause>) -> Self {
        Self { part, state, well: String::new(), causes }
    }

    /// What is wrong, in a line.
    pub fn reason(&self) -> String {
        let whats: Vec<&str> = self.causes.iter().map(|cause| cause.what.as_str()).collect();
        whats.join("; ")
    }
}

const MEND_DATABASE: &str = "Mend the database or the way to it; the service goes on by itself.";
const MEND_BROKER: &str =
    "Mend the broker or the way to it; orders are taken meanwhile and wait in the outbox.";
const MEND_CONSUMER: &str = "Mend that; the consumer tries again by itself, and no offset moves meanwhile.";
const MEND_DEAD_LETTERS: &str =
    "Mend the topic or the right to it; messages that are no orders wait meanwhile.";
const MEND_EVENTS: &str =
    "Mend that; events are kept in the database and go out in order by themselves, none is passed over.";
const MEND_KEYS: &str = "Mend the database, or the right to api_keys (docs/roles.sql); keys that are known stay good \
     meanwhile, and one that is revoked does too.";
const PASSES_BY_ITSELF: &str =
    "That passes by itself; if it lasts, a session of the database keeps an old transaction open.";
const JUST_STARTED: &str = "Ask again in a moment; if that lasts, the log says why.";
const HELD: &str = "Such an order is tried again with growing pauses, and all others go on; \
     mend what the reason names, such as a trigger or an event that is there twice.";

/// Judges every part: by its figures, unless it says something of itself.
pub fn diagnose(figures: Option<&Figures<'_>>, parts: &PartsHealth) -> [PartLine; 8] {
    // Why there are none is said of the database, once.
    let known = figures.filter(|figures| figures.away.is_none());
    let backlog = known.map(|figures| figures.backlog);
    let overdue = known.map(|figures| figures.overdue);
    [
        database(figures),
        told("broker", &parts.broker, "not reached yet", CauseCode::BrokerAway, MEND_BROKER),
        judged("relay", &parts.relay, backlog, relay, relay_causes),
        told(
            "consumer",
            &parts.consumer,
            "has not read the topic yet",
            CauseCode::ConsumerDown,
            MEND_CONSUMER,
        ),
        dead_letters(&parts.dead_letters),
        judged("scheduler", &parts.scheduler, overdue, scheduler, scheduler_causes),
        events(&parts.events),
        keys(&parts.keys),
    ]
}

/// What a part says of itself.
fn told(part: &'static str, health: &Health, not_yet: &str, code: CauseCode, remedy: &str) -> PartLine {
    let wrong =
        |state, code, what: &str, remedy| PartLine::wrong(part, state, vec![Cause::new(code, what, remedy)]);
    match health {
        Health::Up => PartLine::ok(part, "ok"),
        Health::Unknown => wrong(State::Down, CauseCode::NotKnownYet, not_yet, JUST_STARTED),
        Health::Degraded(issues) => wrong(State::Degraded, code, &issues.to_string(), remedy),
        Health::Down(reason) => wrong(State::Down, code, reason, remedy),
    }
}

fn dead_letters(health: &Health) -> PartLine {
    match health {
        // They are looked at while the broker is up, and it speaks for itself.
        Health::Unknown => PartLine::ok("dead_letters", "not looked at"),
        health => told("dead_letters", health, "", CauseCode::DeadLettersUnusable, MEND_DEAD_LETTERS),
    }
}

fn events(health: &Health) -> PartLine {
    match health {
        // With the topic off nobody writes.
        Health::Unknown => PartLine::ok("events", "not written here"),
        health => told("events", health, "", CauseCode::EventsBehind, MEND_EVENTS),
    }
}

fn keys(health: &Health) -> PartLine {
    match health {
        // With `AUTH=open` nobody reads them.
        Health::Unknown => PartLine::ok("keys", "not asked for"),
        health => told("keys", health, "", CauseCode::KeysNotRead, MEND_KEYS),
    }
}

fn database(figures: Option<&Figures<'_>>) -> PartLine {
    let degraded = |code, what: String, remedy| {
        PartLine::wrong("database", State::Degraded, vec![Cause::new(code, what, remedy)])
    };
    let Some(figures) = figures else {
        return degraded(CauseCode::NotKnownYet, "not read yet".to_owned(), JUST_STARTED);
    };
    if let Some(age) = figures.stale {
        let what = format!("last read {} s ago", age.as_secs());
        return degraded(CauseCode::FiguresUnknown, what, PASSES_BY_ITSELF);
    }
    match (figures.away, figures.unread) {
        (Some(error), _) => {
            let cause = Cause::new(CauseCode::DatabaseUnreachable, error.to_string(), MEND_DATABASE);
            PartLine::wrong("database", State::Down, vec![cause])
        }
        (None, Some(error)) => {
            let what = format!("not all figures can be read: {error}");
            degraded(CauseCode::FiguresUnknown, what, PASSES_BY_ITSELF)
        }
        (None, None) => PartLine::ok("database", "ok"),
    }
}

/// What its figures say of a part, unless it says something of itself.
fn judged<T>(
    part: &'static str,
    health: &Health,
    figures: Option<Result<&T, &StoreError>>,
    line: impl Fn(&T) -> PartLine,
    causes: impl Fn(&Health) -> Vec<Cause>,
) -> PartLine {
    let unknown = |what: String, remedy| {
        let cause = Cause::new(CauseCode::FiguresUnknown, what, remedy);
        PartLine::wrong(part, State::Degraded, vec![cause])
    };
    match (health, figures) {
        (Health::Degraded(_), _) => PartLine::wrong(part, State::Degraded, causes(health)),
        (Health::Down(_), _) => PartLine::wrong(part, State::Down, causes(health)),
        (_, Some(Ok(figures))) => line(figures),
        (_, Some(Err(error))) => unknown(format!("not known: {error}"), PASSES_BY_ITSELF),
        (_, None) => unknown("not known without the database".to_owned(), MEND_DATABASE),
    }
}

fn relay(backlog: &Backlog) -> PartLine {
    let Backlog { unsent, oldest_unsent_age: age, since, .. } = backlog;
    let line = format!("{unsent} orders unsent, the oldest for {:.1} s", age.as_secs_f64());
    let wrong =
        |code, what, remedy| PartLine::wrong("relay", State::Degraded, vec![Cause::new(code, what, remedy)]);
    match since {
        Some(since) => {
            let what = format!("{line}; of orders placed before {} that is not known", shown(*since));
            wrong(CauseCode::FiguresUnknown, what, PASSES_BY_ITSELF)
        }
        None if *age > PUBLISHED_WITHIN => {
            wrong(CauseCode::RelayBehind, line, "What holds them up stands at the broker, or in the log.")
        }
        None => PartLine::ok("relay", format!("ok, {line}")),
    }
}

fn scheduler(late: &LateSteps) -> PartLine {
    let line = format!("the most overdue step is {:.1} s late", late.most.as_secs_f64());
    let wrong = |code, what, remedy| {
        PartLine::wrong("scheduler", State::Degraded, vec![Cause::new(code, what, remedy)])
    };
    match late.since {
        Some(since) => {
            let what = match late.known() {
                None => format!("whether steps due before {} are late is not known", shown(since)),
                Some(_) => format!("{line}; of steps due before {} that is not known", shown(since)),
            };
            wrong(CauseCode::FiguresUnknown, what, PASSES_BY_ITSELF)
        }
        None if late.most > OVERDUE_AFTER => {
            wrong(CauseCode::SchedulerBehind, line, "The board names the orders and says why.")
        }
        None => PartLine::ok("scheduler", format!("ok, {line}")),
    }
}

fn scheduler_causes(health: &Health) -> Vec<Cause> {
    match health {
        Health::Down(reason) => vec![Cause::new(CauseCode::SchedulerDown, reason, MEND_DATABASE)],
        Health::Degraded(issues) => vec![held(issues.to_string())],
        Health::Unknown | Health::Up => Vec::new(),
    }
}

pub(super) fn held(what: impl Into<String>) -> Cause {
    Cause::new(CauseCode::OrderHeld, what, HELD)
}

pub(super) fn relay_causes(health: &Health) -> Vec<Cause> {
    match health {
        Health::Down(reason) => vec![Cause::new(CauseCode::RelayDegraded, reason, MEND_BROKER)],
        Health::Degraded(issues) => issues.0.iter().map(|issue| unpublished(issue, "")).collect(),
        Health::Unknown | Health::Up => Vec::new(),
    }
}

/// What one issue of the relay means, and what to do.
fn unpublished(issue: &Issue, goes_out: &str) -> Cause {
    let (code, step) = match issue.kind {
        IssueKind::Partition => {
            (CauseCode::PartitionAway, "Bring the partition's leader back; all other partitions go on.")
        }
        IssueKind::Refused => (
            CauseCode::OrderRefused,
            "Mend what the broker names; a refused order is tried again after 5 minutes at most, and holds up no other.",
        ),
        IssueKind::Held | IssueKind::Other => {
            (CauseCode::RelayDegraded, "Mend what the reason names; all other orders go on.")
        }
    };
    Cause::new(code, &issue.text, format!("{goes_out}{step}"))
}

/// Why steps are late. What one transaction can move stays behind only if it is passed over, or if the transaction
/// takes its time.
pub fn late(figures: Option<&Figures<'_>>, parts: &PartsHealth) -> Vec<Cause> {
    let many = figures
        .and_then(|figures| figures.overdue.ok())
        .is_some_and(|late| late.orders > MOVED_AT_ONCE as u64);
    match &parts.scheduler {
        Health::Degraded(_) => scheduler_causes(&parts.scheduler),
        Health::Down(reason) => vec![Cause::new(
            CauseCode::SchedulerDown,
            format!("this replica can't write steps ({})", first_line(reason)),
            "It tries again by itself; no step is lost. Mend the database, or the way to it.",
        )],
        Health::Unknown => vec![not_looked()],
        Health::Up if many => vec![Cause::new(
            CauseCode::SchedulerBehind,
            "more is due than is done; the oldest steps go first",
            "More replicas help if the database has room; else look at what slows it down.",
        )],
        Health::Up => vec![passed_over()],
    }
}

fn not_looked() -> Cause {
    let what = "the service has only just started and has not looked yet";
    Cause::new(CauseCode::NotKnownYet, what, JUST_STARTED)
}

fn passed_over() -> Cause {
    Cause::new(
        CauseCode::OrderPassedOver,
        "another replica or a session in the database holds what is late, and this replica passes over it; or the \
            database is slow",
        "Look for locks on orders in pg_stat_activity, and end the session that holds one.",
    )
}

/// Who waits to be published.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    All,
    Order(OrderId),
}

/// Why orders are not on the topic yet.
pub fn unsent(parts: &PartsHealth) -> Vec<Cause> {
    unpublished_causes(parts, Scope::All)
}

pub(super) fn unpublished_causes(parts: &PartsHealth, who: Scope) -> Vec<Cause> {
    let (they, go_out) = match who {
        Scope::All => ("they are", "They go out when that is over. "),
        Scope::Order(_) => ("it is", "It goes out when that is over. "),
    };
    let mut causes = Vec::new();
    let broker = match &parts.broker {
        Health::Down(reason) => Some(format!("the broker is away ({})", first_line(reason))),
        Health::Degraded(issues) => Some(issues.to_string()),
        Health::Up | Health::Unknown => None,
    };
    let step = format!("{go_out}Mend the broker, or the way to it.");
    causes.extend(broker.map(|what| Cause::new(CauseCode::BrokerAway, what, step.clone())));
    match &parts.relay {
        Health::Down(reason) => {
            let step = format!("{go_out}Mend what the reason names.");
            causes.push(Cause::new(CauseCode::RelayDegraded, reason, step));
        }
        Health::Degraded(issues) => {
            let issues = concerning(&issues.0, who).into_iter();
            causes.extend(issues.map(|issue| unpublished(issue, go_out)));
        }
        Health::Up | Health::Unknown => {}
    }
    if causes.is_empty() {
        causes.push(match (&parts.broker, &parts.relay) {
            (Health::Unknown, _) => {
                Cause::new(CauseCode::NotKnownYet, "the broker has not been reached yet", JUST_STARTED)
            }
            (_, Health::Unknown) => {
                let what = "the service has only just started to send them";
                Cause::new(CauseCode::NotKnownYet, what, JUST_STARTED)
            }
            _ => Cause::new(
                CauseCode::RelayBehind,
                format!("{they} being sent; this replica knows of nothing that holds {} up", them(who)),
                "Look at the other replicas and at the broker; if it lasts, their logs say why.",
            ),
        });
    }
    causes
}

fn them(who: Scope) -> &'static str {
    match who {
        Scope::All => "them",
        Scope::Order(_) => "it",
    }
}

/// The issues that hold these orders up: of one order what names it, else what may be about it.
pub(super) fn concerning(issues: &[Issue], who: Scope) -> Vec<&Issue> {
    let Scope::Order(order_id) = who else { return issues.iter().collect() };
    let own: Vec<&Issue> = issues.iter().filter(|issue| issue.order_id == Some(order_id)).collect();
    if own.is_empty() { issues.iter().filter(|issue| issue.may_be_of(order_id)).collect() } else { own }
}

/// Why dead letters can't be counted.
pub fn unread(parts: &PartsHealth) -> Cause {
    match (&parts.dead_letters, &parts.broker) {
        (_, Health::Down(reason)) => {
            let what = format!("the broker is away ({})", first_line(reason));
            Cause::new(CauseCode::BrokerAway, what, "Mend the broker, or the way to it.")
        }
        (_, Health::Unknown) => {
            Cause::new(CauseCode::NotKnownYet, "the broker has not been reached yet", JUST_STARTED)
        }
        (Health::Down(reason), _) => {
            let what = format!("the dead-letter topic can't be used ({})", first_line(reason));
            Cause::new(CauseCode::DeadLettersUnusable, what, MEND_DEAD_LETTERS)
        }
        _ => Cause::new(
            CauseCode::DeadLettersUnusable,
            "the topic has not been read since",
            "If that lasts, the log says why.",
        ),
    }
}
