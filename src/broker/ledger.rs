//! Keeps count of the dead letters, from what is new on their topic.
//!
//! Invariant: at most [`MOST`] messages are asked for at once and as many letters are kept, however
//! many lie there. Where that is not all, [`Waiting::more`] says so.

use std::collections::{BTreeMap, HashSet};

use tokio::time::Instant;

use super::{Letter, Stretch};
use crate::{
    letters::{Glimpse, OTHER, Waiting, reasons},
    order::Timestamp,
};

/// Most messages read at once, and most letters kept.
const MOST: usize = 20_000;
/// How many letters are shown.
const SHOWN: usize = 3;

/// Partition and offset.
type Place = (i32, i64);

/// What is to be known of a message on the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A letter.
    Letter { written: Timestamp, place: Place, reason: &'static str },
    /// A note that the letter at this place was put back.
    PutBack(Place),
}

impl Entry {
    /// Reads a message; `None` for a note that leads nowhere.
    pub(super) fn of(letter: &Letter) -> Option<Self> {
        if let Some(place) = letter.notes_requeue_of() {
            let (partition, offset) = place.split_once(':')?;
            return Some(Self::PutBack((partition.parse().ok()?, offset.parse().ok()?)));
        }
        let told = letter.header("dlq_reason");
        Some(Self::Letter {
            written: letter.written,
            place: (letter.record.partition, letter.record.offset),
            reason: reasons().find(|reason| told == Some(*reason)).unwrap_or(OTHER),
        })
    }
}

/// A letter that waits.
#[derive(Debug)]
struct Kept {
    written: Timestamp,
    place: Place,
    reason: &'static str,
}

/// How far a partition was read.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Every letter from here on is counted.
    from: i64,
    /// Where to read on.
    next: i64,
    /// Where the topic begins.
    low: i64,
}

/// The letters that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    kept: Vec<Kept>,
    partitions: BTreeMap<i32, Progress>,
    /// What the last reading's notes speak of: a note in one partition may be read before its letter in
    /// another, and then the letter comes with the next reading.
    put_back: HashSet<Place>,
}

impl Ledger {
    /// Given where each partition begins and ends now, what is to be read. Forgets what is gone.
    pub(super) fn unread(&mut self, extent: &[Stretch]) -> Vec<Stretch> {
        self.partitions.retain(|partition, _| extent.iter().any(|now| now.partition == *partition));
        for now in extent {
            let unknown = Progress { from: now.from, next: now.from, low: now.from };
            let known = self.partitions.entry(now.partition).or_insert(unknown);
            // A log that ends before what was read of it has begun anew.
            if now.to < known.next {
                *known = unknown;
            }
            known.low = now.from;
            known.next = known.next.max(now.from);
        }
        let partitions = &self.partitions;
        self.kept.retain(|Kept { place: (partition, offset), .. }| {
            partitions.get(partition).is_some_and(|known| (known.low..known.next).contains(offset))
        });
        self.within_bounds(extent)
    }

    /// The unread parts, the newest of each if all would be too much.
    fn within_bounds(&mut self, extent: &[Stretch]) -> Vec<Stretch> {
        let mut unread: Vec<Stretch> = extent.to_vec();
        for stretch in &mut unread {
            stretch.from = self.partitions[&stretch.partition].next;
        }
        unread.retain(|stretch| stretch.from < stretch.to);
        let most = i64::try_from(MOST).unwrap_or(i64::MAX);
        if unread.iter().map(|stretch| stretch.to - stretch.from).sum::<i64>() > most {
            let share = most / i64::try_from(unread.len()).unwrap_or(most);
            for stretch in &mut unread {
                stretch.from = stretch.from.max(stretch.to - share);
            }
        }
        unread
    }

