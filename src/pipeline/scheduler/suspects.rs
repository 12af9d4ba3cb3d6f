//! Members of sets that failed, in parts: one that fails is taken apart until whoever can't go is alone.
//!
//! Those that came first are next, and each failure sets a part behind those that come later: who comes fresh from a set
//! does not wait until all that is bad has been found, however much of it there is. One alone that had too little time
//! has more when all others have been tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::order::OrderId;

/// Most that are remembered.
const MOST: usize = 2_000;
/// How long those are left alone that another replica was trying.
const LEFT_FOR: Duration = Duration::from_millis(100);

/// Into how many parts one that failed is taken apart. One that can go takes a fraction of the time of one that can't,
/// so there are more of them than two.
const PARTS: usize = 8;
/// How far a failure sets a part behind.
const BEHIND: Duration = Duration::from_millis(200);

/// Some of those that failed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub orders: Vec<OrderId>,
    /// What the caller knew when they failed first.
    pub since: u64,
    /// Those with earlier turns come first, second chances after all others.
    turn: Instant,
    is_second_chance: bool,
}

impl Part {
    /// Whether it is one order that had too little time before.
    pub(super) fn is_second_chance(&self) -> bool {
        self.is_second_chance
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    members: BTreeSet<OrderId>,
    parts: BTreeMap<(bool, Instant, u64), Part>,
    parts_made: u64,
    /// Those that another replica was trying.
    left_to_others: Vec<OrderId>,
    /// Until when, and what the caller knew when the last of them was met.
    left_until: Option<(Instant, u64)>,
}

impl Suspects {
    /// A set of these has failed; those that there is no room for are met again where they were met.
    pub(super) fn add(&mut self, orders: impl IntoIterator<Item = OrderId>, since: u64) {
        let room = self.room();
        let orders: Vec<OrderId> = orders.into_iter().filter(|id| !self.knows(*id)).take(room).collect();
        self.members.extend(&orders);
        self.take_apart(&Part { orders, since, turn: Instant::now(), is_second_chance: false });
    }

    /// The part that is to be tried next, as far as its members are suspects still. Whoever takes it forgets each or
    /// hands it back.
    pub(super) fn next(&mut self) -> Option<Part> {
        self.take_back();
        loop {
            let (_, mut part) = self.parts.pop_first()?;
            part.orders.retain(|order_id| self.members.contains(order_id));
            if !part.orders.is_empty() {
                return Some(part);
            }
        }
    }

    /// One of these is at fault.
    pub(super) fn take_apart(&mut self, part: &Part) {
        let (turn, size) = (part.turn + BEHIND, part.orders.len().div_ceil(PARTS).max(1));
        for orders in part.orders.chunks(size) {
            self.put(Part { orders: orders.to_vec(), turn, ..*part });
        }
    }

    /// The one order of this part is tried once more, when all others have been tried, and has more time then.
    pub(super) fn second_chance(&mut self, part: Part) {
        self.put(Part { is_second_chance: true, ..part });
    }

    /// This part was not tried.
    pub(super) fn put(&mut self, part: Part) {
        self.parts_made += 1;
        self.parts.insert((part.is_second_chance, part.turn, self.parts_made), part);
    }

    /// This part was tried in vain, by no fault of its own: all others are tried before it is again.
    pub(super) fn put_last(&mut self, part: Part) {
        self.put(Part { turn: Instant::now(), ..part });
    }

    /// Another replica is trying this one.
    pub(super) fn leave_to_other(&mut self, order_id: OrderId, since: u64) {
        if self.knows(order_id) {
            self.left_to_others.push(order_id);
            self.left_until.get_or_insert_with(|| (Instant::now() + LEFT_FOR, since)).1 = since;
        }
    }

    fn take_back(&mut self) {
        if let Some((_, since)) = self.left_until.take_if(|(until, _)| *until <= Instant::now()) {
            let orders = std::mem::take(&mut self.left_to_others);
            self.put(Part { orders, since, turn: Instant::now(), is_second_chance: false });
        }
    }

    /// This one has gone, or failed alone.
    pub(super) fn forget(&mut self, order_id: OrderId) {
        self.members.remove(&order_id);
    }

    pub(super) fn knows(&self, order_id: OrderId) -> bool {
        self.members.contains(&order_id)
    }

    pub(super) fn room(&self) -> usize {
        MOST.saturating_sub(self.members.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether there is a part to be tried at once.
    pub(super) fn has_next(&self) -> bool {
        !self.parts.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = OrderId> {
        self.members.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::order::IdMint;

    fn ids(count: usize) -> Vec<OrderId> {
        let mut mint = IdMint::default();
        (0..count as u64).map(|n| mint.mint(n, 7)).collect()
    }

    fn next(suspects: &mut Suspects) -> Part {
        suspects.next().expect("one waits")
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_sets_behind_who_comes_later_and_a_second_chance_is_last() {
        let (mut suspects, ids) = (Suspects::default(), ids(30));
        suspects.add(ids[..16].to_vec(), 1);
        let first = next(&mut suspects);
        assert_eq!((&first.orders[..], first.since), (&ids[..2], 1), "the whole of them has failed just now");
        suspects.take_apart(&first);
        suspects.forget(ids[3]);
        assert_eq!(next(&mut suspects).orders, ids[2..3]);
        (0..6).for_each(|_| drop(next(&mut suspects)));
        // They come later, and fresh from a set.
        advance(BEHIND / 2).await;
        suspects.add([ids[16]], 2);
        assert_eq!(next(&mut suspects).orders, ids[16..17]);
        advance(BEHIND).await;
        suspects.add([ids[17]], 3);
        let alone = next(&mut suspects);
        assert_eq!(alone.orders, ids[..1], "it has waited");
        suspects.second_chance(alone);
        assert_eq!(next(&mut suspects).orders, ids[1..2]);
        assert_eq!(next(&mut suspects).orders, ids[17..18]);
        let last = next(&mut suspects);
        assert!(last.is_second_chance() && last.orders == ids[..1]);
        assert_eq!(suspects.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_replica_tries_is_left_alone_for_a_moment() {
        let (mut suspects, ids) = (Suspects::default(), ids(2));
        suspects.add(ids.clone(), 0);
        let parts = [next(&mut suspects), next(&mut suspects)];
        parts.into_iter().flat_map(|part| part.orders).for_each(|id| suspects.leave_to_other(id, 1));
        assert_eq!(suspects.next(), None);
        advance(LEFT_FOR).await;
        assert_eq!(next(&mut suspects).orders, ids);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut suspects, ids) = (Suspects::default(), ids(MOST + 10));
        suspects.add(ids.clone(), 0);
        assert_eq!((suspects.ids().count(), suspects.room()), (MOST, 0));
        suspects.add(ids[MOST..].to_vec(), 0);
        assert!(!suspects.knows(ids[MOST]));
    }
}
