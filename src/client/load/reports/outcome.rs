//! What became of reports, counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client::{
    Answer, StatusCode,
    load::{Latency, Summary},
};

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It happened, at this position.
    Applied(Option<u32>),
    /// It had happened before, under the same id.
    Replayed,
    /// It says nothing new.
    Ignored,
    /// It contradicts what is there, by this code.
    Refused(String),
}

impl Outcome {
    /// What an answer says; an error is why it says nothing of that.
    pub(super) fn of(answer: &Answer) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct ReportAnswer {
            outcome: String,
            events: Vec<Seq>,
        }
        #[derive(Deserialize)]
        struct Seq {
            seq: u32,
        }
        #[derive(Deserialize)]
        struct Problem {
            code: String,
        }
        let strange = || format!("{}: not the answer of an order-tracker", answer.status);
        if answer.status == StatusCode::CONFLICT {
            let problem: Problem = serde_json::from_slice(&answer.body).map_err(|_| strange())?;
            return Ok(Self::Refused(problem.code));
        }
        if !answer.is_good() {
            return Err(answer.status.to_string());
        }
        let told: ReportAnswer = serde_json::from_slice(&answer.body).map_err(|_| strange())?;
        match told.outcome.as_str() {
            "ignored" => Ok(Self::Ignored),
            "applied" if answer.headers.contains_key("idempotency-replayed") => Ok(Self::Replayed),
            "applied" => Ok(Self::Applied(told.events.last().map(|event| event.seq))),
            _ => Err(strange()),
        }
    }
}

/// How many of each.
#[derive(Debug, Default)]
pub(super) struct OutcomeCounts {
    applied: u64,
    replayed: u64,
    ignored: u64,
    refused: BTreeMap<String, u64>,
    /// Orders that nobody worked on.
    pub(super) left_out: u64,
}

impl OutcomeCounts {
    pub(super) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Applied(_) => self.applied += 1,
            Outcome::Replayed => self.replayed += 1,
            Outcome::Ignored => self.ignored += 1,
            Outcome::Refused(code) => *self.refused.entry(code.clone()).or_default() += 1,
        }
    }
}

/// What became of all reports.
#[derive(Debug, Clone, Serialize)]
pub struct ReportStats {
    /// What the lives were made up from.
    pub seed: u64,
    /// Orders that were worked on.
    pub orders: u64,
    /// Orders that were not, since too many were at once.
    pub left_out: u64,
    /// Reports.
    pub reported: u64,
    /// Those that happened.
    pub applied: u64,
    /// Those that had happened before, under the same id.
    pub replayed: u64,
    /// Those that said nothing new.
    pub ignored: u64,
    /// Those that contradicted what was there.
    pub refused: u64,
    /// By their codes.
    pub refusals: BTreeMap<String, u64>,
    /// Those of which nobody said what became.
    pub failed: u64,
    /// Why, and how often.
    pub errors: BTreeMap<String, u64>,
    /// From sending one to its answer, in milliseconds.
    pub latency_ms: Latency,
}

impl ReportStats {
    pub(super) fn new(orders: u64, seed: u64, counts: &OutcomeCounts, summary: Summary) -> Self {
        let Summary { good, failed, latency_ms, errors, .. } = summary;
        let OutcomeCounts { applied, replayed, ignored, refused, left_out } = counts;
        Self {
            seed,
            orders,
            left_out: *left_out,
            reported: good + failed,
            applied: *applied,
            replayed: *replayed,
            ignored: *ignored,
            refused: refused.values().sum(),
            refusals: refused.clone(),
            failed,
            errors,
            latency_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::HeaderMap;

    #[test]
    fn answers_are_understood() {
        let of = |status: u16, replayed: bool, body: &str| {
            let mut headers = HeaderMap::new();
            if replayed {
                headers.insert("idempotency-replayed", "true".parse().expect("a value"));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            Outcome::of(&Answer { status, headers, body: body.to_owned().into() })
        };
        let applied = r#"{"outcome":"applied","events":[{"seq":3,"event":"COOKING"},{"seq":4}],"order":{}}"#;
        assert_eq!(of(201, false, applied), Ok(Outcome::Applied(Some(4))));
        assert_eq!(of(201, true, applied), Ok(Outcome::Replayed));
        assert_eq!(of(200, false, r#"{"outcome":"ignored","why":"same","events":[]}"#), Ok(Outcome::Ignored));
        let refused = Outcome::Refused("order-finished".to_owned());
        assert_eq!(of(409, false, r#"{"code":"order-finished","allowed":[]}"#), Ok(refused));
        for (status, body) in [(200, "hi"), (409, "hi"), (200, r#"{"outcome":"burnt","events":[]}"#)] {
            assert!(of(status, false, body).is_err_and(|why| why.contains("not the answer")), "{body}");
        }
        assert_eq!(of(404, false, applied), Err("404 Not Found".to_owned()));
    }
}
