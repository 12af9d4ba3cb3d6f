//! What was handed to the broker's client and is not answered yet, by partition.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{broker::Partitions, order::OrderId, telemetry::metrics::Metrics};

/// How long a partition that holds orders may answer nothing.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Longer between two looks means that this process stood still, not the partitions.
const STOOD_STILL: Duration = Duration::from_secs(3);
/// How many partitions are named in one go.
const NAMED: usize = 10;

/// Orders in flight, and those that will be once they are claimed.
#[derive(Debug, Default)]
pub(super) struct Flight {
    orders: HashMap<OrderId, Option<i32>>,
    reserved: HashMap<OrderId, Option<i32>>,
    /// By partition; under `None` those whose partition nobody knows.
    loads: HashMap<Option<i32>, Load>,
    away: Away,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Load {
    orders: usize,
    reserved: usize,
    /// The last answer, or the first of these orders.
    since: Instant,
}

impl Flight {
    /// How many there are, reserved places included.
    pub(super) fn len(&self) -> usize {
        self.orders.len() + self.reserved.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = OrderId> {
        self.orders.keys().chain(self.reserved.keys()).copied()
    }

    /// Whether a partition may take one more order while so many more may be in flight in all. It never
    /// may have more than that itself: so, however many partitions are away, there is room for the others.
    pub(super) fn may_take(&self, partition: Option<i32>, room: usize) -> bool {
        let load = self.loads.get(&partition).map_or(0, |load| load.orders + load.reserved);
        load < room && !partition.is_some_and(|partition| self.away.reasons.contains_key(&partition))
    }

    fn load(&mut self, partition: Option<i32>) -> &mut Load {
        let fresh = || Load { orders: 0, reserved: 0, since: Instant::now() };
        self.loads.entry(partition).or_insert_with(fresh)
    }

    /// Keeps a place for an order.
    pub(super) fn reserve(&mut self, order_id: OrderId, partition: Option<i32>) {
        if self.reserved.insert(order_id, partition).is_none() {
            self.load(partition).reserved += 1;
        }
    }

    /// Gives a reserved place up.
    pub(super) fn give_up(&mut self, order_id: OrderId) {
        if let Some(partition) = self.reserved.remove(&order_id) {
            let load = self.load(partition);
            load.reserved = load.reserved.saturating_sub(1);
        }
    }

    /// An order was handed over.
    pub(super) fn add(&mut self, order_id: OrderId, partition: Option<i32>) {
        if self.orders.insert(order_id, partition).is_none() {
            let load = self.load(partition);
            if load.orders == 0 {
                load.since = Instant::now();
            }
            load.orders += 1;
        }
    }

    /// An order was answered.
    pub(super) fn remove(&mut self, order_id: OrderId) {
        if let Some(partition) = self.orders.remove(&order_id) {
            let load = self.load(partition);
            load.orders = load.orders.saturating_sub(1);
            load.since = Instant::now();
        }
    }

    /// Notes which partitions are away and says so once.
    pub(super) fn look(&mut self, partitions: &Partitions, metrics: &Metrics) {
        let now = Instant::now();
        let stood_still = self.looked.replace(now).is_some_and(|last| now - last > STOOD_STILL);
        if stood_still || !partitions.reachable {
            self.loads.values_mut().for_each(|load| load.since = now);
        }
        // That all are away is the broker watch's to say.
        if !partitions.reachable {
            return;
        }
        let silent = |partition: i32| {
            let load = self.loads.get(&Some(partition))?;
            (load.orders > 0 && now - load.since > SILENT_AFTER).then_some(Why::Silent)
        };
        let why = |partition: i32| {
            let leaderless = partitions.leaderless.contains(&partition).then_some(Why::NoLeader);
            Some((partition, leaderless.or_else(|| silent(partition))?))
        };
        let reasons: BTreeMap<i32, Why> = (0..partitions.count).filter_map(why).collect();
        if partitions.count > 0 {
            metrics.partitions(partitions.count);
        }
        for partition in 0..partitions.count {
            metrics.partition_unavailable(partition, reasons.contains_key(&partition));
        }
        self.away.update(&partitions.topic, reasons);
    }

    /// Which partitions are away and why, in words; nothing if none is.
    pub(super) fn trouble(&self) -> Option<String> {
        self.away.told()
    }
}

/// Why a partition takes no orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    NoLeader,
    Silent,
}

impl Why {
    const ALL: [Self; 2] = [Self::NoLeader, Self::Silent];

    fn of(self, several: bool) -> &'static str {
        match (self, several) {
            (Self::NoLeader, false) => "has no leader",
            (Self::NoLeader, true) => "have no leader",
            (Self::Silent, false) => "has acknowledged nothing for five seconds",
            (Self::Silent, true) => "have acknowledged nothing for five seconds",
        }
    }
}

/// Partitions that take no orders.
#[derive(Debug, Default)]
struct Away {
    topic: String,
    reasons: BTreeMap<i32, Why>,
}

