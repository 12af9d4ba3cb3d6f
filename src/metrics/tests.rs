//! What stands on `/metrics`.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::*;

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
        "outbox_oldest_timestamp_seconds 0",
        "pipeline_overdue_seconds 0",
        "consumer_lag 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for (name, sets) in [
        ("status_transitions_total{", 4),
        ("pipeline_step_duration_seconds_count{", 4),
        ("orders_in_progress{", 4),
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
    metrics.letters(&Waiting { by_reason, more: false, newest: Vec::new(), at: Instant::now() });
    let text = text(&metrics);
    assert!(text.contains("dead_letters_waiting{reason=\"no_key\"} 2\n"), "{text}");
    assert!(text.contains("dead_letters_waiting{reason=\"not_json\"} 0\n"), "{text}");
}

#[test]
fn a_drained_backlog_goes_on_reporting_zero() {
    let metrics = Metrics::new();
    metrics.backlog(Some(&Backlog { unsent: 2, ..Backlog::default() }));
    metrics.in_progress(Some(&[3, 0, 0, 0, 9]));
    assert!(text(&metrics).contains("orders_in_progress{status=\"PLACED\"} 3\n"));
    metrics.backlog(Some(&Backlog::default()));
    metrics.in_progress(Some(&[0; 5]));
    let drained = text(&metrics);
    assert!(drained.contains("orders_in_progress{status=\"PLACED\"} 0\n"));
    assert!(drained.contains("outbox_pending 0\n"));
    metrics.backlog(None);
    metrics.in_progress(None);
    let unknown = text(&metrics);
    for gauge in ["orders_in_progress{status=\"COOKING\"}", "outbox_pending", "pipeline_overdue_seconds"] {
        assert!(unknown.contains(&format!("{gauge} NaN\n")), "{gauge}");
    }
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
