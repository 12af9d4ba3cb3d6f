//! Which events have not been seen yet: ids that were drawn and not visible when greater ones were.

use crate::{
    order::Cursor,
    store::{Horizon, Span},
};

/// Most gaps that are looked into; the oldest are left to the end of the transactions that hold them.
const MOST: usize = 256;
/// How far below the last id one looks for what was drawn and not visible when one begins.
const DRAWN: i64 = 4_096;

/// What is still to be seen.
#[derive(Debug)]
pub(super) struct Unseen {
    /// Oldest first.
    gaps: Vec<Span>,
    /// The highest that was seen.
    top: Cursor,
    /// Up to here one does not look: once it is settled everybody is to be called.
    given_up: Cursor,
}

impl Unseen {
    /// Everything near the end of what is not settled.
    pub(super) fn beyond(Horizon { settled, last, .. }: Horizon) -> Self {
        let top = Cursor(last.0 - DRAWN).max(settled);
        Self { gaps: Vec::new(), top, given_up: if top > settled { top } else { Cursor::START } }
    }

    /// Where to look: in every gap, and above the highest.
    pub(super) fn spans(&self) -> Vec<Span> {
        let above = Span { after: self.top, upto: Cursor(i64::MAX) };
        self.gaps.iter().copied().chain([above]).collect()
    }

    /// These were seen, smallest id first.
    pub(super) fn saw(&mut self, seen: impl Iterator<Item = Cursor>) {
        for id in seen {
            let before = Cursor(id.0 - 1);
            if id > self.top {
                self.gaps.extend(gap(self.top, before));
                self.top = id;
            } else if let Some(at) = self.gaps.iter().position(|gap| gap.after < id && id <= gap.upto) {
                let Span { after, upto } = self.gaps[at];
                self.gaps.splice(at..=at, gap(after, before).into_iter().chain(gap(id, upto)));
            }
        }
        let surplus = self.gaps.len().saturating_sub(MOST);
        if let Some(last) = self.gaps.drain(..surplus).next_back() {
            self.given_up = self.given_up.max(last.upto);
        }
    }

    /// Nothing new will be seen up to here. Answers whether some of it was not looked for.
    pub(super) fn settle(&mut self, upto: Cursor) -> bool {
        self.gaps.retain_mut(|gap| {
            gap.after = gap.after.max(upto);
            gap.after < gap.upto
        });
        self.top = self.top.max(upto);
        let given_up = self.given_up > Cursor::START && self.given_up <= upto;
        if given_up {
            self.given_up = Cursor::START;
        }
        given_up
    }
}

fn gap(after: Cursor, upto: Cursor) -> Option<Span> {
    (after < upto).then_some(Span { after, upto })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saw(unseen: &mut Unseen, ids: &[i64]) {
        unseen.saw(ids.iter().copied().map(Cursor));
    }

    fn spans(unseen: &Unseen) -> Vec<(i64, i64)> {
        unseen.spans().iter().map(|span| (span.after.0, span.upto.0)).collect()
    }

    fn beyond(settled: i64, last: i64) -> Unseen {
        Unseen::beyond(Horizon { settled: Cursor(settled), last: Cursor(last), ..Horizon::default() })
    }

    #[test]
    fn what_was_passed_over_is_looked_for_until_it_is_settled() {
        let mut unseen = beyond(10, 10);
        assert_eq!(spans(&unseen), [(10, i64::MAX)]);
        saw(&mut unseen, &[11, 15, 16, 20]);
        assert_eq!(spans(&unseen), [(11, 14), (16, 19), (20, i64::MAX)]);
        saw(&mut unseen, &[13, 17, 19, 21]);
        assert_eq!(spans(&unseen), [(11, 12), (13, 14), (17, 18), (21, i64::MAX)]);
        saw(&mut unseen, &[14]);
        assert!(!unseen.settle(Cursor(17)));
        assert_eq!(spans(&unseen), [(17, 18), (21, i64::MAX)]);
        assert!(!unseen.settle(Cursor(30)));
        assert_eq!(spans(&unseen), [(30, i64::MAX)]);
    }

    /// What lies too far back to be looked for is told to all when it is settled, once.
    #[test]
    fn what_is_not_looked_for_is_not_forgotten() {
        let mut unseen = beyond(10, 9_000);
        let floor = 9_000 - DRAWN;
        assert_eq!(spans(&unseen), [(floor, i64::MAX)]);
        let settled = [floor - 1, floor, floor + 1].map(|upto| unseen.settle(Cursor(upto)));
        assert_eq!(settled, [false, true, false]);
    }

    /// Promise 5: memory, queues and time are bounded.
    #[test]
    fn of_very_many_gaps_the_oldest_are_given_up() {
        let mut unseen = beyond(0, 0);
        saw(&mut unseen, &(1..=1_000).map(|n| n * 2).collect::<Vec<_>>());
        let spans = spans(&unseen);
        assert_eq!((spans.len(), spans[0]), (MOST + 1, (1_488, 1_489)));
        assert_eq!([1_486, 1_487, 2_000].map(|upto| unseen.settle(Cursor(upto))), [false, true, false]);
    }
}
