//! What stands on `/metrics`.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::*;
use crate::order::{
    Backlog, LateSteps, PerStatus, Status, Timestamp,
    dead_letter::{DeadLetterBacklog, reasons},
};

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().expect("renders")).expect("utf-8")
}

#[test]
fn known_series_stand_at_zero_from_the_start() {
    let text = text(&Metrics::new());
    for line in [
        "orders_produced_total 0",
        "http_event_streams 0",
        "orders_consumed_total 0",
        "db_errors_total 0",
        "db_write_latency_seconds_bucket{le=\"+Inf\"} 0",
        "outbox_oldest_timestamp_seconds NaN",
        "outbox_pending NaN",
        "pipeline_overdue_seconds NaN",
        "orders_in_progress{status=\"PLACED\"} NaN",
        "consumer_lag NaN",
        "consumer_up NaN",
        "keys_up NaN",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for (name, sets) in [
        ("status_transitions_total{", 22),
        ("pipeline_step_duration_seconds_count{", 5),
        ("reports_total{", 36),
        ("orders_cancelled_total{", 11),
        ("orders_in_progress{", 4),
        ("orders_late{", 4),
        ("consumer_messages_total{", 4),
        ("dead_letters_total{", RejectReason::ALL.len()),
        ("dead_letters_waiting{", reasons().count()),
        ("build_info{", 1),
    ] {
        assert_eq!(text.lines().filter(|line| line.starts_with(name)).count(), sets, "{name}");
    }
}

#[test]
fn what_was_not_read_is_not_zero() {
    let metrics = Metrics::new();
    assert!(text(&metrics).contains("dead_letters_waiting{reason=\"not_json\"} NaN\n"));
    let by_reason = BTreeMap::from([("no_key", 2)]);
    metrics.dead_letters(Some(&DeadLetterBacklog {
        by_reason,
        more: false,
        newest: Vec::new(),
        at: Instant::now(),
    }));
    let text = text(&metrics);
    assert!(text.contains("dead_letters_waiting{reason=\"no_key\"} 2\n"), "{text}");
    assert!(text.contains("dead_letters_waiting{reason=\"not_json\"} 0\n"), "{text}");
    metrics.dead_letters(None);
    assert!(self::text(&metrics).contains("dead_letters_waiting{reason=\"no_key\"} NaN\n"));
}

#[test]
fn a_drained_backlog_goes_on_reporting_zero() {
    let metrics = Metrics::new();
    metrics.backlog(Some(&Backlog { unsent: 2, ..Backlog::default() }));
    metrics.in_progress(Some(&PerStatus::from_iter([(Status::Placed, 3), (Status::Delivered, 9)])));
    assert!(text(&metrics).contains("orders_in_progress{status=\"PLACED\"} 3\n"));
    metrics.backlog(Some(&Backlog::default()));
    metrics.in_progress(Some(&PerStatus::default()));
    metrics.orders_late(Some(&PerStatus::from_iter([(Status::Cooking, 4)])));
    let drained = text(&metrics);
    assert!(drained.contains("orders_in_progress{status=\"PLACED\"} 0\n"));
    assert!(drained.contains("outbox_pending 0\n"));
    assert!(drained.contains("orders_late{status=\"COOKING\"} 4\n"));
    metrics.overdue(Some(&LateSteps::default()));
    assert!(text(&metrics).contains("pipeline_overdue_seconds 0\n"));
    metrics.backlog(None);
    metrics.overdue(None);
    metrics.in_progress(None);
    metrics.orders_late(None);
    let unknown = text(&metrics);
    for gauge in [
        "orders_late{status=\"COOKING\"}",
        "orders_in_progress{status=\"COOKING\"}",
        "outbox_pending",
        "pipeline_overdue_seconds",
    ] {
        assert!(unknown.contains(&format!("{gauge} NaN\n")), "{gauge}");
    }
}

/// What lies further back than could be read may be later than what was found, and is not said to be nothing.
#[test]
fn what_was_read_in_part_is_told_as_far_as_it_is_known() {
    let (metrics, since) = (Metrics::new(), Some(Timestamp::UNIX_EPOCH));
    metrics.overdue(Some(&LateSteps { since, ..LateSteps::default() }));
    metrics.backlog(Some(&Backlog { since, ..Backlog::default() }));
    let nothing = text(&metrics);
    assert!(nothing.contains("pipeline_overdue_seconds NaN\n"), "{nothing}");
    assert!(nothing.contains("outbox_oldest_timestamp_seconds NaN\n"), "{nothing}");
    metrics.overdue(Some(&LateSteps { most: Duration::from_secs(7), since, ..LateSteps::default() }));
    assert!(text(&metrics).contains("pipeline_overdue_seconds 7\n"));
}

#[test]
fn partitions_have_a_series_each_and_those_that_are_gone_have_none() {
    let metrics = Metrics::new();
    let seen = || text(&metrics).lines().filter(|line| line.starts_with("partition_unavailable{")).count();
    for count in [0, 6, 8, 2, 1_000] {
        metrics.partitions(count);
        assert_eq!(seen(), usize::try_from(count).expect("small"));
    }
    metrics.partition_unavailable(1, true);
    metrics.partitions(10_000);
    metrics.partition_unavailable(9_999, true);
    assert_eq!(seen(), 1_000, "whatever the topic has");
    assert!(text(&metrics).contains("partition_unavailable{partition=\"1\"} 1\n"));
}

/// A figure that nobody has told for long says nothing of now, and no alert may trust it.
#[tokio::test(start_paused = true)]
async fn what_is_old_is_not_known() {
    let metrics = Metrics::new();
    let tell = || {
        metrics.lag(Some(7));
        metrics.consumer_up(Some(true));
        metrics.keys_up(Some(true));
        metrics.backlog(Some(&Backlog { unsent: 2, ..Backlog::default() }));
        metrics.in_progress(Some(&PerStatus::from_iter([(Status::Placed, 3), (Status::Delivered, 9)])));
        metrics.partitions(2);
        metrics.partition_unavailable(1, true);
        let by_reason = BTreeMap::from([("no_key", 2)]);
        metrics.dead_letters(Some(&DeadLetterBacklog {
            by_reason,
            more: false,
            newest: Vec::new(),
            at: Instant::now(),
        }));
    };
    let fresh = [
        "consumer_lag 7",
        "consumer_up 1",
        "keys_up 1",
        "outbox_pending 2",
        "orders_in_progress{status=\"PLACED\"} 3",
        "partition_unavailable{partition=\"1\"} 1",
        "dead_letters_waiting{reason=\"no_key\"} 2",
    ];
    let old = [
        "consumer_lag NaN",
        "consumer_up 0",
        "keys_up 0",
        "outbox_pending NaN",
        "orders_in_progress{status=\"PLACED\"} NaN",
        "partition_unavailable{partition=\"1\"} NaN",
        "dead_letters_waiting{reason=\"no_key\"} NaN",
    ];
    let holds = |lines: [&str; 7]| {
        let text = text(&metrics);
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    };
    tell();
    tokio::time::advance(Duration::from_secs(10)).await;
    holds(fresh);
    tokio::time::advance(Duration::from_mins(1)).await;
    holds(old);
    tell();
    holds(fresh);
}
