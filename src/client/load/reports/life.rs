//! What kitchens and couriers report of one order: a plain life, and what differs from it now and then.

use std::time::Duration;

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::order::{EventKind, Reason, Report, Source, StageDelays, Status};

/// Of how many orders in a thousand it is so. All that is not plain about made-up lives stands here.
struct Shares {
    /// The first step of the kitchen is not reported: the second says so too.
    skipped: u32,
    /// The kitchen needs longer.
    delayed: u32,
    /// A step is reported too early and taken back.
    mistaken: u32,
    /// A report is sent again, since its answer was lost on the way.
    repeated: u32,
    /// Somebody else reports the same step.
    doubled: u32,
    /// A step is reported after the next one.
    late: u32,
    /// Nobody opens, and the courier comes again.
    failed: u32,
    /// The order is cancelled, in one of its four open statuses: so many in each.
    cancelled: [u32; 4],
    /// The order is cancelled by mistake.
    wrongly_cancelled: u32,
    /// Of those that are cancelled: the kitchen has not heard and reports its next step.
    unheard: u32,
    /// A report has a note.
    noted: u32,
}

const SHARES: Shares = Shares {
    skipped: 80,
    delayed: 100,
    mistaken: 30,
    repeated: 50,
    doubled: 50,
    late: 20,
    failed: 20,
    cancelled: [20, 10, 5, 5],
    wrongly_cancelled: 5,
    unheard: 300,
    noted: 60,
};

const STATIONS: &[&str] = &["grill", "oven", "wok", "cold kitchen", "fryer"];
const NOTES: &[&str] = &[
    "no cutlery, please",
    "bell is broken, knock",
    "sauce is in the second bag",
    "side door, ground floor",
    "waiting for the lift",
];
const MINUTES: &[u16] = &[5, 5, 10, 10, 15, 20];

/// Something that somebody does about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// How long after what was done before.
    pub(super) after: Duration,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Report(Box<Report>),
    /// The same report once more.
    Repeat,
    /// Takes the last report back, if it was applied.
    TakeBack(Source),
}

/// Makes up a life from random numbers.
pub(super) struct LifePlanner<'a> {
    rng: &'a mut StdRng,
    speed: f64,
    steps: Vec<Step>,
    /// For how long nothing was said of a stage that was skipped.
    silence: Duration,
}

impl<'a> LifePlanner<'a> {
    /// So many times as fast as stages usually are.
    pub(super) fn new(rng: &'a mut StdRng, speed: f64) -> Self {
        Self { rng, speed, steps: Vec::new(), silence: Duration::ZERO }
    }

    /// All that is done about an order, from its placing to its end.
    pub(super) fn life(mut self) -> Vec<Step> {
        let end = self.cancelled_in();
        for status in Status::open() {
            if end == Some(status) {
                self.cancelled(status);
                break;
            }
            if status == Status::Preparing && self.happens(SHARES.wrongly_cancelled) {
                self.cancel(status, Reason::Other, Source::Staff);
                self.add(status, 0.1, Action::TakeBack(Source::Staff));
            }
            match status {
                Status::Placed => self.waits(),
                Status::Preparing => self.is_prepared(),
                Status::Cooking => self.cooks(),
                _ => self.is_brought(),
            }
        }
        self.steps
    }

    fn waits(&mut self) {
        if self.happens(SHARES.skipped) {
            self.silence = self.stage(Status::Placed, 1.0);
        } else {
            self.step(Status::Placed, Status::Preparing, Source::Kitchen, 1.0);
        }
    }

    fn is_prepared(&mut self) {
        if self.happens(SHARES.delayed) {
            let minutes = MINUTES.choose(self.rng).copied();
            let reason = if self.rng.random_bool(0.7) { Reason::TooBusy } else { Reason::OutOfStock };
            let report =
                Report { minutes, reason: Some(reason), ..Report::of(EventKind::Delayed, Source::Kitchen) };
            self.report(Status::Preparing, 0.3, report);
        }
        self.step(Status::Preparing, Status::Cooking, Source::Kitchen, 0.7);
        if self.happens(SHARES.late) {
            let late = Report::of(EventKind::Reached(Status::Preparing), Source::Kitchen);
            self.report(Status::Cooking, 0.1, late);
        }
    }

