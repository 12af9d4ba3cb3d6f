//! Whatever is reported, by whom, when and how often: the story stays one that can have happened.

use proptest::prelude::*;

use super::{
    tests::{World, at},
    *,
};
use crate::order::{AuditedEvent, AuditedOrder, Reason, Source, Violation, not_accepted};

/// Something that may happen to an order.
#[derive(Debug, Clone)]
enum Happening {
    /// A report of this kind, which takes back this position if it is a REVERTED that names one.
    Report(EventKind, Option<u32>),
    /// The latest report comes again.
    Again,
    /// The scheduler looks.
    Look,
    /// So many seconds pass, or the clock is set back by as many.
    Wait(i64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let kind = (0..Report::KINDS.len()).prop_map(|at| Report::KINDS[at]);
    let named = proptest::option::of(2..12_u32);
    let happening = prop_oneof![
        4 => (kind, named.clone()).prop_map(|(kind, reverts)| Happening::Report(kind, reverts)),
        2 => named.prop_map(|reverts| Happening::Report(EventKind::Reverted, reverts)),
        1 => Just(Happening::Again),
        3 => Just(Happening::Look),
        3 => (-20..40_i64).prop_map(Happening::Wait),
        1 => (300..4_000_i64).prop_map(Happening::Wait),
    ];
    proptest::collection::vec(happening, 1..60)
}

impl World {
    /// Makes what is due, as every store does.
    fn look(&mut self) {
        let (now, order) = (self.now(), &mut self.tracked.order);
        let Some(due_at) = order.due_at.filter(|due| *due <= now) else { return };
        let by_people = order.expected_at.is_some();
        let path = if by_people {
            StageDelays::not_accepted(order.status, due_at, now)
        } else {
            self.rules.delays.path(order.status, due_at, now)
        };
        order.due_at = path.due_at;
        for step in path.steps {
            let seq = self.tracked.events.last().map_or(0, |last| last.seq) + 1;
            let (event, meta) = (EventKind::Reached(step), by_people.then(not_accepted));
            self.tracked.events.push(Event { seq, event, timestamp: now, meta });
            (order.status, order.updated_at) = (step, now);
        }
    }

    fn violations(&self, now: Timestamp) -> Vec<Violation> {
        let TrackedOrder { order, events } = &self.tracked;
        let audited = AuditedOrder {
            order_id: order.order_id,
            status: order.status,
            seq: i64::try_from(events.len()).expect("few"),
            created_at: order.created_at,
            updated_at: order.updated_at,
            due_at: order.due_at,
            expected_at: order.expected_at,
            unsent: false,
            events: events.iter().map(AuditedEvent::from).collect(),
        };
        audited.violations(now)
    }

    /// What must be true at any moment.
    fn check(&self) -> Result<(), TestCaseError> {
        // Whoever looks late does not make the story wrong.
        prop_assert_eq!(self.violations(at(-1_000_000)), []);
        prop_assert_eq!(MadeSteps::of(&self.tracked.events).status, self.tracked.order.status);
        for role in [None].into_iter().chain(Role::ALL.map(Some)) {
            let applied = Report::KINDS.into_iter().filter(|kind| {
                let report = Report { role, ..Report::of(*kind, role.map_or(Source::Api, Role::source)) };
                matches!(judge(&self.tracked, &report, &self.rules, self.now()), Verdict::Applied(_))
            });
            let allowed = allowed(&self.tracked, role, &self.rules, self.now());
            prop_assert_eq!(allowed, applied.collect::<Vec<_>>());
        }
        Ok(())
    }

    fn report(&mut self, report: &Report) -> Result<(), TestCaseError> {
        let before = self.tracked.clone();
        match self.say(report) {
            Verdict::Applied(change) => {
                prop_assert_eq!(self.tracked.events.len(), before.events.len() + change.events.len());
                prop_assert_eq!(change.events.last().map(|last| last.event), Some(report.event));
                let last = change.transitions.last().map(|step| step.to);
                prop_assert_eq!(last.unwrap_or(before.order.status), change.order.status);
                for step in &change.transitions {
                    let legal = step.from.may_become(step.to) || step.from.may_go_back_to(step.to);
                    prop_assert!(legal, "{:?}", step);
                }
                prop_assert_eq!(change.order.expected_at.is_some(), before.order.expected_at.is_some());
                // The same again: a status is reached once, and a step that is named is taken back once.
                if report.event.status().is_some() || report.reverts.is_some() {
                    prop_assert_eq!(self.say(report), Verdict::Ignored(Ignored::Same));
                }
            }
            Verdict::Ignored(_) | Verdict::Refused(_) | Verdict::NotForRole => {
                prop_assert_eq!(&self.tracked, &before);
            }
        }
        Ok(())
    }
}

proptest! {
    /// Promises 3, 4 and 7 of an order that timers move and of one that people do.
    #[test]
    fn any_interleaving_keeps_the_promises(
        happenings in happenings(),
        by_people in any::<bool>(),
        window in prop_oneof![Just(0_u64), Just(30), Just(300)],
    ) {
        let mut world = if by_people { World::reported() } else { World::timer() };
        world.rules.undo_window = Duration::from_secs(window);
        let mut latest = Report::of(EventKind::Ready, Source::Kitchen);
        for happening in happenings {
            match happening {
                Happening::Wait(seconds) => world.second += seconds,
                Happening::Look => world.look(),
                Happening::Again => world.report(&latest)?,
                Happening::Report(event, reverts) => {
                    latest = Report {
                        reason: Some(Reason::Other),
                        minutes: (event == EventKind::Delayed).then_some(3),
                        reverts: reverts.filter(|_| event == EventKind::Reverted),
                        ..Report::of(event, Source::Kitchen)
                    };
                    world.report(&latest)?;
                }
            }
            world.check()?;
        }
        // In the end a timer has led to an end; what people move waits for them, unless nobody has taken it.
        for _ in 0..8 {
            world.second += 100_000;
            world.look();
            world.check()?;
        }
        let status = world.tracked.order.status;
        prop_assert!(status.is_final() || by_people && status != Status::FIRST, "{status}");
        prop_assert_eq!(world.violations(at(i64::from(i32::MAX))), []);
    }
}
