//! Keeps count of the dead letters, from what is new on their topic.
//!
//! Invariant: at most [`MOST`] messages are asked for at once and as many dead letters are kept, however
//! many lie there. Where that is not all, [`DeadLetterBacklog::more`] says so.

use std::collections::{BTreeMap, HashSet};

use tokio::time::Instant;

use super::super::{DeadLetter, OffsetRange};
use crate::order::{
    Timestamp,
    dead_letter::{DeadLetterBacklog, DeadLetterRef, OTHER, reasons},
};

/// Most messages read at once, and most dead letters kept.
const MOST: usize = 20_000;
/// How many dead letters are shown.
const SHOWN: usize = 3;

/// Partition and offset.
type PartitionOffset = (i32, i64);

/// What is to be known of a message on the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A dead letter.
    DeadLetter { written: Timestamp, place: PartitionOffset, reason: &'static str },
    /// A note that the dead letter at this place was requeued.
    Requeued(PartitionOffset),
}

impl Entry {
    /// Reads a message; `None` for a note that names no message.
    pub(super) fn of(dead_letter: &DeadLetter) -> Option<Self> {
        if let Some(place) = dead_letter.notes_requeue_of() {
            let (partition, offset) = place.split_once(':')?;
            return Some(Self::Requeued((partition.parse().ok()?, offset.parse().ok()?)));
        }
        let told = dead_letter.header("dlq_reason");
        Some(Self::DeadLetter {
            written: dead_letter.written,
            place: (dead_letter.record.partition, dead_letter.record.offset),
            reason: reasons().find(|reason| told == Some(*reason)).unwrap_or(OTHER),
        })
    }
}

/// A dead letter that waits.
#[derive(Debug)]
struct Kept {
    written: Timestamp,
    place: PartitionOffset,
    reason: &'static str,
}

/// How far a partition was read.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Every dead letter from here on is counted.
    from: i64,
    /// Where to read on.
    next: i64,
    /// Where the topic begins.
    low: i64,
}

/// The dead letters that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct DeadLetterIndex {
    kept: Vec<Kept>,
    partitions: BTreeMap<i32, Progress>,
    /// What the last reading's notes speak of: a note in one partition may be read before its dead letter in
    /// another, and then the dead letter comes with the next reading.
    requeued: HashSet<PartitionOffset>,
}

