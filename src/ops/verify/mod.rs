//! Checks every promise against database and topics, page by page, beside a running service.
//!
//! The database is read first and the topics after it, so that whatever the database says was sent
//! must be found. Needs 24 bytes of memory for each order.

mod events;
mod reports;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    broker::{BrokerError, Kafka, TopicExtent},
    order::{OrderId, Timestamp, Violation, promises::PUBLISHED_WITHIN},
    store::{AuditPage, Insight, Pages, Store, StoreError},
};
pub use events::EventTopicReport;
use reports::Reports;

/// Orders in one page.
const PAGE: usize = 2_000;
/// How often the backlog is asked for again where it can't be read in time.
const TRIES: usize = 5;
/// How many orders are named for each broken rule.
const EXAMPLES: usize = 5;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The orders can't be read to the end.
    #[error("the orders can't be read {}: {error}", beyond(after.as_deref()))]
    Orders {
        /// The last one that was read.
        after: Option<String>,
        /// Why not.
        error: StoreError,
    },
    /// The topic can't be read.
    #[error("the topic can't be read: {0}")]
    Broker(#[from] BrokerError),
}

fn beyond(after: Option<&str>) -> String {
    after.map_or_else(|| "from the first".to_owned(), |after| format!("beyond {after}"))
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    /// Orders read.
    pub orders: u64,
    /// Events read.
    pub events: u64,
    /// Orders not delivered yet.
    pub in_progress: u64,
    /// Orders that no broker has acknowledged yet.
    pub unsent: u64,
    /// What the topic held; `None` if it was not asked for.
    pub topic: Option<TopicReport>,
    /// What the topic of events held; `None` if it was not asked for, or none are written.
    pub event_topic: Option<EventTopicReport>,
    /// Every rule, kept or broken.
    pub rules: Vec<Rule>,
}

/// What the topic held.
#[derive(Debug, Default, Serialize)]
pub struct TopicReport {
    /// Messages read.
    pub messages: u64,
    /// Messages about an order beyond its first.
    pub duplicates: u64,
    /// Messages that are about no order of the database, such as poison or orders placed since.
    pub others: u64,
    /// Whether retention has deleted messages, so that a missing one proves nothing.
    pub truncated: bool,
}

/// A rule, and who breaks it.
#[derive(Debug, Default, Serialize)]
pub struct Rule {
    /// The rule in words.
    pub rule: String,
    /// How many orders break it.
    pub violations: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

impl Rule {
    fn new(rule: &str) -> Self {
        Self { rule: rule.to_owned(), ..Self::default() }
    }

    fn broken_by(&mut self, order_id: String) {
        self.violations += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(order_id);
        }
    }
}

impl Verification {
    /// How many violations there are in all.
    pub fn violations(&self) -> u64 {
        self.rules.iter().map(|rule| rule.violations).sum()
    }
}

/// All orders, with what must be on the topics and what was found there.
#[derive(Default)]
struct Orders {
    /// Rising, as the audit reads them.
    ids: Vec<OrderId>,
    rows: Vec<Row>,
}

/// What there is to know of one order.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Not sent yet: may be on the topic or not.
    unsent: bool,
    /// How often it was found there.
    found: u8,
    /// The last of its events that was written to their topic.
    written: u16,
    /// All its events up to this one were found there.
    seen: u16,
    /// One of them came behind a later one.
    disordered: bool,
}

impl Orders {
    fn row(&mut self, order_id: OrderId) -> Option<&mut Row> {
        self.ids.binary_search(&order_id).ok().map(|at| &mut self.rows[at])
    }

    /// A rule, and those that break it.
    fn rule(&self, rule: &str, broken: impl Fn(usize, &Row) -> bool) -> Rule {
        let mut rule = Rule::new(rule);
        for (at, row) in self.rows.iter().enumerate() {
            if broken(at, row) {
                rule.broken_by(self.ids[at].to_string());
            }
        }
        rule
    }
}