    /// Takes in what was read of these stretches.
    pub(super) fn enter(&mut self, read: &[Stretch], entries: Vec<Entry>) {
        for stretch in read {
            let Some(progress) = self.partitions.get_mut(&stretch.partition) else { continue };
            if progress.next < stretch.from {
                progress.from = stretch.from;
            }
            progress.next = stretch.to;
        }
        let mut notes = HashSet::new();
        for entry in entries {
            match entry {
                Entry::Letter { written, place, reason } => self.kept.push(Kept { written, place, reason }),
                Entry::PutBack(place) => drop(notes.insert(place)),
            }
        }
        let before = std::mem::replace(&mut self.put_back, notes);
        let put_back = &self.put_back;
        self.kept.retain(|letter| !put_back.contains(&letter.place) && !before.contains(&letter.place));
        self.kept.sort_by_key(|letter| (letter.written, letter.place));
        let excess = self.kept.len().saturating_sub(MOST);
        for letter in self.kept.drain(..excess) {
            if let Some(progress) = self.partitions.get_mut(&letter.place.0) {
                progress.from = progress.from.max(letter.place.1 + 1);
            }
        }
    }

    /// What waits now.
    pub(super) fn waiting(&self) -> Waiting {
        let mut by_reason = BTreeMap::new();
        for letter in &self.kept {
            *by_reason.entry(letter.reason).or_default() += 1;
        }
        let glimpse = |letter: &Kept| Glimpse {
            place: format!("{}:{}", letter.place.0, letter.place.1),
            reason: letter.reason,
            written: letter.written,
        };
        Waiting {
            by_reason,
            more: self.partitions.values().any(|progress| progress.low < progress.from),
            newest: self.kept.iter().rev().take(SHOWN).map(glimpse).collect(),
            at: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::broker::Record;

    /// A topic that is read by ledgers; what a message says does not matter here.
    #[derive(Default)]
    struct Topic {
        low: BTreeMap<i32, i64>,
        messages: BTreeMap<Place, Entry>,
        written: i64,
        /// How many messages were read.
        read: usize,
    }

    impl Topic {
        fn extent(&self) -> Vec<Stretch> {
            let end = |partition: i32| {
                let mut all = self.messages.range((partition, 0)..(partition + 1, 0));
                all.next_back().map(|(place, _)| place.1 + 1)
            };
            let stretch = |partition| {
                let from = self.low.get(&partition).copied().unwrap_or_default();
                Stretch { partition, from, to: end(partition).unwrap_or(from) }
            };
            [0, 1].map(stretch).to_vec()
        }

        fn put(&mut self, partition: i32, entry: impl FnOnce(Timestamp, Place) -> Entry) -> Place {
            let place = (partition, self.extent()[usize::try_from(partition).expect("0 or 1")].to);
            self.written += 1;
            let written = DateTime::from_timestamp_millis(self.written).expect("a moment");
            self.messages.insert(place, entry(written, place));
            place
        }

        fn letter(&mut self, partition: i32, reason: &'static str) -> Place {
            self.put(partition, |written, place| Entry::Letter { written, place, reason })
        }

        fn note(&mut self, partition: i32, of: Place) {
            self.put(partition, |_, _| Entry::PutBack(of));
        }

        /// What retention does.
        fn forget(&mut self, partition: i32, before: i64) {
            self.low.insert(partition, before);
            self.messages.retain(|place, _| place.0 != partition || place.1 >= before);
        }

        fn look(&mut self, ledger: &mut Ledger) -> Waiting {
            self.look_at(&self.extent(), ledger)
        }

        fn look_at(&mut self, extent: &[Stretch], ledger: &mut Ledger) -> Waiting {
            let unread = ledger.unread(extent);
            let parts = unread
                .iter()
                .flat_map(|part| self.messages.range((part.partition, part.from)..(part.partition, part.to)));
            let entries: Vec<Entry> = parts.map(|(_, entry)| entry.clone()).collect();
            self.read += entries.len();
            ledger.enter(&unread, entries);
            ledger.waiting()
        }
    }

    fn told(waiting: &Waiting) -> Vec<(&'static str, u64)> {
        waiting.by_reason.iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    #[test]
    fn what_was_put_back_does_not_wait_whoever_reads() {
        let (mut topic, mut old) = (Topic::default(), Ledger::default());
        let first = topic.letter(0, "not_json");
        topic.letter(0, "no_key");
        let last = topic.letter(1, "not_json");
        let waiting = topic.look(&mut old);
        assert_eq!((told(&waiting), waiting.more), (vec![("no_key", 1), ("not_json", 2)], false));
        let places = waiting.newest.iter().map(|letter| letter.place.as_str());
        assert_eq!(places.collect::<Vec<_>>(), ["1:0", "0:1", "0:0"], "the newest first");

        topic.note(0, first);
        // Twice changes nothing, nor does a note of what is not there.
        topic.note(1, first);
        topic.note(1, (7, 7));
        assert_eq!(told(&topic.look(&mut old)), [("no_key", 1), ("not_json", 1)]);
        topic.note(1, last);
        let (old, new) = (topic.look(&mut old), topic.look(&mut Ledger::default()));
        assert_eq!((told(&old), old.newest), (told(&new), new.newest));
    }

    #[test]
    fn only_what_is_new_is_read() {
        let (mut topic, mut ledger) = (Topic::default(), Ledger::default());
        for _ in 0..100 {
            topic.letter(0, "not_json");
        }
        topic.look(&mut ledger);
        topic.letter(1, "not_json");
        assert_eq!((topic.look(&mut ledger).total(), topic.read), (101, 101));
        topic.look(&mut ledger);
        assert_eq!(topic.read, 101);
    }

    /// The ends of partitions are asked for one after the other; a letter and its note may come between.
    #[test]
    fn a_note_may_be_read_before_its_letter() {
        let (mut topic, mut ledger) = (Topic::default(), Ledger::default());
        let before = topic.extent()[0];
        let letter = topic.letter(0, "not_json");
        topic.note(1, letter);
        let after = topic.extent()[1];
        assert_eq!(topic.look_at(&[before, after], &mut ledger).total(), 0);
        assert_eq!(topic.look(&mut ledger).total(), 0);
    }

    #[test]
    fn what_retention_deletes_waits_no_longer() {
        let (mut topic, mut ledger) = (Topic::default(), Ledger::default());
        let gone = topic.letter(0, "no_key");
        topic.letter(0, "not_json");
        assert_eq!(topic.look(&mut ledger).total(), 2);
        topic.forget(0, 1);
        assert_eq!(told(&topic.look(&mut ledger)), [("not_json", 1)]);
        topic.note(0, gone);
        for mut ledger in [ledger, Ledger::default()] {
            let waiting = topic.look(&mut ledger);
            assert_eq!((told(&waiting), waiting.more), (vec![("not_json", 1)], false));
        }
    }

    #[test]
    fn a_topic_that_begins_anew_is_read_anew() {
        let (mut topic, mut ledger) = (Topic::default(), Ledger::default());
        topic.letter(0, "no_key");
        topic.letter(0, "no_key");
        topic.letter(1, "no_key");
        topic.look(&mut ledger);
        let mut topic = Topic::default();
        topic.letter(0, "not_json");
        assert_eq!(told(&topic.look(&mut ledger)), [("not_json", 1)]);
    }

    /// Promise 5: memory, queues and time are bounded.
    #[test]
    fn of_very_many_letters_the_newest_are_counted() {
        let (mut topic, mut ledger) = (Topic::default(), Ledger::default());
        for _ in 0..MOST + 10 {
            topic.letter(0, "no_key");
        }
        let waiting = topic.look(&mut ledger);
        assert_eq!((waiting.total(), waiting.more, topic.read), (MOST as u64, true, MOST));
        // Kept in mind are only so many, too.
        topic.letter(1, "not_json");
        let waiting = topic.look(&mut ledger);
        assert_eq!(told(&waiting), [("no_key", MOST as u64 - 1), ("not_json", 1)]);
        // Retention takes what was not counted, and then all is.
        topic.forget(0, 11);
        assert!(!topic.look(&mut ledger).more);
    }

    #[test]
    fn a_message_is_a_letter_or_a_note() {
        let message = |header: (&str, &str)| {
            let record = Record { topic: "dlq".to_owned(), partition: 2, offset: 17, ..Record::default() };
            let headers = vec![(header.0.to_owned(), header.1.to_owned())];
            Entry::of(&Letter { record, headers, written: Timestamp::default() })
        };
        let letter = |reason| Entry::Letter { written: Timestamp::default(), place: (2, 17), reason };
        assert_eq!(message(("dlq_reason", "no_key")), Some(letter("no_key")));
        assert_eq!(message(("dlq_reason", "bad mood")), Some(letter(OTHER)));
        assert_eq!(message(("x", "y")), Some(letter(OTHER)));
        assert_eq!(message(("dlq_requeued", "3:4")), Some(Entry::PutBack((3, 4))));
        assert_eq!(message(("dlq_requeued", "there")), None);
    }
}
