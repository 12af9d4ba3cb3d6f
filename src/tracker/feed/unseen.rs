//! Which events have not been seen yet: ids that were drawn and not visible when greater ones were.

use crate::{order::Cursor, store::Span};

/// Most gaps that are kept apart; of more the oldest become one, in which some events are seen again.
const MOST: usize = 256;

/// What is still to be seen.
#[derive(Debug)]
pub(super) struct Unseen {
    /// Oldest first.
    gaps: Vec<Span>,
    /// The highest that was seen.
    top: Cursor,
}

impl Unseen {
    /// Everything after this one.
    pub(super) fn after(top: Cursor) -> Self {
        Self { gaps: Vec::new(), top }
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
        if self.gaps.len() > MOST {
            let joined = self.gaps.len() - MOST + 1;
            let (after, upto) = (self.gaps[0].after, self.gaps[joined - 1].upto);
            self.gaps.splice(..joined, [Span { after, upto }]);
        }
    }

    /// Nothing new will be seen up to here.
    pub(super) fn settle(&mut self, upto: Cursor) {
        self.gaps.retain_mut(|gap| {
            gap.after = gap.after.max(upto);
            gap.after < gap.upto
        });
        self.top = self.top.max(upto);
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

    #[test]
    fn what_was_passed_over_is_looked_for_until_it_is_settled() {
        let mut unseen = Unseen::after(Cursor(10));
        assert_eq!(spans(&unseen), [(10, i64::MAX)]);
        saw(&mut unseen, &[11, 15, 16, 20]);
        assert_eq!(spans(&unseen), [(11, 14), (16, 19), (20, i64::MAX)]);
        saw(&mut unseen, &[13, 17, 19, 21]);
        assert_eq!(spans(&unseen), [(11, 12), (13, 14), (17, 18), (21, i64::MAX)]);
        saw(&mut unseen, &[14]);
        unseen.settle(Cursor(17));
        assert_eq!(spans(&unseen), [(17, 18), (21, i64::MAX)]);
        unseen.settle(Cursor(30));
        assert_eq!(spans(&unseen), [(30, i64::MAX)]);
    }

    /// Promise 5: memory, queues and time are bounded.
    #[test]
    fn many_gaps_become_one_that_holds_them() {
        let mut unseen = Unseen::after(Cursor(0));
        saw(&mut unseen, &(1..=1_000).map(|n| n * 2).collect::<Vec<_>>());
        let spans = spans(&unseen);
        assert_eq!(spans.len(), MOST + 1);
        for missing in (1..2_000).step_by(2) {
            assert!(spans.iter().any(|(after, upto)| *after < missing && missing <= *upto), "{missing}");
        }
    }
}
