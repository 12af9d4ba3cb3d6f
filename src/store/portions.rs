//! A set that fails as a whole is halved until the one that can't go is alone.
//!
//! One mechanism for every verb that takes a set: whoever calls it keeps a [`Portion`] that remembers
//! how much the database takes in time, and [`in_portions`] answers for each member by itself.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::StoreError;

/// Calls that end within this time may carry twice as much the next time.
const QUICK: Duration = Duration::from_millis(400);
/// So many that are too slow alone, one after the other, are no fault of theirs.
const TOO_SLOW_ALONE: usize = 2;

/// How many of a set go into one call: halved where that is too slow, doubled again where it is quick.
#[derive(Debug)]
pub struct Portion {
    most: usize,
    size: AtomicUsize,
}

impl Portion {
    /// Up to `most`, at least 1, to begin with.
    pub fn new(most: usize) -> Self {
        Self { most, size: AtomicUsize::new(most) }
    }

    /// How many the next call may carry.
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// A call that carried `count` has ended well.
    pub fn fits(&self, count: usize, took: Duration) {
        let size = self.size();
        if count >= size && took < QUICK {
            self.size.store((size * 2).min(self.most), Ordering::Relaxed);
        }
    }

    /// A call that carried `count` has not ended in time.
    pub fn too_much(&self, count: usize) {
        self.size.store((count / 2).clamp(1, self.size()), Ordering::Relaxed);
    }

    /// Counts a call that carried up to `count`; hands its outcome on.
    pub fn judge<T>(&self, count: usize, started: Instant, outcome: &Result<T, StoreError>) {
        match outcome {
            Ok(_) => self.fits(count, started.elapsed()),
            Err(StoreError::Timeout(_)) => self.too_much(count),
            Err(_) => {}
        }
    }
}

/// Calls `verb` for `items`, in their order, with a part of them at a time. Where a call fails for what
/// one of them may be the cause of, its items are halved, and the one that fails alone has an error of
/// its own; trouble of the database is everybody's error at once. `verb` answers for each item of its part.
pub async fn in_portions<R, F>(
    portion: &Portion,
    items: usize,
    mut verb: impl FnMut(Range<usize>) -> F,
) -> Vec<Result<R, StoreError>>
where
    F: Future<Output = Result<Vec<R>, StoreError>>,
{
    let mut answers = Vec::with_capacity(items);
    let mut too_slow_alone = 0;
    // Up to here there is one that failed in company.
    let mut suspect_until = 0_usize;
    while answers.len() < items {
        let (from, rest) = (answers.len(), items - answers.len());
        let suspects = suspect_until.saturating_sub(from);
        let most = if suspects > 0 { suspects.div_ceil(2) } else { rest };
        let count = most.min(portion.size());
        let started = Instant::now();
        let outcome = verb(from..from + count).await;
        portion.judge(count, started, &outcome);
        match outcome {
            Ok(found) => {
                answers.extend(found.into_iter().map(Ok));
                too_slow_alone = 0;
            }
            Err(error) if count > 1 && error.may_be_one() => suspect_until = from + count,
            Err(error) => {
                suspect_until = 0;
                too_slow_alone += usize::from(matches!(error, StoreError::Timeout(_)));
                let error = if too_slow_alone > TOO_SLOW_ALONE { nothing_in_time(&error) } else { error };
                let failed = if error.may_be_one() { 1 } else { rest };
                answers.extend((0..failed).map(|_| Err(error.clone())));
            }
        }
    }
    answers
}

fn nothing_in_time(error: &StoreError) -> StoreError {
    StoreError::Unavailable(format!("{error}, not even for one at a time"))
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    /// What a verb meets with each item.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Item {
        Good(u32),
        Refused,
        Slow,
    }

    fn fate(items: &[Item]) -> Result<Vec<u32>, StoreError> {
        let good = |item: &Item| match item {
            Item::Good(number) => Ok(*number),
            Item::Refused => Err(StoreError::Refused("no".to_owned())),
            Item::Slow => Err(StoreError::Timeout(Duration::from_secs(2))),
        };
        items.iter().map(good).collect()
    }

    async fn answers(portion: &Portion, items: &[Item]) -> (Vec<Result<u32, StoreError>>, usize) {
        let mut calls = 0;
        let answers = in_portions(portion, items.len(), |part| {
            calls += 1;
            ready(fate(&items[part]))
        })
        .await;
        (answers, calls)
    }

    #[tokio::test]
    async fn one_that_is_refused_is_found_and_the_others_go() {
        let mut items: Vec<Item> = (0..1_000).map(Item::Good).collect();
        items[617] = Item::Refused;
        let (answers, calls) = answers(&Portion::new(1_000), &items).await;
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_err(), number == 617, "{number}: {answer:?}");
        }
        assert!(calls < 25, "{calls} calls");
    }

    #[tokio::test]
    async fn what_is_too_much_is_halved_and_the_size_that_works_is_remembered() {
        let portion = Portion::new(512);
        let mut calls = Vec::new();
        let answers = in_portions(&portion, 512, |part| {
            calls.push(part.len());
            ready(if part.len() > 100 { Err(StoreError::Timeout(QUICK)) } else { Ok(part.collect()) })
        })
        .await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(calls[..4], [512, 256, 128, 64]);
        assert!(portion.size() <= 128, "{}", portion.size());
        // And tried again where the database is quick.
        portion.fits(portion.size(), Duration::ZERO);
        assert!(portion.size() <= 256);
        (0..9).for_each(|_| portion.fits(portion.size(), Duration::ZERO));
        assert_eq!(portion.size(), 512);
    }

    #[tokio::test]
    async fn trouble_of_the_database_is_nobodys_fault() {
        let mut calls = 0;
        let answers = in_portions(&Portion::new(10), 3, |_| {
            calls += 1;
            ready(Err::<Vec<u32>, _>(StoreError::Unavailable("away".to_owned())))
        })
        .await;
        assert_eq!((answers.len(), calls), (3, 1));
        assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))));
    }

    /// A database that answers nothing in time would else be asked for each of a thousand alone.
    #[tokio::test]
    async fn many_that_are_too_slow_alone_are_not_asked_one_by_one() {
        let (all_slow, calls) = answers(&Portion::new(64), &[Item::Slow; 64]).await;
        assert!(all_slow.iter().all(Result::is_err) && calls < 12, "{calls} calls");
        let (one_slow, _) = answers(&Portion::new(64), &[Item::Good(1), Item::Slow, Item::Good(2)]).await;
        let well: Vec<bool> = one_slow.iter().map(Result::is_ok).collect();
        assert_eq!(well, [true, false, true]);
    }
}
