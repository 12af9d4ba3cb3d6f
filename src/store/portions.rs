//! A set that fails as a whole is halved until the one that can't go is alone.
//!
//! One mechanism for every verb that takes a set: whoever calls it keeps a [`Portion`] that remembers
//! how much the database takes in time, and [`in_portions`] answers for each member by itself.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    StoreError,
    due::{EACH, SOON},
};

/// Calls that end within this time may carry twice as much the next time.
const QUICK: Duration = Duration::from_millis(400);
/// So many that are too slow alone, one after the other, are no fault of theirs.
const TOO_SLOW_ALONE: usize = 2;

/// How long a call may take that writes up to so many, one of which may be too slow: all others wait for so long. The store
/// gives more where it writes nothing so soon. In steps, so that not every set needs a limit of its own.
pub fn written_within(count: usize) -> Duration {
    SOON + EACH * u32::try_from(count.next_power_of_two()).unwrap_or(u32::MAX)
}

/// How many of a set go into one call: halved where that is too slow, doubled again where as many were quick.
#[derive(Debug)]
pub struct Portion {
    most: usize,
    quick: Duration,
    /// Calls that end within this time may carry a little more the next time.
    in_time: Duration,
    size: AtomicUsize,
}

impl Portion {
    /// Up to `most`, at least 1, to begin with.
    pub fn new(most: usize) -> Self {
        Self { most, quick: QUICK, in_time: QUICK, size: AtomicUsize::new(most) }
    }

    /// The same for calls that are given up after `limit`, and are quick within a quarter of that. Where a single commit
    /// takes longer, one that was too slow must not make all others small for ever.
    pub fn given_up_after(most: usize, limit: Duration) -> Self {
        Self { quick: limit / 4, in_time: limit.max(QUICK), ..Self::new(most) }
    }

    /// How many the next call may carry.
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// A call has ended well that did carry `count`; one that carried fewer than it might says nothing.
    pub fn fits(&self, count: usize, took: Duration) {
        let size = self.size();
        let more = match took {
            took if took < self.quick => size,
            took if took < self.in_time => size.div_ceil(8),
            _ => 0,
        };
        if count >= size {
            self.size.store((size + more).min(self.most), Ordering::Relaxed);
        }
    }

    /// A call that carried `count` has not ended in time.
    pub fn too_much(&self, count: usize) {
        self.size.store((count / 2).clamp(1, self.size()), Ordering::Relaxed);
    }
}

/// Calls `verb` for `items` with a part of them at a time. Where a call fails for what one of them may be the
/// cause of, its items are halved, and the one that fails alone has an error of its own; trouble of the
/// database is everybody's error at once. `verb` answers for each item of its part.
///
/// The halves of what failed come after all that has not failed yet: whoever can go does not wait until
/// somebody else has been found.
pub async fn in_portions<R, F>(
    portion: &Portion,
    items: usize,
    mut verb: impl FnMut(Range<usize>) -> F,
) -> Vec<Result<R, StoreError>>
where
    F: Future<Output = Result<Vec<R>, StoreError>>,
{
    let mut answers: Vec<Option<Result<R, StoreError>>> = (0..items).map(|_| None).collect();
    let (mut parts, mut too_slow_alone) = (VecDeque::new(), 0);
    parts.push_back(0..items);
    while let Some(Range { start, end }) = parts.pop_front() {
        let middle = end.min(start + portion.size());
        if middle < end {
            parts.push_front(middle..end);
        }
        let (count, started) = (middle - start, Instant::now());
        if count == 0 {
            continue;
        }
        match verb(start..middle).await {
            Ok(found) => {
                portion.fits(count, started.elapsed());
                too_slow_alone = 0;
                for (answer, found) in answers[start..middle].iter_mut().zip(found) {
                    *answer = Some(Ok(found));
                }
            }
            Err(error) => {
                if matches!(error, StoreError::Timeout(_)) {
                    portion.too_much(count);
                    too_slow_alone += usize::from(count == 1);
                }
                let error = if too_slow_alone > TOO_SLOW_ALONE { nothing_in_time(&error) } else { error };
                if !error.may_be_one() {
                    return answers
                        .into_iter()
                        .map(|answer| answer.unwrap_or_else(|| Err(error.clone())))
                        .collect();
                }
                if count > 1 {
                    let half = start + count.div_ceil(2);
                    parts.extend([start..half, half..middle]);
                } else {
                    answers[start] = Some(Err(error));
                }
            }
        }
    }
    let unanswered = || Err(StoreError::Failed("nothing was answered for it".to_owned()));
    answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
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

    /// Each that can't go costs two calls at most, and whoever can go does before the last of them is found.
    #[tokio::test]
    async fn many_that_are_refused_keep_nobody_waiting() {
        let item = |n| if n < 500 { Item::Refused } else { Item::Good(n) };
        let items: Vec<Item> = (0..1_000).map(item).collect();
        let (mut calls, mut gone) = (0, None);
        let answers = in_portions(&Portion::new(1_000), items.len(), |part| {
            calls += 1;
            if part.contains(&999) && fate(&items[part.clone()]).is_ok() {
                gone = Some(calls);
            }
            ready(fate(&items[part]))
        })
        .await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 500);
        assert!(calls <= 1_001, "{calls} calls for 500");
        assert_eq!(gone, Some(3), "the good half has gone before the other is taken apart");
    }

    /// Where one commit takes longer than calls should, a single stall makes no set small for ever.
    #[test]
    fn what_is_in_time_lets_a_set_grow_again() {
        let limit = Duration::from_millis(250);
        let portion = Portion::given_up_after(1_000, limit);
        portion.too_much(3);
        // Longer than the limit, which grows where everything is slow.
        let just = QUICK.checked_sub(Duration::from_millis(1)).expect("longer");
        let mut calls = 0;
        while portion.size() < 1_000 {
            portion.fits(portion.size(), just);
            calls += 1;
            assert!(calls < 100, "it is {} still", portion.size());
        }
        portion.too_much(1_000);
        portion.fits(500, QUICK);
        assert_eq!(portion.size(), 500, "what was too late is no evidence");
    }

    #[test]
    fn only_a_full_call_is_evidence_that_more_would_fit() {
        let portion = Portion::new(1_000);
        portion.too_much(1_000);
        (0..100).for_each(|_| portion.fits(499, Duration::ZERO));
        assert_eq!(portion.size(), 500);
        portion.fits(500, QUICK);
        assert_eq!(portion.size(), 500, "it was full, and slow");
        portion.fits(500, QUICK / 2);
        assert_eq!(portion.size(), 1_000);
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
