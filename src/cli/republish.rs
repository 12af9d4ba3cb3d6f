//! `republish`: orders that a broker has lost are published again, by the service that runs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta};
use clap::Args;

use super::output;
use crate::{
    app::{self, config::StoreConfig},
    ops::republish::{Between, Republication},
    order::{OrderId, Timestamp},
    time::{Clock as _, SystemClock},
};

/// How many orders that can't be read are named.
const NAMED: usize = 20;
/// How long ago is long ago enough.
const LONGEST_AGO: Duration = Duration::from_hours(100 * 365 * 24);

#[derive(Debug, Args)]
pub(super) struct RepublishArgs {
    /// Orders by their ids, ORD-...
    #[arg(value_name = "ORDER_ID", required_unless_present_any = ["since", "until"], conflicts_with_all = ["since", "until"])]
    order_ids: Vec<OrderId>,
    /// Orders created at this moment or later: 2026-05-01T18:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Orders created before this moment, written alike
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// Of these, those after this order: where an earlier run ended
    #[arg(long, value_name = "ORDER_ID", conflicts_with = "order_ids")]
    after: Option<OrderId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) store: StoreConfig,
}

/// A moment as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Ago(Duration),
}

impl When {
    fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(time) => {
                let back = TimeDelta::from_std(time).ok();
                back.and_then(|back| now.checked_sub_signed(back)).unwrap_or(Timestamp::UNIX_EPOCH)
            }
        }
    }
}

fn when(text: &str) -> Result<When, String> {
    let at = DateTime::parse_from_rfc3339(text).ok().map(|at| When::At(at.to_utc()));
    let ago = || humantime::parse_duration(text).ok().filter(|time| *time <= LONGEST_AGO).map(When::Ago);
    at.or_else(ago).ok_or_else(|| {
        "must be a moment, such as 2026-05-01T18:00:00Z, or how long ago, such as 2h or 30m".to_owned()
    })
}

pub(super) async fn run(args: &RepublishArgs) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let since = args.since.map_or(Timestamp::UNIX_EPOCH, |since| since.before(now));
    let until = args.until.map_or(Timestamp::MAX_UTC, |until| until.before(now));
    if since >= until {
        return Err(output::Wrong(format!("--since: {since} is not before --until: {until}")).into());
    }
    let store = app::open_for_repair(&args.store).await?;
    let mut report = Republication::default();
    let done = if args.order_ids.is_empty() {
        report.all_between(&*store, Between { since, until, after: args.after }).await
    } else {
        report.these(&*store, &args.order_ids).await
    };
    store.close().await;
    let told = if args.json { output::print_json(&report) } else { output::print(&table(&report)) };
    done.with_context(|| not_all(report.ended_at))?;
    complaint(&report)?;
    told
}

/// What is said of orders that could not be queued.
fn complaint(report: &Republication) -> anyhow::Result<()> {
    if !report.unknown.is_empty() {
        let unknown: Vec<String> = report.unknown.iter().map(OrderId::to_string).collect();
        bail!("no order has the id {}", unknown.join(", "));
    }
    let refused: Vec<String> = report.refused.iter().map(OrderId::to_string).collect();
    for (ids, what) in
        [(&refused, "could not be queued"), (&report.unreadable, "can't be read and were left out")]
    {
        if !ids.is_empty() {
            bail!("{} orders {what}, such as {}", ids.len(), ids[..ids.len().min(NAMED)].join(", "));
        }
    }
    Ok(())
}

fn not_all(ended_at: Option<OrderId>) -> String {
    match ended_at {
        Some(id) => format!("not all orders could be queued; go on with --after {id} and the same times"),
        None => "not all orders could be queued; it does no harm to run this again".to_owned(),
    }
}

fn table(report: &Republication) -> String {
    let waiting = match report.waiting {
        0 => String::new(),
        count => format!("; {count} waited to be published already"),
    };
    let orders = if report.queued == 1 { "order is" } else { "orders are" };
    format!(
        "{} {orders} published again by the service that runs, or that starts next{waiting}",
        report.queued
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 6: it says what is wrong, and where to go on.
    #[test]
    fn what_was_not_done_is_said() {
        let order_id = OrderId::first_of(Timestamp::UNIX_EPOCH);
        assert!(not_all(Some(order_id)).contains(&format!("--after {order_id}")));
        assert!(complaint(&Republication::default()).is_ok());
        let unreadable = ["TEST-1".to_owned(), "ORD-01KAAA00000000000000000001".to_owned()].to_vec();
        let done = Republication { unreadable, ..Republication::default() };
        assert!(complaint(&done).expect_err("is one").to_string().contains("2 orders can't be read"));
    }

    #[test]
    fn a_moment_is_written_in_two_ways() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a moment");
        for (text, moment) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
            ("2h", "2026-01-02T01:04:05Z"),
            ("1day 5s", "2026-01-01T03:04:00Z"),
            ("0s", "2026-01-02T03:04:05Z"),
            ("99years", "1927-"),
        ] {
            let found =
                when(text).expect(text).before(now).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            assert!(found.starts_with(moment), "{text}: {found}");
        }
        for bad in ["", "2", "yesterday", "-2h", "2026-01-01", "99999999999999y", "18446744073709551615s"] {
            assert!(when(bad).expect_err(bad).starts_with("must be a moment"), "{bad}");
        }
    }
}