    fn cooks(&mut self) {
        self.says(Status::Cooking, 0.3, EventKind::CourierAssigned, Source::Courier);
        if self.rng.random_bool(0.6) {
            self.says(Status::Cooking, 0.3, EventKind::CourierAtPickup, Source::Courier);
        }
        self.says(Status::Cooking, 0.3, EventKind::Ready, Source::Kitchen);
        self.step(Status::Cooking, Status::OutForDelivery, Source::Courier, 0.1);
    }

    fn is_brought(&mut self) {
        let at = Status::OutForDelivery;
        self.says(at, 0.8, EventKind::CourierAtDoor, Source::Courier);
        if self.happens(SHARES.failed) {
            let failed = EventKind::DeliveryFailed;
            self.report(
                at,
                0.3,
                Report { reason: Some(Reason::Undeliverable), ..Report::of(failed, Source::Courier) },
            );
            self.says(at, 0.8, EventKind::CourierAtDoor, Source::Courier);
        }
        self.step(at, Status::Delivered, Source::Courier, 0.2);
    }

    /// A change of status, with what may go wrong about it.
    fn step(&mut self, from: Status, to: Status, source: Source, share: f64) {
        let event = EventKind::Reached(to);
        if self.happens(SHARES.mistaken) {
            self.says(from, share * 0.3, event, source);
            self.add(from, 0.1, Action::TakeBack(source));
        }
        self.says(from, share, event, source);
        if self.happens(SHARES.repeated) {
            self.add(from, 0.1, Action::Repeat);
        }
        if self.happens(SHARES.doubled) {
            self.says(from, 0.1, event, Source::Staff);
        }
    }

    fn says(&mut self, status: Status, share: f64, event: EventKind, source: Source) {
        self.report(status, share, Report::of(event, source));
    }

    fn report(&mut self, status: Status, share: f64, mut report: Report) {
        if report.source == Source::Kitchen {
            report.station = STATIONS.choose(self.rng).map(|name| (*name).to_owned());
        }
        if self.happens(SHARES.noted) {
            report.note = NOTES.choose(self.rng).map(|text| (*text).to_owned());
        }
        report.id = Some(format!("sim-{}", self.steps.len()));
        self.add(status, share, Action::Report(Box::new(report)));
    }

    /// In which status it is cancelled, if at all.
    fn cancelled_in(&mut self) -> Option<Status> {
        let mut drawn = self.rng.random_range(0..1000);
        for (status, share) in Status::open().zip(SHARES.cancelled) {
            if drawn < share {
                return Some(status);
            }
            drawn -= share;
        }
        None
    }

    fn cancelled(&mut self, status: Status) {
        let (reason, source) = match status {
            Status::Placed if self.rng.random_bool(0.6) => (Reason::CustomerRequest, Source::Customer),
            Status::Placed => (Reason::TooBusy, Source::Kitchen),
            Status::Preparing => (Reason::OutOfStock, Source::Kitchen),
            Status::Cooking => (Reason::CourierUnavailable, Source::Staff),
            _ => (Reason::Undeliverable, Source::Staff),
        };
        self.cancel(status, reason, source);
        if self.happens(SHARES.unheard)
            && let Some(next) = status.next()
        {
            self.says(status, 0.3, EventKind::Reached(next), Source::Kitchen);
        }
    }

    fn cancel(&mut self, status: Status, reason: Reason, source: Source) {
        let cancelled = EventKind::Reached(Status::Cancelled);
        self.report(status, 0.4, Report { reason: Some(reason), ..Report::of(cancelled, source) });
    }

    fn add(&mut self, status: Status, share: f64, action: Action) {
        let after = self.silence + self.stage(status, share);
        self.silence = Duration::ZERO;
        self.steps.push(Step { after, action });
    }

    /// A share of how long a status usually lasts, for some longer than for others.
    fn stage(&mut self, status: Status, share: f64) -> Duration {
        let usual = StageDelays::default().after(status).unwrap_or_default();
        usual.mul_f64(share * self.rng.random_range(0.6..1.3) / self.speed)
    }

