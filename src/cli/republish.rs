//! `republish`: orders that a broker has lost are published again, by the service that runs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta};
use clap::Args;
use serde::Serialize;

use super::output;
use crate::{
    app,
    clock::{Clock as _, SystemClock},
    config::StoreConfig,
    order::{OrderId, Timestamp},
    store::{Portion, Republished, Store, StoreError, in_portions},
};

/// Most orders in one write, and in one reading.
const AT_ONCE: usize = 1_000;
/// An order's id is made before the order is stored, by another clock: so far apart the two may be.
const APART: TimeDelta = TimeDelta::minutes(10);
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

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    /// Orders that wait to be published again.
    queued: u64,
    /// Orders that waited to be published already.
    waiting: u64,
    /// Ids of no order.
    unknown: Vec<OrderId>,
}

impl Report {
    fn add(&mut self, order_id: OrderId, what: Republished) {
        match what {
            Republished::Queued => self.queued += 1,
            Republished::Waiting => self.waiting += 1,
            Republished::Unknown => self.unknown.push(order_id),
        }
    }
}

pub(super) async fn run(args: &RepublishArgs) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let since = args.since.map_or(Timestamp::UNIX_EPOCH, |since| since.before(now));
    let until = args.until.map_or(Timestamp::MAX_UTC, |until| until.before(now));
    if since >= until {
        return Err(output::Wrong(format!("--since: {since} is not before --until: {until}")).into());
    }
    let store = app::open_for_repair(&args.store).await?;
    let mut report = Report::default();
    let done = if args.order_ids.is_empty() {
        all_between(&*store, since, until, &mut report).await
    } else {
        these(&*store, &args.order_ids, &mut report).await
    };
    store.close().await;
    let told = if args.json { output::print_json(&report) } else { output::print(&table(&report)) };
    done.context("not all orders could be queued; it does no harm to run this again")?;
    if !report.unknown.is_empty() {
        let unknown: Vec<String> = report.unknown.iter().map(OrderId::to_string).collect();
        bail!("no order has the id {}", unknown.join(", "));
    }
    told
}

fn table(report: &Report) -> String {
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

async fn these(store: &dyn Store, order_ids: &[OrderId], report: &mut Report) -> Result<(), StoreError> {
    let portion = Portion::new(AT_ONCE);
    let answers = in_portions(&portion, order_ids.len(), |part| store.republish(&order_ids[part])).await;
    let mut trouble = Ok(());
    for (order_id, answer) in order_ids.iter().zip(answers) {
        match answer {
            Ok(what) => report.add(*order_id, what),
            Err(error) => trouble = Err(error),
        }
    }
    trouble
}

/// Found by their ids, which rise with time; which of them are meant, the order itself tells.
async fn all_between(
    store: &dyn Store,
    since: Timestamp,
    until: Timestamp,
    report: &mut Report,
) -> Result<(), StoreError> {
    let first = since.checked_sub_signed(APART).unwrap_or(Timestamp::UNIX_EPOCH);
    let end = OrderId::first_of(until.checked_add_signed(APART).unwrap_or(Timestamp::MAX_UTC));
    let (mut after, mut trouble) = (Some(OrderId::first_of(first)), Ok(()));
    loop {
        let page = store.audit(after, AT_ONCE).await?;
        let meant = page.orders.iter().filter(|order| (since..until).contains(&order.created_at));
        let meant: Vec<OrderId> = meant.map(|order| order.order_id).collect();
        match these(store, &meant, report).await {
            // One that can't be queued does not hold up the others.
            Err(error) if error.may_be_one() => trouble = Err(error),
            outcome => outcome?,
        }
        match page.last.filter(|last| *last < end) {
            Some(last) => after = Some(last),
            None => return trouble,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
