//! How late steps were made, and when.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{check::Line, report::quantile};

/// Steps as they stood at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    /// That moment.
    at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    due: DateTime<Utc>,
    /// None if it was due and is not made.
    made: Option<DateTime<Utc>>,
}

impl Steps {
    /// The steps of these orders, each due so many milliseconds after the one before.
    pub(crate) fn of<'a>(
        lines: impl IntoIterator<Item = &'a Line>,
        delays_ms: [u64; 4],
        at: DateTime<Utc>,
    ) -> Self {
        let delays =
            delays_ms.map(|millis| TimeDelta::from_std(Duration::from_millis(millis)).unwrap_or_default());
        let of_one = |line: &Line| -> Vec<Step> {
            // The first stamp is that of CREATED, which no step leads away from.
            let made = line.stamps.iter().skip(2).copied().map(Some).chain([None]);
            let steps = line.stamps.iter().skip(1).zip(made).zip(delays);
            steps.map(|((from, made), delay)| Step { due: *from + delay, made }).collect()
        };
        let mut steps: Vec<Step> = lines.into_iter().flat_map(of_one).collect();
        steps.retain(|step| step.made.is_some() || step.due < at);
        Self { steps, at }
    }

    /// The lateness of the steps that were due within a time, at this quantile; one that is not made is as late
    /// as it was when we looked.
    pub(crate) fn late(&self, from: DateTime<Utc>, to: DateTime<Utc>, quantile_at: f64) -> Duration {
        let due = self.steps.iter().filter(|step| (from..to).contains(&step.due));
        let late = due.map(|step| (step.made.unwrap_or(self.at) - step.due).to_std().unwrap_or_default());
        let mut late: Vec<Duration> = late.collect();
        late.sort_unstable();
        quantile(&late, quantile_at).unwrap_or_default()
    }

    fn made_within(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        self.steps.iter().filter_map(|step| step.made).filter(move |made| (from..to).contains(made))
    }

    /// How many steps were made within a time.
    pub(crate) fn made(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> usize {
        self.made_within(from, to).count()
    }

    /// When the last of them was made, or when we looked if one is not made.
    pub(crate) fn last(&self) -> DateTime<Utc> {
        self.steps.iter().map(|step| step.made.unwrap_or(self.at)).max().unwrap_or(self.at)
    }

    /// The longest time within which no step was made.
    pub(crate) fn standstill(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
        let mut moments: Vec<DateTime<Utc>> = self.made_within(from, to).chain([from, to]).collect();
        moments.sort_unstable();
        moments.windows(2).filter_map(|pair| (pair[1] - pair[0]).to_std().ok()).max().unwrap_or_default()
    }
}

/// One range of time after the other, from the first moment to the last.
pub(crate) fn ranges(
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    width: Duration,
) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
    let width = TimeDelta::from_std(width).unwrap_or_default();
    let starts = std::iter::successors(Some(from), |start| Some(*start + width));
    starts.take_while(|start| *start < to).map(|start| (start, to.min(start + width))).collect()
}
