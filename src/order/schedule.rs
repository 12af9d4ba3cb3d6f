//! How long each stage takes, and which steps are due.

use std::{fmt, iter, str::FromStr, time::Duration};

use chrono::TimeDelta;

use super::{Order, PerStatus, Status, Timestamp, listed};

/// Longest delay of one stage.
const MAX_DELAY: Duration = Duration::from_hours(365 * 24);
/// How long making a step may take beside its delay, in an estimate.
const STEP_MAY_TAKE: Duration = Duration::from_secs(1);

const _: () = assert!(Status::FIRST.next().is_some(), "nothing would ever happen to an order");

/// Who moves an order, told when it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progression {
    /// Timers do; a report may come earlier.
    #[default]
    Timer,
    /// People do, by reports alone.
    Reported,
}

/// When an order goes on that is placed or taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// How long after it the service acts; `None` if it does not.
    pub due_in: Option<Duration>,
    /// How long after it people should have acted; `None` if timers move the order.
    pub expected_in: Option<Duration>,
}

impl Start {
    /// Of an order that timers move.
    pub fn timer(first_delay: Duration) -> Self {
        Self { due_in: Some(first_delay), expected_in: None }
    }
}

/// Time spent in each status that a timer leads out of, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageDelays(PerStatus<Option<Duration>>);

impl Default for StageDelays {
    fn default() -> Self {
        Self(PerStatus::new(Status::default_delay))
    }
}

impl StageDelays {
    /// The same delay for all stages.
    pub fn uniform(delay: Duration) -> Self {
        Self(PerStatus::new(|status| status.next().map(|_| delay)))
    }

    /// How long an order stays in its first status.
    pub fn first(&self) -> Duration {
        self.after(Status::FIRST).expect("a status with a timer has a delay")
    }

    /// How long an order stays in `status`; `None` where nothing happens by itself.
    pub fn after(&self, status: Status) -> Option<Duration> {
        self.0[status]
    }

    /// When an order that reached `status` at `at` is due for its next step; `None` where none is.
    pub fn due_after(&self, status: Status, at: Timestamp) -> Option<Timestamp> {
        Some(at + self.after(status)?)
    }

    /// Between which moments an order should arrive; `None` where nothing more will. Its next step is due when it was
    /// written to be, the steps after that as the delays are now. Never before the first moment, and later
    /// than the second only if something holds it up. Every step brings the two closer together.
    pub fn eta(&self, order: &Order) -> Option<(Timestamp, Timestamp)> {
        let due_at = order.goes_on_at()?;
        // At the end nothing is waited for.
        let later = order.status.onwards().filter_map(|status| self.after(status));
        let soonest = due_at + later.clone().sum::<Duration>();
        // A due moment before the last step, which only a hand can write, leaves nothing to add.
        let least = (soonest - order.updated_at).max(TimeDelta::zero());
        let steps = iter::repeat_n(STEP_MAY_TAKE, 1 + later.count());
        Some((soonest, soonest + least / 4 + steps.sum::<Duration>()))
    }

    /// When an order is expected as things stand at `now`; `None` once it is there. Where its step is overdue so much that
    /// [`Self::eta`] can't be kept, this counts what is left from now on.
    pub fn estimate(&self, order: &Order, now: Timestamp) -> Option<Estimate> {
        let (soonest, latest) = self.eta(order)?;
        let due_at = order.goes_on_at()?;
        let overdue = (now - due_at).max(TimeDelta::zero());
        let still_possible = soonest + overdue;
        let rest = soonest - due_at;
        let promise_ends = latest - rest;
        if still_possible <= latest {
            return Some(Estimate { from: still_possible, by: latest, promise_ends, missed: None });
        }
        // What is late already may take as long again.
        let slack = (latest - soonest).max(still_possible - latest);
        let by = still_possible + slack;
        Some(Estimate { from: still_possible, by, promise_ends, missed: Some(latest) })
    }

    /// What becomes of an order that people move and nobody has taken until `due_at`: it is cancelled.
    pub fn not_accepted(status: Status, due_at: Timestamp, now: Timestamp) -> Path {
        if status == Status::FIRST && due_at <= now {
            return Path { status: Status::Cancelled, due_at: None, steps: vec![Status::Cancelled] };
        }
        Path { status, due_at: Some(due_at), steps: Vec::new() }
    }