    fn happens(&mut self, of_a_thousand: u32) -> bool {
        self.rng.random_range(0..1000) < of_a_thousand
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::order::{
        Conflict, Event, Ignored, Order, OrderDetails, Rules, Timestamp, TrackedOrder, Verdict, judge,
    };

    /// What became of all reports of a life, in virtual time.
    #[derive(Default)]
    struct Seen {
        applied: usize,
        same: usize,
        late: usize,
        conflicts: Vec<Conflict>,
        kinds: std::collections::BTreeSet<EventKind>,
        inferred: bool,
    }

    fn placed(at: Timestamp) -> TrackedOrder {
        let order = Order {
            order_id: "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id"),
            details: OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid"),
            status: Status::Placed,
            created_at: at,
            updated_at: at,
            due_at: None,
            expected_at: Some(at),
        };
        let event = |seq, event| Event { seq, event, timestamp: at, meta: None };
        let events = vec![event(1, EventKind::Created), event(2, EventKind::Reached(Status::Placed))];
        TrackedOrder { order, events }
    }

    fn life(seed: u64) -> Vec<Step> {
        LifePlanner::new(&mut StdRng::seed_from_u64(seed), 1.0).life()
    }

    fn lived(steps: Vec<Step>, seen: &mut Seen) -> TrackedOrder {
        let (mut now, rules) = (Timestamp::UNIX_EPOCH, Rules::default());
        let (mut tracked, mut last) = (placed(now), None);
        for Step { after, action } in steps {
            now += after;
            let report = match action {
                Action::Report(report) => *report,
                // It has been applied under this id.
                Action::Repeat => continue,
                Action::TakeBack(source) => {
                    Report { reverts: last, ..Report::of(EventKind::Reverted, source) }
                }
            };
            seen.kinds.insert(report.event);
            match judge(&tracked, &report, &rules, now) {
                Verdict::Applied(change) => {
                    seen.applied += 1;
                    seen.inferred |= change.events.len() > 1;
                    last = change.events.last().map(|event| event.seq);
                    tracked.events.extend(change.events);
                    tracked.order = change.order;
                }
                Verdict::Ignored(Ignored::Same) => seen.same += 1,
                Verdict::Ignored(Ignored::Late) => seen.late += 1,
                Verdict::Refused(conflict) => seen.conflicts.push(conflict),
                Verdict::NotForRole => unreachable!("nobody is asked for a role"),
            }
        }
        tracked
    }

    /// Everything that may be reported happens among some thousands, and each of them comes to an end.
    #[test]
    fn lives_are_plausible() {
        let (mut seen, mut cancelled, lives) = (Seen::default(), 0, 4_000);
        for seed in 0..lives {
            let end = lived(life(seed), &mut seen).order.status;
            assert!(end.is_final(), "{seed}: {end}");
            cancelled += u64::from(end == Status::Cancelled);
        }
        assert_eq!(seen.kinds.iter().copied().collect::<Vec<_>>(), Report::KINDS);
        let share = u64::from(SHARES.cancelled.iter().sum::<u32>());
        assert!((lives * share / 2000..lives * share / 500).contains(&cancelled), "{cancelled}");
        assert!(seen.same > 0 && seen.late > 0 && seen.inferred, "{} {}", seen.same, seen.late);
        assert!(seen.conflicts.iter().all(|conflict| *conflict == Conflict::OrderFinished));
        assert!(
            !seen.conflicts.is_empty() && seen.applied > 20 * (seen.same + seen.late),
            "{}",
            seen.applied
        );
    }

    #[test]
    fn the_same_seed_leads_to_the_same_life_and_a_speed_to_a_shorter_one() {
        assert_eq!(life(7), life(7));
        assert_ne!(life(7), life(8));
        let whole = |speed| {
            let steps = LifePlanner::new(&mut StdRng::seed_from_u64(7), speed).life();
            steps.iter().map(|step| step.after).sum::<Duration>()
        };
        let (usual, fast) = (whole(1.0), whole(10.0));
        assert!((usual / 10).abs_diff(fast) < Duration::from_millis(1), "{usual:?} {fast:?}");
    }
}