impl Away {
    fn update(&mut self, topic: &str, reasons: BTreeMap<i32, Why>) {
        if self.topic != topic {
            topic.clone_into(&mut self.topic);
        }
        let went: BTreeMap<i32, Why> = reasons
            .iter()
            .filter(|(partition, _)| !self.reasons.contains_key(*partition))
            .map(|(partition, why)| (*partition, *why))
            .collect();
        for (partition, why) in went.iter().take(NAMED) {
            warn!("partition {partition} of topic {topic} {}; its orders wait in the outbox", why.of(false));
        }
        if went.len() > NAMED {
            warn!("{} more partitions of topic {topic} are away", went.len() - NAMED);
        }
        let back: BTreeSet<i32> =
            self.reasons.keys().filter(|partition| !reasons.contains_key(*partition)).copied().collect();
        for partition in back.iter().take(NAMED) {
            info!("partition {partition} of topic {topic} is back; its orders go on");
        }
        if back.len() > NAMED {
            info!("{} more partitions of topic {topic} are back", back.len() - NAMED);
        }
        self.reasons = reasons;
    }

    fn told(&self) -> Option<String> {
        let of = |why: Why| {
            let numbers =
                || self.reasons.iter().filter(|(_, found)| **found == why).map(|(number, _)| number);
            let count = numbers().count();
            let list: Vec<String> = numbers().take(NAMED).map(i32::to_string).collect();
            let more = count.saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let several = count > 1;
            let noun = if several { "partitions" } else { "partition" };
            (count > 0).then(|| {
                format!("{noun} {}{more} of topic {} {}", list.join(", "), self.topic, why.of(several))
            })
        };
        let told: Vec<String> = Why::ALL.into_iter().filter_map(of).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::{broker::IN_FLIGHT, order::IdMint};

    fn topic(count: i32, leaderless: &[i32]) -> Partitions {
        let leaderless = leaderless.iter().copied().collect();
        Partitions { topic: "orders.v1".to_owned(), count, leaderless, reachable: true }
    }

    fn id(n: u64) -> OrderId {
        IdMint::default().mint(n, 7)
    }

    /// However many partitions answer nothing, those that do have room.
    #[tokio::test(start_paused = true)]
    async fn partitions_that_answer_nothing_leave_room_for_the_others() {
        for away in [1_i32, 5, 50] {
            let (mut flight, mut n) = (Flight::default(), 0);
            let room = |flight: &Flight| IN_FLIGHT - flight.len();
            for round in 0..IN_FLIGHT {
                let partition = Some(i32::try_from(round).expect("small") % away);
                if flight.may_take(partition, room(&flight)) {
                    flight.add(id(n), partition);
                    n += 1;
                }
            }
            let left = room(&flight);
            assert!(left >= IN_FLIGHT / usize::try_from(away + 1).expect("small"), "{away}: {left}");
            assert!(flight.may_take(Some(away), left));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_is_away_without_a_leader_or_when_it_answers_nothing_for_long() {
        let (mut flight, metrics) = (Flight::default(), Metrics::new());
        flight.add(id(1), Some(4));
        let look = async |flight: &mut Flight, topic: &Partitions| {
            for _ in 0..6 {
                advance(Duration::from_secs(1)).await;
                flight.look(topic, &metrics);
            }
            flight.trouble()
        };
        let silent = "partition 4 of topic orders.v1 has acknowledged nothing for five seconds";
        assert_eq!(look(&mut flight, &topic(6, &[])).await.as_deref(), Some(silent));
        assert!(!flight.may_take(Some(4), IN_FLIGHT) && flight.may_take(Some(3), IN_FLIGHT));
        let both = format!("partitions 1, 2 of topic orders.v1 have no leader, {silent}");
        assert_eq!(look(&mut flight, &topic(6, &[1, 2])).await, Some(both));
        flight.remove(id(1));
        assert_eq!(look(&mut flight, &topic(6, &[])).await, None);
        assert!(flight.may_take(Some(4), IN_FLIGHT));
    }

    /// A broker that is away as a whole is told by others, and a process that stood still finds its answers first.
    #[tokio::test(start_paused = true)]
    async fn a_partition_is_not_blamed_for_the_cluster_or_for_us() {
        let (mut flight, metrics) = (Flight::default(), Metrics::new());
        flight.add(id(1), Some(0));
        for reachable in [true, false, false, true] {
            advance(Duration::from_secs(2)).await;
            flight.look(&Partitions { reachable, ..topic(2, &[]) }, &metrics);
            assert_eq!(flight.trouble(), None);
        }
        advance(Duration::from_secs(30)).await;
        flight.look(&topic(2, &[]), &metrics);
        assert_eq!(flight.trouble(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn reserved_places_count_until_they_are_given_up() {
        let mut flight = Flight::default();
        (0..10).for_each(|n| flight.reserve(id(n), Some(1)));
        assert!(flight.len() == 10 && !flight.may_take(Some(1), 10) && flight.may_take(Some(1), 11));
        (0..10).for_each(|n| flight.give_up(id(n)));
        assert!(flight.is_empty() && flight.may_take(Some(1), 1));
    }
}
