//! The rows: which fault, what to reach, and the play that shows it.

mod abuse;
mod bad_row;
mod broker;
mod clocks;
mod crowd;
mod database;
mod failover;
mod feed;
mod lost_disk;
mod messages;
mod network;
mod partitions;
mod process;
mod rehearsal;
mod reports;
mod scale;
mod schema;
mod settings;
mod slow_writes;
mod soak;
mod streams;

use std::pin::Pin;

use anyhow::Result;

use crate::{report::Outcome, rig::Rig};

type Run = for<'a> fn(&'a mut Rig) -> Pin<Box<dyn Future<Output = Result<Outcome>> + 'a>>;

/// A row before it is run.
pub(crate) struct Spec {
    pub(crate) id: &'static str,
    pub(crate) fault: &'static str,
    /// The figure to reach.
    pub(crate) figure: &'static str,
    /// Whether it runs on every change.
    pub(crate) ci: bool,
    pub(crate) run: Run,
}

/// A row can't be run here.
#[derive(Debug, thiserror::Error)]
#[error("left out: {0}")]
pub(crate) struct LeftOut(pub(crate) String);

macro_rules! row {
    ($id:literal, $fault:literal, $figure:literal, ci, $run:path) => {
        Spec { id: $id, fault: $fault, figure: $figure, ci: true, run: |rig| Box::pin($run(rig)) }
    };
    ($id:literal, $fault:literal, $figure:literal, $run:path) => {
        Spec { id: $id, fault: $fault, figure: $figure, ci: false, run: |rig| Box::pin($run(rig)) }
    };
}

/// All rows.
pub(crate) const ROWS: &[Spec] = &[
    row!("F0", "none", "p99 lateness <= 0.25 s, 0 duplicates", ci, process::calm),
    row!("F1", "kill -9 of the service", "first step <= 2 s", ci, process::killed),
    row!("F2", "SIGTERM under load", "exit 0 <= 10 s, none cut", ci, process::terminated),
    row!("F3", "PostgreSQL restarted", "step and 201 <= 2 s, 503 <= 2 s", ci, database::restarted),
    row!("F4", "PostgreSQL killed", "step and 201 <= 2 s, 503 <= 2 s", database::killed),
    row!("F5", "all sessions terminated", "<= 20 % fail, 0 after 1 s", ci, database::terminated),
    row!("F6", "failover to a standby", "step and 201 <= 3 s", failover::promoted),
    row!("F7", "reply to COMMIT lost", "same id, 0 doubled", ci, network::replies_lost),
    row!("F8", "PostgreSQL frozen, then unreachable", "answers <= 3 s, then <= 5 s", network::black_hole),
    row!("F9", "slow network, then a table lock", "sheds, lag 0 <= 10 s", network::slow),
    row!("F10", "connections run out, 200 clients", "503 <= 2 s, lateness <= 2 s", database::starved),
    row!("F11", "disk full", "on again <= 5 s", database::disk_full),
    row!("F12", "Kafka down", "201s, p99 x 1.5, out <= 10 s", ci, broker::down),
    row!("F13", "Kafka frozen", "duplicates <= in flight, out <= 10 s", broker::frozen),
    row!("F14", "Kafka killed while producing", "duplicates <= 1 %, out <= 10 s", broker::killed),
    row!("F15", "rebalance storm", "lag 0 <= 15 s", broker::rebalances),
    row!("F16", "every message again", "tables equal", ci, messages::replayed),
    row!("F17", "messages out of order", "never back", ci, messages::shuffled),
    row!("F18", "malformed messages", "good in, bad dead letters", ci, messages::malformed),
    row!("F19", "5 MB message, tombstone", "reference only, counted", messages::oversized),
    row!("F20", "clock steps", "DB clock decides, late <= 0.25 s", clocks::stepped),
    row!("F21", "replicas racing, killed in turn", "takeover <= 5 s", ci, process::racing),
    row!("F22", "zombie replica", "0 doubled", process::zombie),
    row!("F23", "migration race, old schema", "all come up, 0 errors", schema::race),
    row!("F24", "event streams, restarts", "0 missed, 0 repeated", streams::followed),
    row!("F25", "wrong broker, topic missing", "201s, one line per 30 s", settings::wrong_broker),
    row!("F26", "HTTP abuse", "honest p99 x 2, wrong ones 4xx", abuse::abused),
    row!("F27", "none, 3,000 event streams", "p99 <= 0.3 s, 0 missed, 0 repeated", ci, crowd::crowd),
    row!("F28", "a million orders wait", "late <= 0.1 s, <= 20 rows a step", ci, scale::orders_wait),
    row!("F29", "a snapshot open for 4 minutes", "late <= 0.5 s throughout", scale::snapshot),
    row!("F30", "1 and 20 orders that can't be moved", "others late <= 0.25 s, named", ci, bad_row::stuck),
    row!("F31", "2 ms an event, 3,000 orders due", ">= 300 steps/s, 503 <= 2 s", slow_writes::slow_rows),
    row!("F32", "/readyz asked, 2 million wait", "p99 <= 20 ms, never 503", ci, scale::readiness_asked),
    row!("F33", "a key held by another session", "others 201 <= 0.5 s, <= 2 s", slow_writes::held_key),
    row!("F34", "one of two brokers away", "live ones <= 1 s, it is named", ci, partitions::broker_away),
    row!(
        "F35",
        "Kafka back with an empty disk",
        "out <= 10 s, republish brings all",
        ci,
        lost_disk::empty_disk
    ),
    row!("F36", "late commits, a kill, a freeze", "feed once, topic complete, in order", ci, feed::followed),
    row!("F37", "a transaction open elsewhere", "feed waits, pages <= 0.3 s, named", ci, feed::held_back),
    row!("F38", "the topic's writer lost, Kafka away", "takeover <= 5 s, none skipped", ci, feed::taken_over),
    row!(
        "F39",
        "32 report the same order, two replicas",
        "a row a position, each 201 stored",
        ci,
        reports::racing
    ),
    row!("F40", "kill -9 while reports come", "no 201 lost, none done twice", ci, reports::killed),
    row!("F41", "reports against timers", "one step a status, each 201 stored", ci, reports::against_timers),
    row!("F42", "database, then broker away", "503 <= 2 s, nothing half done", ci, reports::without_others),
    row!("soak", "a random mix, 30 minutes", "0 lost, 0 doubled, 0 early", soak::soak),
    row!("R", "rehearsal", "0 lost, 0 doubled, 0 early", rehearsal::rehearsal),
];