    /// The steps that an order in `status`, due at `due_at`, may take at `now`.
    ///
    /// A step is stamped with the moment it is made, and the next one counts from there, so that
    /// no stamp is earlier than its delay allows; further steps are due at once only where their
    /// delay is zero.
    pub fn path(&self, status: Status, due_at: Timestamp, now: Timestamp) -> Path {
        let mut path = Path { status, due_at: Some(due_at), steps: Vec::new() };
        while let (Some(due), Some(next)) = (path.due_at, path.status.next())
            && due <= now
        {
            path.status = next;
            path.due_at = self.due_after(next, now);
            path.steps.push(next);
        }
        path
    }
}

/// When an order is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Not before.
    pub from: Timestamp,
    /// Not after, as far as can be said.
    pub by: Timestamp,
    /// Without a step until then, what was said can't be kept.
    pub promise_ends: Timestamp,
    /// When it should have been there, if that can't be kept any more.
    pub missed: Option<Timestamp>,
}

impl Order {
    /// When its next step is due, by whomever; `None` at an end.
    pub fn goes_on_at(&self) -> Option<Timestamp> {
        self.expected_at.or(self.due_at).filter(|_| self.status.next().is_some())
    }
}

/// What an order becomes in one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The status after the last step.
    pub status: Status,
    /// When the step after that is due; `None` where none is.
    pub due_at: Option<Timestamp>,
    /// The statuses reached, in order; empty when nothing was due.
    pub steps: Vec<Status>,
}

impl fmt::Display for StageDelays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |delay| humantime::format_duration(delay).to_string().replace(' ', "");
        let texts: Vec<String> = Status::timed().filter_map(|status| self.after(status)).map(text).collect();
        f.write_str(&texts.join(","))
    }
}

/// The text is not a list of delays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be one duration, or one for each of {} with commas between, such as 250ms or {}, each at most 365 days",
    listed(Status::timed()),
    StageDelays::default()
)]
pub struct ParseDelaysError;

impl FromStr for StageDelays {
    type Err = ParseDelaysError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let delays = text.split(',').map(parse_delay).collect::<Result<Vec<_>, _>>()?;
        match delays[..] {
            [all] => Ok(Self::uniform(all)),
            _ if delays.len() == Status::timed().count() => {
                let each = Status::timed().zip(delays.into_iter().map(Some));
                Ok(Self(each.collect()))
            }
            _ => Err(ParseDelaysError),
        }
    }
}