impl DeadLetterIndex {
    /// Given where each partition begins and ends now, what is to be read. Forgets what is gone.
    pub(super) fn unread(&mut self, extent: &[OffsetRange]) -> Vec<OffsetRange> {
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
    fn within_bounds(&mut self, extent: &[OffsetRange]) -> Vec<OffsetRange> {
        let mut unread: Vec<OffsetRange> = extent.to_vec();
        for range in &mut unread {
            range.from = self.partitions[&range.partition].next;
        }
        unread.retain(|range| range.from < range.to);
        let most = i64::try_from(MOST).unwrap_or(i64::MAX);
        if unread.iter().map(|range| range.to - range.from).sum::<i64>() > most {
            let share = most / i64::try_from(unread.len()).unwrap_or(most);
            for range in &mut unread {
                range.from = range.from.max(range.to - share);
            }
        }
        unread
    }

    /// Takes in what was read of these ranges.
    pub(super) fn enter(&mut self, read: &[OffsetRange], entries: Vec<Entry>) {
        for range in read {
            let Some(progress) = self.partitions.get_mut(&range.partition) else { continue };
            if progress.next < range.from {
                progress.from = range.from;
            }
            progress.next = range.to;
        }
        let mut notes = HashSet::new();
        for entry in entries {
            match entry {
                Entry::DeadLetter { written, place, reason } => {
                    self.kept.push(Kept { written, place, reason });
                }
                Entry::Requeued(place) => drop(notes.insert(place)),
            }
        }
        let before = std::mem::replace(&mut self.requeued, notes);
        let requeued = &self.requeued;
        self.kept.retain(|dead_letter| {
            !requeued.contains(&dead_letter.place) && !before.contains(&dead_letter.place)
        });
        self.kept.sort_by_key(|dead_letter| (dead_letter.written, dead_letter.place));
        let excess = self.kept.len().saturating_sub(MOST);
        for dead_letter in self.kept.drain(..excess) {
            if let Some(progress) = self.partitions.get_mut(&dead_letter.place.0) {
                progress.from = progress.from.max(dead_letter.place.1 + 1);
            }
        }
    }

    /// What waits now.
    pub(super) fn waiting(&self) -> DeadLetterBacklog {
        let mut by_reason = BTreeMap::new();
        for dead_letter in &self.kept {
            *by_reason.entry(dead_letter.reason).or_default() += 1;
        }
        let reference = |dead_letter: &Kept| DeadLetterRef {
            place: format!("{}:{}", dead_letter.place.0, dead_letter.place.1),
            reason: dead_letter.reason,
            written: dead_letter.written,
        };
        DeadLetterBacklog {
            by_reason,
            more: self.partitions.values().any(|progress| progress.low < progress.from),
            newest: self.kept.iter().rev().take(SHOWN).map(reference).collect(),
            at: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::broker::Record;

    /// A topic that indexes read; what a message says does not matter here.
    #[derive(Default)]
    struct Topic {
        low: BTreeMap<i32, i64>,
        messages: BTreeMap<PartitionOffset, Entry>,
        written: i64,
        /// How many messages were read.
        read: usize,
    }

    impl Topic {
        fn extent(&self) -> Vec<OffsetRange> {
            let end = |partition: i32| {
                let mut all = self.messages.range((partition, 0)..(partition + 1, 0));
                all.next_back().map(|(place, _)| place.1 + 1)
            };
            let range = |partition| {
                let from = self.low.get(&partition).copied().unwrap_or_default();
                OffsetRange { partition, from, to: end(partition).unwrap_or(from) }
            };
            [0, 1].map(range).to_vec()
        }

        fn put(
            &mut self,
            partition: i32,
            entry: impl FnOnce(Timestamp, PartitionOffset) -> Entry,
        ) -> PartitionOffset {
            let place = (partition, self.extent()[usize::try_from(partition).expect("0 or 1")].to);
            self.written += 1;
            let written = DateTime::from_timestamp_millis(self.written).expect("a moment");
            self.messages.insert(place, entry(written, place));
            place
        }

        fn dead_letter(&mut self, partition: i32, reason: &'static str) -> PartitionOffset {
            self.put(partition, |written, place| Entry::DeadLetter { written, place, reason })
        }

        fn note(&mut self, partition: i32, of: PartitionOffset) {
            self.put(partition, |_, _| Entry::Requeued(of));
        }

        /// What retention does.
        fn forget(&mut self, partition: i32, before: i64) {
            self.low.insert(partition, before);
            self.messages.retain(|place, _| place.0 != partition || place.1 >= before);
        }

        fn look(&mut self, index: &mut DeadLetterIndex) -> DeadLetterBacklog {
            self.look_at(&self.extent(), index)
        }

        fn look_at(&mut self, extent: &[OffsetRange], index: &mut DeadLetterIndex) -> DeadLetterBacklog {
            let unread = index.unread(extent);
            let parts = unread
                .iter()
                .flat_map(|part| self.messages.range((part.partition, part.from)..(part.partition, part.to)));
            let entries: Vec<Entry> = parts.map(|(_, entry)| entry.clone()).collect();
            self.read += entries.len();
            index.enter(&unread, entries);
            index.waiting()
        }
    }

    fn told(waiting: &DeadLetterBacklog) -> Vec<(&'static str, u64)> {
        waiting.by_reason.iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    #[test]
    fn what_was_requeued_does_not_wait_whoever_reads() {
        let (mut topic, mut old) = (Topic::default(), DeadLetterIndex::default());
        let first = topic.dead_letter(0, "not_json");
        topic.dead_letter(0, "no_key");
        let last = topic.dead_letter(1, "not_json");
        let waiting = topic.look(&mut old);
        assert_eq!((told(&waiting), waiting.more), (vec![("no_key", 1), ("not_json", 2)], false));
        let places = waiting.newest.iter().map(|dead_letter| dead_letter.place.as_str());
        assert_eq!(places.collect::<Vec<_>>(), ["1:0", "0:1", "0:0"], "the newest first");

        topic.note(0, first);
        // Twice changes nothing, nor does a note of what is not there.
        topic.note(1, first);
        topic.note(1, (7, 7));
        assert_eq!(told(&topic.look(&mut old)), [("no_key", 1), ("not_json", 1)]);
        topic.note(1, last);
        let (old, new) = (topic.look(&mut old), topic.look(&mut DeadLetterIndex::default()));
        assert_eq!((told(&old), old.newest), (told(&new), new.newest));
    }

    #[test]
    fn only_what_is_new_is_read() {
        let (mut topic, mut index) = (Topic::default(), DeadLetterIndex::default());
        for _ in 0..100 {
            topic.dead_letter(0, "not_json");
        }
        topic.look(&mut index);
        topic.dead_letter(1, "not_json");
        assert_eq!((topic.look(&mut index).total(), topic.read), (101, 101));
        topic.look(&mut index);
        assert_eq!(topic.read, 101);
    }

    /// The ends of partitions are asked for one after the other; a dead letter and its note may come between.
    #[test]
    fn a_note_may_be_read_before_its_letter() {
        let (mut topic, mut index) = (Topic::default(), DeadLetterIndex::default());
        let before = topic.extent()[0];
        let dead_letter = topic.dead_letter(0, "not_json");
        topic.note(1, dead_letter);
        let after = topic.extent()[1];
        assert_eq!(topic.look_at(&[before, after], &mut index).total(), 0);
        assert_eq!(topic.look(&mut index).total(), 0);
    }

    #[test]
    fn what_retention_deletes_waits_no_longer() {
        let (mut topic, mut index) = (Topic::default(), DeadLetterIndex::default());
        let gone = topic.dead_letter(0, "no_key");
        topic.dead_letter(0, "not_json");
        assert_eq!(topic.look(&mut index).total(), 2);
        topic.forget(0, 1);
        assert_eq!(told(&topic.look(&mut index)), [("not_json", 1)]);
        topic.note(0, gone);
        for mut index in [index, DeadLetterIndex::default()] {
            let waiting = topic.look(&mut index);
            assert_eq!((told(&waiting), waiting.more), (vec![("not_json", 1)], false));
        }
    }

    #[test]
    fn a_topic_that_begins_anew_is_read_anew() {
        let (mut topic, mut index) = (Topic::default(), DeadLetterIndex::default());
        topic.dead_letter(0, "no_key");
        topic.dead_letter(0, "no_key");
        topic.dead_letter(1, "no_key");
        topic.look(&mut index);
        let mut topic = Topic::default();
        topic.dead_letter(0, "not_json");
        assert_eq!(told(&topic.look(&mut index)), [("not_json", 1)]);
    }

    /// Promise 5: memory, queues and time are bounded.
    #[test]
    fn of_very_many_letters_the_newest_are_counted() {
        let (mut topic, mut index) = (Topic::default(), DeadLetterIndex::default());
        for _ in 0..MOST + 10 {
            topic.dead_letter(0, "no_key");
        }
        let waiting = topic.look(&mut index);
        assert_eq!((waiting.total(), waiting.more, topic.read), (MOST as u64, true, MOST));
        // Kept in mind are only so many, too.
        topic.dead_letter(1, "not_json");
        let waiting = topic.look(&mut index);
        assert_eq!(told(&waiting), [("no_key", MOST as u64 - 1), ("not_json", 1)]);
        // Retention takes what was not counted, and then all is.
        topic.forget(0, 11);
        assert!(!topic.look(&mut index).more);
    }

    #[test]
    fn a_message_is_a_letter_or_a_note() {
        let message = |header: (&str, &str)| {
            let record = Record { topic: "dlq".to_owned(), partition: 2, offset: 17, ..Record::default() };
            let headers = vec![(header.0.to_owned(), header.1.to_owned())];
            Entry::of(&DeadLetter { record, headers, written: Timestamp::default() })
        };
        let dead_letter =
            |reason| Entry::DeadLetter { written: Timestamp::default(), place: (2, 17), reason };
        assert_eq!(message(("dlq_reason", "no_key")), Some(dead_letter("no_key")));
        assert_eq!(message(("dlq_reason", "bad mood")), Some(dead_letter(OTHER)));
        assert_eq!(message(("x", "y")), Some(dead_letter(OTHER)));
        assert_eq!(message(("dlq_requeued", "3:4")), Some(Entry::Requeued((3, 4))));
        assert_eq!(message(("dlq_requeued", "there")), None);
    }
}
