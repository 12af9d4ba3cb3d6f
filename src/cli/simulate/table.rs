//! What `simulate` tells people.

use std::fmt::Write as _;

use super::Report;
use crate::{
    cli::progress::thousands,
    client::load::{Latency, ReportStats, Summary},
};

/// How far the placing is.
pub(super) fn news(summary: &Summary) -> String {
    let Summary { good, failed, rate, latency_ms, .. } = summary;
    let failed = if *failed == 0 { String::new() } else { format!(", {} not", thousands(*failed)) };
    format!("{} orders placed{failed}, {rate:.0} a second, p99 {:.2} ms", thousands(*good), latency_ms.p99)
}

/// All that was measured.
pub(super) fn table(report: &Report) -> String {
    let Report { placing, asked_rate, concurrency, reports, delivery, .. } = report;
    let asked = match asked_rate {
        Some(rate) => format!("asked for: {rate} a second"),
        None => format!("{concurrency} at once, as fast as they are answered"),
    };
    let mut text = format!(
        "{} orders placed in {:.2} s, {:.1} a second ({asked})\n",
        thousands(placing.good),
        placing.seconds,
        placing.rate
    );
    reasons(&mut text, placing.failed, "not placed", &placing.errors);
    if placing.good > 0 {
        let from = if asked_rate.is_some() { "the moment it was due" } else { "sending it" };
        let _ = writeln!(text, "\nfrom {from} to the answer, in milliseconds:");
        distribution(&mut text, &placing.latency_ms);
    }
    if let Some(reports) = reports {
        reported(&mut text, reports);
    }
    if let Some(lives) = delivery {
        let _ = writeln!(
            text,
            "\n{} orders delivered within {:.2} s of the first one's creation, {:.1} a second",
            thousands(lives.delivered),
            lives.seconds,
            lives.rate
        );
        if lives.cancelled > 0 {
            let _ = writeln!(text, "{} cancelled", thousands(lives.cancelled));
        }
        reasons(&mut text, lives.undelivered, "not delivered", &lives.errors);
        if lives.delivered > 0 {
            let _ = writeln!(text, "\nfrom creation to delivery, in milliseconds:");
            distribution(&mut text, &lives.life_ms);
        }
    }
    text
}

fn reported(text: &mut String, stats: &ReportStats) {
    let ReportStats { seed, orders, left_out, reported, applied, replayed, ignored, refused, .. } = stats;
    let [orders, reported, applied, replayed, ignored, refused] =
        [orders, reported, applied, replayed, ignored, refused].map(|count| thousands(*count));
    let _ = writeln!(text, "\n{reported} reports on {orders} orders (--seed {seed}):");
    for (count, what) in [
        (applied, "applied"),
        (replayed, "sent again and answered as before"),
        (ignored, "ignored, since they said nothing new"),
        (refused, "refused"),
    ] {
        let _ = writeln!(text, "{count:>9} {what}");
    }
    reasons(text, 0, "", &stats.refusals);
    reasons(text, stats.failed, "without an answer", &stats.errors);
    if *left_out > 0 {
        let _ = writeln!(text, "{} orders were left to themselves: too many at once", thousands(*left_out));
    }
    if stats.latency_ms.max > 0.0 {
        let _ = writeln!(text, "\nfrom sending a report to the answer, in milliseconds:");
        distribution(text, &stats.latency_ms);
    }
}

fn reasons(text: &mut String, count: u64, what: &str, errors: &std::collections::BTreeMap<String, u64>) {
    if count > 0 {
        let _ = writeln!(text, "{} {what}", thousands(count));
    }
    for (why, count) in errors {
        let _ = writeln!(text, "{:>9} times: {why}", thousands(*count));
    }
}

fn distribution(text: &mut String, latency: &Latency) {
    let Latency { min, mean, p50, p90, p99, p999, max } = latency;
    let names = ["min", "p50", "p90", "p99", "p99.9", "max", "mean"];
    for (n, value) in [min, p50, p90, p99, p999, max, mean].into_iter().enumerate() {
        let _ = writeln!(text, "  {:6}{value:>12.3}", names[n]);
    }
}
