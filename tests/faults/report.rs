//! What a row found, and the table.

use std::{fmt, time::Duration};

/// The result of one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) orders: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) early: usize,
    pub(crate) duplicates: usize,
    /// Time to recover, in seconds, where the row measures one.
    pub(crate) recovery: Option<f64>,
    /// What did not reach its figure.
    pub(crate) missed: Vec<String>,
    /// What else is worth knowing.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// Writes a time down and whether it is within its limit.
    pub(crate) fn recovery(&mut self, what: &str, took: Duration, limit: Duration) {
        self.recovery = Some(self.recovery.unwrap_or_default().max(took.as_secs_f64()));
        self.at_most(what, took, limit);
    }

    /// A time that must stay within a limit.
    pub(crate) fn at_most(&mut self, what: &str, took: Duration, limit: Duration) {
        let (took, limit) = (took.as_secs_f64(), limit.as_secs_f64());
        self.notes.push(format!("{what} {took:.2} s"));
        if took > limit {
            self.missed.push(format!("{what} took {took:.2} s, allowed are {limit} s"));
        }
    }

    /// Something that must hold.
    pub(crate) fn expect(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.missed.push(otherwise.into());
        }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Whether a promise was broken, whatever the figures.
    pub(crate) fn broken(&self) -> bool {
        self.lost + self.doubled + self.early > 0
    }
}

/// How a row ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Done(Outcome),
    /// Not run, with the reason.
    Left(String),
    /// Could not be run to its end.
    Failed(String),
}

/// A line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) end: End,
}

impl Row {
    /// Whether the whole run has to end with an error.
    pub(crate) fn failed(&self) -> bool {
        match &self.end {
            End::Done(outcome) => outcome.broken() || !outcome.missed.is_empty(),
            End::Left(_) => false,
            End::Failed(_) => true,
        }
    }

    /// Whether every order is whole and only time or number are not what they should be.
    pub(crate) fn only_missed_its_figure(&self) -> bool {
        matches!(&self.end, End::Done(outcome) if !outcome.broken() && !outcome.missed.is_empty())
    }

    fn verdict(&self) -> &'static str {
        match &self.end {
            End::Done(_) if !self.failed() => "ok",
            End::Left(_) => "left out",
            End::Done(_) | End::Failed(_) => "NOT MET",
        }
    }

    fn cells(&self) -> [String; 9] {
        let counts = match &self.end {
            End::Done(Outcome { orders, lost, doubled, early, duplicates, recovery, .. }) => {
                let recovery = recovery.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"));
                [orders, lost, doubled, early, duplicates]
                    .map(usize::to_string)
                    .into_iter()
                    .chain([recovery])
                    .collect()
            }
            _ => vec!["-".to_owned(); 6],
        };
        let mut cells = vec![self.id.to_owned(), self.fault.to_owned()];
        cells.extend(counts);
        cells.push(self.figure.to_owned());
        std::array::from_fn(|n| cells.get(n).cloned().unwrap_or_default())
    }

    /// What the table does not hold.
    pub(crate) fn remarks(&self) -> Vec<String> {
        match &self.end {
            End::Done(outcome) => {
                let missed = outcome.missed.iter().map(|missed| format!("NOT MET: {missed}"));
                missed.chain((!outcome.notes.is_empty()).then(|| outcome.notes.join("; "))).collect()
            }
            End::Left(reason) => vec![reason.clone()],
            End::Failed(reason) => vec![format!("NOT MET: {reason}")],
        }
    }
}

const HEAD: [&str; 10] = [
    "row",
    "fault",
    "orders",
    "lost",
    "doubled",
    "early",
    "topic duplicates",
    "recovery s",
    "to reach",
    "verdict",
];

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [id, fault, orders, lost, doubled, early, duplicates, recovery, figure] = self.cells();
        write!(f, "{id:<4} {fault:<34} orders {orders:>5}  lost {lost}  doubled {doubled}  early {early}  ")?;
        write!(f, "duplicates {duplicates:>3}  recovery {recovery:>6} s  ({figure})  {}", self.verdict())
    }
}

/// The whole table as markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut table = line(&HEAD.map(str::to_owned)) + &line(&vec!["---".to_owned(); HEAD.len()]);
    for row in rows {
        let mut cells = row.cells().to_vec();
        cells.push(row.verdict().to_owned());
        table += &line(&cells);
    }
    for row in rows {
        for remark in row.remarks() {
            table.extend(["\n- ", row.id, ": ", &remark]);
        }
    }
    table
}

/// The value at a quantile of a sorted list.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into a list that fits in memory"
)]
pub(crate) fn quantile(sorted: &[Duration], quantile: f64) -> Option<Duration> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * quantile).ceil() as usize).copied()
}