/// Reads everything; `kafka` is `None` where the topics are out of reach, `event_topic` if no events are written.
pub async fn verify(
    store: &dyn Store,
    kafka: Option<Arc<Kafka>>,
    topic: &str,
    event_topic: Option<&str>,
) -> Result<Verification, VerifyError> {
    let mut report = Verification::default();
    // What is written to it from now on may be found there or not.
    let written = match (&kafka, event_topic) {
        (Some(_), Some(topic)) => store.place_of(topic).await?,
        _ => None,
    };
    let mut orders = Orders::default();
    read_orders(store, &mut report, &mut orders).await?;
    let Some(kafka) = kafka else { return Ok(report) };
    let mut orders = read_topic(store, &kafka, topic, orders, &mut report).await?;
    if let Some(topic) = event_topic {
        events::verify(store, kafka, topic, written.unwrap_or_default(), &mut orders, &mut report).await?;
    }
    Ok(report)
}

async fn read_topic(
    store: &dyn Insight,
    kafka: &Arc<Kafka>,
    topic: &str,
    mut orders: Orders,
    report: &mut Verification,
) -> Result<Orders, VerifyError> {
    let (kafka, topic) = (Arc::clone(kafka), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let (mut duplicates, mut others) = (0, 0);
        let extent = kafka.read_all(&topic, |message| match order_of(message.record.key.as_deref()) {
            Some(order_id) => orders.note(order_id, &mut duplicates, &mut others),
            None => others += 1,
        });
        extent.map(|extent| (extent, duplicates, others, orders))
    });
    let (extent, duplicates, others, orders) =
        read.await.map_err(|error| BrokerError(error.to_string()))??;
    let TopicExtent { messages, truncated } = extent;
    report.topic = Some(TopicReport { messages, duplicates, others, truncated });
    if !truncated {
        let missing = |_, row: &Row| !row.unsent && row.found == 0;
        report.rules.push(orders.rule("every order that was sent is on the topic", missing));
    }
    report.rules.push(unsent_for_long(store).await?);
    Ok(orders)
}

fn order_of(key: Option<&[u8]>) -> Option<OrderId> {
    std::str::from_utf8(key?).ok()?.parse().ok()
}

async fn read_orders(
    store: &dyn Insight,
    report: &mut Verification,
    orders: &mut Orders,
) -> Result<(), VerifyError> {
    let mut rules: BTreeMap<Violation, Rule> =
        Violation::ALL.into_iter().map(|violation| (violation, Rule::new(violation.rule()))).collect();
    let mut unreadable = Rule::new("every order can be read");
    let (mut pages, mut reports) = (Pages::new(store, None, PAGE), Reports::new(store, PAGE));
    loop {
        let page = match pages.next().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(error) => return Err(unread(&pages, error)),
        };
        for order_id in &page.unreadable {
            unreadable.broken_by(order_id.clone());
        }
        report.orders += page.unreadable.len() as u64;
        judge(&page, page.now, report, &mut rules);
        reports.beside(&page, &mut rules).await.map_err(|error| unread(&pages, error))?;
        for order in &page.orders {
            orders.ids.push(order.order_id);
            orders.rows.push(Row { unsent: order.unsent, ..Row::default() });
            report.unsent += u64::from(order.unsent);
        }
    }
    reports.beyond(&mut rules).await.map_err(|error| unread(&pages, error))?;
    report.rules.push(unreadable);
    report.rules.extend(rules.into_values());
    Ok(())
}

fn unread(pages: &Pages<'_>, error: StoreError) -> VerifyError {
    VerifyError::Orders { after: pages.after().map(str::to_owned), error }
}

fn judge(page: &AuditPage, now: Timestamp, report: &mut Verification, rules: &mut BTreeMap<Violation, Rule>) {
    for order in &page.orders {
        report.orders += 1;
        report.events += order.events.len() as u64;
        report.in_progress += u64::from(!order.status.is_final());
        for violation in order.violations(now) {
            rules.entry(violation).or_default().broken_by(order.order_id.to_string());
        }
    }
}

impl Orders {
    fn note(&mut self, order_id: OrderId, duplicates: &mut u64, others: &mut u64) {
        match self.row(order_id) {
            Some(row) => {
                *duplicates += u64::from(!row.unsent && row.found > 0);
                row.found = row.found.saturating_add(1);
            }
            None => *others += 1,
        }
    }
}

