//! Why one order stands where it stands.

use std::time::Duration;

use chrono::SecondsFormat;

use super::{
    Cause, CauseCode, Explanation, Figures, PartsHealth, first_line,
    parts::{Scope, concerning, held, late, unpublished_causes},
};
use crate::{
    order::{AuditedOrder, Status, Timestamp, Violation, promises::OVERDUE_AFTER},
    telemetry::health::Health,
};

/// An order on its way to the topic takes some 100 ms; what takes longer is worth a word.
pub const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Why this order stands where it stands at `now`, by the database's clock.
pub fn explain(
    order: &AuditedOrder,
    now: Timestamp,
    figures: Option<&Figures<'_>>,
    parts: &PartsHealth,
) -> Explanation {
    let mut causes = broken(order, now);
    causes.extend(steps(order, now, figures, parts));
    if order.unsent && (now - order.created_at).to_std().is_ok_and(|age| age >= ON_ITS_WAY) {
        let why = unpublished_causes(parts, Scope::Order(order.order_id));
        causes.extend(
            why.into_iter()
                .map(|cause| Cause { what: format!("it waits in the outbox: {}", cause.what), ..cause }),
        );
    }
    Explanation {
        status: order.status,
        since: order.updated_at,
        waits_for: order.status.next(),
        causes: causes.into_iter().map(Into::into).collect(),
        allowed: Vec::new(),
    }
}

/// What of its row and timeline can't have happened. That a step is late is told with the reason.
fn broken(order: &AuditedOrder, now: Timestamp) -> Vec<Cause> {
    let waits_for_nothing = !order.status.is_final() && order.due_at.is_none() && order.expected_at.is_none();
    let violations = order.violations(now).into_iter();
    let told = violations.filter(|violation| *violation != Violation::Overdue).map(|violation| {
        Cause::new(
            CauseCode::TimelineBroken,
            format!(
                "what is stored of it can't have happened, since the rule \u{201c}{}\u{201d} is broken",
                violation.rule()
            ),
            "Look at its rows by hand; `order-tracker verify` finds all such orders.",
        )
    });
    let nothing = waits_for_nothing.then(|| {
        Cause::new(
            CauseCode::TimelineBroken,
            "its row says that it waits for no step, so none will be made",
            "Give its row in orders a due_at by hand; `order-tracker verify` finds all such orders.",
        )
    });
    told.chain(nothing).collect()
}

/// Why its next step has not been made.
fn steps(
    order: &AuditedOrder,
    now: Timestamp,
    figures: Option<&Figures<'_>>,
    parts: &PartsHealth,
) -> Vec<Cause> {
    let Some(next) = order.status.next() else {
        return vec![Cause::new(
            CauseCode::Finished,
            format!("it is {}, and nothing follows", order.status),
            "Nothing is to be done.",
        )];
    };
    let by_people = order.expected_at.map(|expected_at| awaited(next, expected_at, order.due_at, now));
    let Some(due_at) = order.due_at else { return by_people.into_iter().collect() };
    // What the service does by itself with an order that people move.
    let next = if by_people.is_some() { Status::Cancelled } else { next };
    if let Some(awaited) = by_people.filter(|_| (now - due_at).to_std().unwrap_or_default() <= OVERDUE_AFTER)
    {
        return vec![awaited];
    }
    let at = due_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let late_by = match (now - due_at).to_std() {
        Err(_) => {
            let what = format!("its stage is not over yet: {next} is due at {at}");
            return vec![Cause::new(CauseCode::StageNotOver, what, "Nothing is to be done.")];
        }
        Ok(late) if late <= OVERDUE_AFTER => {
            let what = format!("{next} has been due since {at} and is being made");
            return vec![Cause::new(CauseCode::StepDue, what, "Nothing is to be done.")];
        }
        Ok(late) => late,
    };
    let why = held_itself(order, parts).unwrap_or_else(|| late(figures, parts));
    let say = |cause: Cause| Cause {
        what: format!("{} ({next} was due at {at}, {} s ago)", first_line(&cause.what), late_by.as_secs()),
        ..cause
    };
    why.into_iter().map(say).collect()
}

/// Whom an order waits for that people move.
fn awaited(next: Status, expected_at: Timestamp, cancelled_at: Option<Timestamp>, now: Timestamp) -> Cause {
    let shown = |at: Timestamp| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let unless =
        cancelled_at.map(|at| format!("; at {} it is cancelled unless somebody takes it", shown(at)));
    let (unless, at) = (unless.unwrap_or_default(), shown(expected_at));
    match (now - expected_at).to_std() {
        Ok(late) if !late.is_zero() => Cause::new(
            CauseCode::ReportLate,
            format!(
                "people move it, and nobody has reported {next}, expected at {at}, {} s ago{unless}",
                late.as_secs()
            ),
            "Whoever does it reports it (`order-tracker order report`), or how much longer it takes (DELAYED); what nobody will \
             bring is cancelled (`order-tracker order cancel`).",
        ),
        _ => Cause::new(
            CauseCode::ReportAwaited,
            format!("people move it: {next} is expected at {at}{unless}"),
            "Nothing is to be done.",
        ),
    }
}

/// What the scheduler says of this order, or of orders that it does not name; `None` if it holds no order.
fn held_itself(order: &AuditedOrder, parts: &PartsHealth) -> Option<Vec<Cause>> {
    let Health::Degraded(issues) = &parts.scheduler else { return None };
    let own = concerning(&issues.0, Scope::Order(order.order_id));
    let causes = own.iter().map(|issue| match issue.order_id {
        Some(_) => held(&issue.text),
        None => held(format!("some orders can't be moved, and this may be one of them ({issues})")),
    });
    let causes: Vec<Cause> = causes.collect();
    // All that are held are named, and this is none of them.
    let others = || late(None, &PartsHealth { scheduler: Health::Up, ..parts.clone() });
    Some(if causes.is_empty() { others() } else { causes })
}
