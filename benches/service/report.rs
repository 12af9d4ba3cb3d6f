//! What was measured, for people and for programs.

use std::fmt::Write as _;

use order_tracker::client::load::Latency;
use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) stack: String,
    pub(crate) processors: usize,
    pub(crate) seconds_per_row: f64,
    pub(crate) figures: Vec<Figure>,
    pub(crate) rows: Vec<Row>,
}

/// One number.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// What kind of row it is, for plots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "at")]
pub(crate) enum Kind {
    /// The next request follows the last answer.
    Closed,
    /// Requests come at this rate.
    Open(f64),
    /// Measured with so many orders stored.
    Stored(u64),
    /// What the loops do.
    Loops,
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) kind: Kind,
    /// What is counted, a second.
    pub(crate) rate: f64,
    pub(crate) latency_ms: Option<Latency>,
    /// Seconds of processor time for a thousand, of the service and of PostgreSQL.
    pub(crate) service_cpu: Option<f64>,
    pub(crate) database_cpu: Option<f64>,
    pub(crate) failed: u64,
}

impl Report {
    /// Requests that were not answered well.
    pub(crate) fn failed(&self) -> u64 {
        self.rows.iter().map(|row| row.failed).sum()
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{}; {} processors, shared with the load; {} s a row\n\n{:34}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}{:>10}{:>8}\n",
            self.stack,
            self.processors,
            self.seconds_per_row,
            "",
            "a second",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "CPU s/1000",
            "of which",
            "failed"
        );
        for row in &self.rows {
            let _ = write!(text, "{:34}{:>10.0}", row.name, row.rate);
            let parts: [fn(&Latency) -> f64; 4] = [|at| at.p50, |at| at.p90, |at| at.p99, |at| at.p999];
            for part in parts {
                let _ = write!(text, "{:>10}", or_dash(row.latency_ms.as_ref().map(part), 2));
            }
            let whole = row.service_cpu.map(|service| service + row.database_cpu.unwrap_or_default());
            let _ = write!(text, "{:>12}{:>10}", or_dash(whole, 3), or_dash(row.database_cpu, 3));
            let _ = writeln!(text, "{:>8}", row.failed);
        }
        text.push('\n');
        for Figure { name, value, unit } in &self.figures {
            let _ = writeln!(text, "{name:34}{value:>10.1} {unit}");
        }
        text.push_str(
            "\n\"CPU s/1000\" is service and database on this machine; \"of which\" the database's.\n",
        );
        text
    }
}

fn or_dash(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