async fn unsent_for_long(store: &dyn Insight) -> Result<Rule, StoreError> {
    let mut rule =
        Rule::new(&format!("no order waits for more than {} s to be sent", PUBLISHED_WITHIN.as_secs()));
    let mut backlog = store.backlog().await;
    // What is too much at once is read less far back the next time.
    for _ in 0..TRIES {
        if backlog.as_ref().is_err_and(StoreError::is_transient) {
            backlog = store.backlog().await;
        }
    }
    let backlog = backlog?;
    if backlog.oldest_unsent_age > PUBLISHED_WITHIN {
        rule.violations = 1;
        rule.examples.push(format!("the oldest waits for {:.0} s", backlog.oldest_unsent_age.as_secs_f64()));
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        order::{AuditedReport, EventKind, Report as NewReport, Rules, Source},
        store::{OrderReport, OrderStore as _, flaky::Flaky},
    };

    /// Promise 7: the story is true. What is kept of reports belongs to their events, whichever order is the last of a page.
    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_reports_is_looked_at_along_with_the_orders() {
        let (store, ids) = Flaky::holding(4).await;
        let report =
            NewReport { note: Some("soft".to_owned()), ..NewReport::of(EventKind::Ready, Source::Kitchen) };
        let reports =
            [0, 3].map(|n| OrderReport { order_id: ids[n], report: report.clone(), if_match: None });
        store.report(&reports, &Rules::default()).await.expect("reports");
        let kept = |order_id: &str, seq: i64, event: Option<&str>| AuditedReport {
            order_id: order_id.to_owned(),
            seq,
            report_id: Some("one".to_owned()),
            said: Some("READY".to_owned()),
            has_note: seq == 3,
            event: event.map(str::to_owned),
        };
        let [first, second, third, last] = [0, 1, 2, 3].map(|n| ids[n].to_string());
        let ready = Some("READY");
        for most in [1, 2, 3, 100] {
            store.most.store(most, Ordering::Relaxed);
            let found = async |rows: Vec<AuditedReport>| {
                *store.kept.lock().expect("no panic") = Some(rows);
                let report = verify(&store, None, "orders.v1", None).await.expect("reads");
                let broken = report.rules.into_iter().filter(|rule| rule.violations > 0);
                broken.map(|rule| (rule.rule, rule.examples)).collect::<Vec<_>>()
            };
            let noted = [kept(&first, 3, ready), kept(&last, 3, ready)];
            assert_eq!(found(noted.to_vec()).await, [], "{most}");
            let rows = vec![
                kept("ORD-0", 1, None),
                noted[0].clone(),
                kept(&first, 4, ready),
                kept(&second, 4, None),
                kept(&second, 5, None),
                kept(&third, 4, Some("COOKING")),
                kept("ORD-~", 1, None),
            ];
            let expected = [
                (Violation::ReportAlone, vec!["ORD-0", &second, "ORD-~"]),
                (Violation::ReportDiffers, vec![&third]),
                (Violation::ReportDoubled, vec![&first, &second]),
                (Violation::NoteMissing, vec![&last]),
            ];
            let expected = expected.map(|(violation, orders)| {
                (violation.rule().to_owned(), orders.into_iter().map(str::to_owned).collect::<Vec<_>>())
            });
            assert_eq!(found(rows).await, expected, "{most}");
        }
    }

    /// Promise 6: it says what is wrong, and of which orders it can say nothing.
    #[tokio::test(start_paused = true)]
    async fn a_slow_database_is_read_to_the_end() {
        let (store, _) = Flaky::holding(100).await;
        store.most.store(9, Ordering::Relaxed);
        store.failures.store(3, Ordering::Relaxed);
        store.odd.lock().expect("no panic").push("TEST-1".to_owned());
        let report = verify(&store, None, "orders.v1", None).await.expect("reads");
        assert_eq!((report.orders, report.violations()), (101, 1));
        assert_eq!(report.rules[0].examples, ["TEST-1"]);
        store.good.store(9, Ordering::Relaxed);
        store.failures.store(usize::MAX, Ordering::Relaxed);
        let error = verify(&store, None, "orders.v1", None).await.expect_err("away").to_string();
        assert!(error.contains("can't be read beyond ORD-"), "{error}");
    }
}
