//! Every order, page by page, for commands that must come to the end.
//!
//! A page that is too slow is read again in a smaller portion, and a broken connection is waited for; only
//! what does not pass within a while ends the reading, and then the caller knows how far it came.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::{AuditPage, Insight, Portion, StoreError};
use crate::order::AuditedReport;

/// How long trouble may last before the reading is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Waits between the tries of something, for as long as it may take in all.
#[derive(Debug)]
pub struct Patience {
    begun: Instant,
    pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { begun: Instant::now(), pause: FIRST_PAUSE }
    }
}

impl Patience {
    /// Waits until the next try; answers whether there is to be one.
    pub async fn wait(&mut self) -> bool {
        if self.begun.elapsed() >= PATIENCE {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// A reading of all orders, smallest id first.
pub struct Pages<'a> {
    store: &'a dyn Insight,
    portion: Portion,
    after: Option<String>,
}

impl<'a> Pages<'a> {
    /// A reading that begins after this id, up to `most` orders at a time.
    pub fn new(store: &'a dyn Insight, after: Option<String>, most: usize) -> Self {
        Self { store, portion: Portion::new(most), after }
    }

    /// The last order that was read, for who wants to go on from there.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The next page; `None` at the end. The same again after an error.
    pub async fn next(&mut self) -> Result<Option<AuditPage>, StoreError> {
        let (store, after) = (self.store, self.after.as_deref());
        let count = |page: &AuditPage| page.orders.len() + page.unreadable.len();
        let page = patiently(&self.portion, count, |size| store.audit(after, size)).await?;
        if page.last.is_none() {
            return Ok(None);
        }
        self.after.clone_from(&page.last);
        Ok(Some(page))
    }
}

/// A reading of all that is kept beside events, by orders and positions.
pub struct ReportPages<'a> {
    store: &'a dyn Insight,
    portion: Portion,
    after: Option<(String, i64)>,
}

impl<'a> ReportPages<'a> {
    /// A reading of up to `most` at a time.
    pub fn new(store: &'a dyn Insight, most: usize) -> Self {
        Self { store, portion: Portion::new(most), after: None }
    }

    /// The next page up to this order, or to the end of all; empty there. The same again after an error.
    pub async fn next(&mut self, until: Option<&str>) -> Result<Vec<AuditedReport>, StoreError> {
        let (store, first) = (self.store, ("", i64::MIN));
        let after = self.after.as_ref().map_or(first, |(order_id, seq)| (order_id.as_str(), *seq));
        let read = |size| store.audit_reports(after, until, size);
        let page = patiently(&self.portion, Vec::len, read).await?;
        if let Some(last) = page.last() {
            self.after = Some((last.order_id.clone(), last.seq));
        }
        Ok(page)
    }
}

/// Reads a page of what fits, again in a smaller portion where that was too slow, and after a while where a connection broke.
async fn patiently<'a, T>(
    portion: &Portion,
    count: impl Fn(&T) -> usize,
    read: impl Fn(usize) -> BoxFuture<'a, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut patience = Patience::default();
    loop {
        let (started, size) = (Instant::now(), portion.size());
        match read(size).await {
            Ok(page) => {
                portion.fits(count(&page), started.elapsed());
                return Ok(page);
            }
            // One of them may be the reason.
            Err(error) if error.may_be_one() && size > 1 => portion.too_much(size),
            Err(error) if error.is_transient() && patience.wait().await => drop(error),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::store::flaky::Flaky;

    #[tokio::test(start_paused = true)]
    async fn a_slow_page_is_read_in_parts_and_a_broken_connection_is_waited_for() {
        let (store, ids) = Flaky::holding(100).await;
        store.most.store(9, Ordering::Relaxed);
        store.failures.store(5, Ordering::Relaxed);
        let (mut pages, mut read) = (Pages::new(&store, None, 64), Vec::new());
        while let Some(page) = pages.next().await.expect("reads") {
            read.extend(page.orders.into_iter().map(|order| order.order_id));
            assert_eq!(pages.after(), read.last().map(ToString::to_string).as_deref());
        }
        assert_eq!(read, ids, "each once");
        let mut rest = Pages::new(&store, Some(ids[89].to_string()), 64);
        let page = rest.next().await.expect("reads").expect("some");
        assert_eq!(page.orders[0].order_id, ids[90]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_ends_the_reading_in_time() {
        let (store, _) = Flaky::holding(3).await;
        store.failures.store(usize::MAX, Ordering::Relaxed);
        let begun = Instant::now();
        assert!(matches!(Pages::new(&store, None, 64).next().await, Err(StoreError::Unavailable(_))));
        assert!((PATIENCE..PATIENCE * 2).contains(&begun.elapsed()));
        store.failures.store(0, Ordering::Relaxed);
        store.most.store(0, Ordering::Relaxed);
        assert!(matches!(Pages::new(&store, None, 64).next().await, Err(StoreError::Timeout(_))));
    }
}
