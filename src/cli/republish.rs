//! `republish`: orders that a broker has lost are published again, by the service that runs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta};
use clap::Args;
use serde::Serialize;

use super::output;
use crate::{
    app::{self, config::StoreConfig},
    order::{OrderId, Timestamp},
    store::{AuditPage, Pages, Patience, Portion, Republished, Store, StoreError, in_portions},
    time::{Clock as _, SystemClock},
};

/// Most orders in one write, and in one reading.
const AT_ONCE: usize = 1_000;
/// How many orders that can't be read are named.
const NAMED: usize = 20;
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

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    /// Orders that wait to be published again.
    queued: u64,
    /// Orders that waited to be published already.
    waiting: u64,
    /// Ids of no order.
    unknown: Vec<OrderId>,
    /// Ids of orders that can't be read, so nobody knows whether they are meant.
    unreadable: Vec<String>,
    /// Orders that the database refused to queue.
    refused: Vec<OrderId>,
    /// Where to go on with `--after`, if the end was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<OrderId>,
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
        all_between(&*store, Between { since, until, after: args.after }, &mut report).await
    } else {
        these(&*store, &args.order_ids, &mut report).await
    };
    store.close().await;
    let told = if args.json { output::print_json(&report) } else { output::print(&table(&report)) };
    done.with_context(|| not_all(report.ended_at))?;
    complaint(&report)?;
    told
}

/// What is said of orders that could not be queued.
fn complaint(report: &Report) -> anyhow::Result<()> {
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
    let (portion, mut patience, mut rest) = (Portion::new(AT_ONCE), Patience::default(), order_ids.to_vec());
    loop {
        let answers = in_portions(&portion, rest.len(), |part| store.republish(&rest[part])).await;
        let (mut again, mut failure) = (Vec::new(), None);
        for (order_id, answer) in rest.iter().zip(answers) {
            match answer {
                Ok(what) => report.add(*order_id, what),
                Err(error) if error.is_transient() => {
                    again.push(*order_id);
                    failure = Some(error);
                }
                Err(_) => report.refused.push(*order_id),
            }
        }
        let Some(error) = failure else { return Ok(()) };
        if !patience.wait().await {
            return Err(error);
        }
        rest = again;
    }
}

/// Which orders are meant.
#[derive(Debug, Clone, Copy)]
struct Between {
    since: Timestamp,
    until: Timestamp,
    after: Option<OrderId>,
}

/// Found by their ids, which rise with time; which of them are meant, the order itself tells.
async fn all_between(
    store: &dyn Store,
    Between { since, until, after }: Between,
    report: &mut Report,
) -> Result<(), StoreError> {
    let first = OrderId::first_of(since.checked_sub_signed(APART).unwrap_or(Timestamp::UNIX_EPOCH));
    // Without an end, ids that were written by hand and come after all others are looked at, too.
    let end = until.checked_add_signed(APART).map(|until| OrderId::first_of(until).to_string());
    let within = |id: &str| end.as_deref().is_none_or(|end| id < end);
    let mut pages = Pages::new(store, Some(after.unwrap_or(first).max(first).to_string()), AT_ONCE);
    while let Some(page) = pages.next().await? {
        let AuditPage { orders, unreadable, last, .. } = page;
        report.unreadable.extend(unreadable.into_iter().filter(|id| within(id)));
        let meant = orders.iter().filter(|order| (since..until).contains(&order.created_at));
        let meant: Vec<OrderId> = meant.map(|order| order.order_id).collect();
        these(store, &meant, report).await?;
        report.ended_at = orders.last().map(|order| order.order_id).or(report.ended_at);
        if last.is_some_and(|last| !within(&last)) {
            break;
        }
    }
    report.ended_at = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::Ordering};

    use super::*;
    use crate::{
        store::{
            OrderStore as _, Outbox, OutboxStore as _,
            conformance::{new_orders, start},
            flaky::Flaky,
            memory::MemoryStore,
        },
        time::ManualClock,
    };

    const ALL: Between = Between { since: Timestamp::UNIX_EPOCH, until: Timestamp::MAX_UTC, after: None };

    /// A store with so many orders that are sent.
    async fn sent(orders: u64) -> (Flaky, Vec<OrderId>) {
        let clock = Arc::new(ManualClock::new(start()));
        let inner = MemoryStore::new(Arc::default(), clock, 1);
        let orders = new_orders(orders);
        let ids: Vec<OrderId> = orders.iter().map(|order| order.order_id).collect();
        inner.place(&orders, Outbox::Mine).await.expect("places");
        inner.mark_sent(&ids).await.expect("marks");
        (Flaky::new(Arc::new(inner)), ids)
    }

    /// Promise 2: everything accepted reaches the topic, again if a broker has lost it; and nothing is sent twice
    /// since the database was away in between.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_failed_goes_on_from_where_it_ended() {
        let (store, ids) = sent(100).await;
        // Slow pages and a broken connection are no failure.
        store.most.store(9, Ordering::Relaxed);
        store.failures.store(3, Ordering::Relaxed);
        let mut whole = Report::default();
        all_between(&store, ALL, &mut whole).await.expect("queues");
        assert_eq!((whole.queued, whole.waiting, whole.ended_at), (100, 0, None));
        store.mark_sent(&ids).await.expect("marks");

        store.good.store(9, Ordering::Relaxed);
        store.failures.store(usize::MAX, Ordering::Relaxed);
        let mut first = Report::default();
        all_between(&store, ALL, &mut first).await.expect_err("away");
        let ended_at = first.ended_at.expect("somewhere");
        assert!((1..100).contains(&first.queued) && first.waiting == 0, "{first:?}");
        assert!(not_all(first.ended_at).contains(&format!("--after {ended_at}")));

        store.failures.store(0, Ordering::Relaxed);
        let mut rest = Report::default();
        all_between(&store, Between { after: first.ended_at, ..ALL }, &mut rest).await.expect("queues");
        assert_eq!((first.queued + rest.queued, rest.waiting, rest.ended_at), (100, 0, None));
    }

    /// Promise 6: it says what is wrong.
    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_read_is_named_and_holds_up_no_other() {
        let (store, _) = sent(30).await;
        store.most.store(10, Ordering::Relaxed);
        let odd = ["TEST-1".to_owned(), "ORD-01KAAA00000000000000000001".to_owned()];
        store.odd.lock().expect("no panic").extend(odd.clone());
        let mut report = Report::default();
        all_between(&store, ALL, &mut report).await.expect("queues");
        assert_eq!((report.queued, &report.unreadable[..]), (30, &odd[..]));
        assert!(complaint(&report).expect_err("is one").to_string().contains("2 orders can't be read"));
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