/// Rounds up to whole milliseconds, so that a step is never early.
fn parse_delay(text: &str) -> Result<Duration, ParseDelaysError> {
    let delay = humantime::parse_duration(text.trim()).map_err(|_| ParseDelaysError)?;
    let millis = u64::try_from(delay.as_micros().div_ceil(1000)).map_err(|_| ParseDelaysError)?;
    Some(Duration::from_millis(millis)).filter(|delay| *delay <= MAX_DELAY).ok_or(ParseDelaysError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::order::OrderDetails;

    /// An order that was placed at the epoch.
    fn order_due(due_at: Option<Timestamp>) -> Order {
        Order {
            order_id: "ORD-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().expect("an id"),
            details: OrderDetails::new("Ada", "1 High St", "pizza", "large").expect("valid"),
            status: Status::Placed,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            due_at,
            expected_at: None,
        }
    }

    #[test]
    fn delays_are_written_for_people() {
        for (text, shown) in [
            ("3s,5s,7s,10s", "3s,5s,7s,10s"),
            ("250ms", "250ms,250ms,250ms,250ms"),
            ("0s", "0s,0s,0s,0s"),
            (" 1m , 2m,1h 30m,1500us", "1m,2m,1h30m,2ms"),
        ] {
            assert_eq!(text.parse::<StageDelays>().expect(text).to_string(), shown);
        }
        for bad in ["", "3", "3s,5s", "-1s", "3s,5s,7s,10s,", "10000d", "99999999999y"] {
            assert_eq!(bad.parse::<StageDelays>(), Err(ParseDelaysError), "{bad:?}");
        }
    }

    #[test]
    fn nothing_moves_before_its_time() {
        let at = Timestamp::UNIX_EPOCH;
        let delays = StageDelays::default();
        let due = delays.due_after(Status::Placed, at).expect("not the end");
        assert_eq!(due - at, TimeDelta::seconds(3));
        assert!(delays.path(Status::Placed, due, due - TimeDelta::milliseconds(1)).steps.is_empty());
        let path = delays.path(Status::Placed, due, due);
        assert_eq!(path.steps, [Status::Preparing]);
        assert_eq!(path.due_at, Some(due + TimeDelta::seconds(5)));
    }

    #[test]
    fn an_estimate_tightens_with_every_step_and_ends_with_the_delivery() {
        let delays = StageDelays::default();
        let mut last = None;
        let mut order = order_due(delays.due_after(Status::Placed, Timestamp::UNIX_EPOCH));
        while let Some((soonest, latest)) = delays.eta(&order) {
            assert_eq!(soonest, Timestamp::UNIX_EPOCH + TimeDelta::seconds(25), "all went to plan");
            assert!(last.is_none_or(|last| latest < last), "{}: {latest}", order.status);
            last = Some(latest);
            order.updated_at = order.due_at.expect("not the end");
            order.status = order.status.next().expect("not the end");
            order.due_at = delays.due_after(order.status, order.updated_at);
        }
        assert_eq!(order.status, Status::Delivered);
    }

    #[test]
    fn an_estimate_begins_with_the_due_time_that_was_written() {
        let due = Timestamp::UNIX_EPOCH + TimeDelta::seconds(60);
        let (soonest, latest) =
            StageDelays::uniform(Duration::from_secs(1)).eta(&order_due(Some(due))).expect("not there");
        assert_eq!(soonest, due + TimeDelta::seconds(3));
        assert_eq!(latest, soonest + Duration::from_secs(63) / 4 + STEP_MAY_TAKE * 4);
    }

    /// 3 + 5 + 7 + 10 s, and 25 / 4 + 4 s that may go wrong: promised are 25 to 35.25 s.
    #[test]
    fn an_estimate_that_can_not_be_kept_is_made_anew() {
        let (delays, at) =
            (StageDelays::default(), |millis| Timestamp::UNIX_EPOCH + TimeDelta::milliseconds(millis));
        let order = order_due(Some(at(3_000)));
        for (now, from, by, missed) in [
            (0, 25_000, 35_250, None),
            (3_000, 25_000, 35_250, None),
            // Later than planned, and still in time.
            (10_000, 32_000, 35_250, None),
            (13_250, 35_250, 35_250, None),
            // Not in time any more.
            (13_251, 35_251, 45_501, Some(35_250)),
            // As long again as it is late.
            (63_250, 85_250, 135_250, Some(35_250)),
        ] {
            let estimate = delays.estimate(&order, at(now)).expect("on its way");
            assert_eq!((estimate.from, estimate.by), (at(from), at(by)), "{now}");
            assert_eq!((estimate.missed, estimate.promise_ends), (missed.map(at), at(13_250)), "{now}");
        }
        assert_eq!(delays.estimate(&order_due(None), at(0)), None);
    }

    #[test]
    fn without_delays_all_stages_pass_in_one_write() {
        let at = Timestamp::UNIX_EPOCH;
        let path = StageDelays::uniform(Duration::ZERO).path(Status::Placed, at, at);
        assert!(path.steps.into_iter().eq(Status::Placed.onwards()));
        assert_eq!((path.status, path.due_at), (Status::Delivered, None));
    }

    proptest! {
        #[test]
        fn a_step_is_never_early_and_stamps_never_go_back(
            delays in prop::collection::vec(0_u64..50, Status::timed().count()),
            looks in prop::collection::vec(0_i64..100, 1..60),
        ) {
            let delays = delays.into_iter().map(|millis| Some(Duration::from_millis(millis)));
            let delays = StageDelays(Status::timed().zip(delays).collect());
            let mut now = Timestamp::UNIX_EPOCH;
            let (mut status, mut entered) = (Status::Placed, now);
            let mut due_at = delays.due_after(status, now);
            for wait in looks {
                now += TimeDelta::milliseconds(wait);
                let Some(due) = due_at else { break };
                let path = delays.path(status, due, now);
                for step in &path.steps {
                    prop_assert!(status.may_become(*step));
                    let delay = delays.after(status).expect("a timer made the step");
                    prop_assert!(now - entered >= TimeDelta::from_std(delay).expect("small"));
                    (status, entered) = (*step, now);
                }
                prop_assert_eq!(path.status, status);
                due_at = path.due_at;
            }
        }
    }
}
