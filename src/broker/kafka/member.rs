//! How a member of the consumer group stands: which partitions it has lost, whether it is still a member,
//! and how far it is behind.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext, Rebalance},
    error::KafkaError,
    statistics::Broker,
    topic_partition_list::TopicPartitionListElem,
};
use tokio::time::Instant;

use super::Context;
use crate::telemetry::{health::Health, metrics::Metrics};

/// A group may take so long to settle before that is worth a word: replicas come and go.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// How long a client that has failed may go on.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// Shared by the consumer and its client's callbacks.
#[derive(Clone)]
pub(super) struct MemberContext {
    pub(super) context: Context,
    metrics: Arc<Metrics>,
    standing: Arc<Mutex<Membership>>,
    /// Whether nothing is taken from some partition: then its end is not known either.
    held_back: Arc<AtomicBool>,
}

/// What was last seen of the membership.
struct Membership {
    assigned: BTreeSet<i32>,
    lost: BTreeSet<i32>,
    /// The last time when it was seen to be a member.
    member_at: Option<Instant>,
    began_at: Instant,
    /// The group's state as the client names it.
    state: String,
    error: Option<String>,
    /// When that error came; `None` if it has not come again since this client began or joined.
    failed_at: Option<Instant>,
}

impl MemberContext {
    pub(super) fn new(context: Context, metrics: Arc<Metrics>) -> Self {
        let standing = Membership {
            assigned: BTreeSet::new(),
            lost: BTreeSet::new(),
            member_at: None,
            began_at: Instant::now(),
            state: "init".to_owned(),
            error: None,
            failed_at: None,
        };
        Self { context, metrics, standing: Arc::new(Mutex::new(standing)), held_back: Arc::default() }
    }

    /// For the client that comes after this one. The old one may still be told of partitions that it loses.
    pub(super) fn renewed(&self) -> Self {
        let renewed = Self::new(self.context.clone(), Arc::clone(&self.metrics));
        {
            let (mut old, mut new) = (self.standing(), renewed.standing());
            new.lost = &old.lost | &old.assigned;
            new.error = old.error.take();
        }
        renewed
    }

    fn standing(&self) -> MutexGuard<'_, Membership> {
        self.standing.lock().expect("no holder panics")
    }

    /// Partitions lost since the last call.
    pub(super) fn lost(&self) -> BTreeSet<i32> {
        std::mem::take(&mut self.standing().lost)
    }

    /// Nothing is taken from these partitions.
    pub(super) fn holds_back(&self, partitions: &BTreeSet<i32>) {
        self.held_back.store(!partitions.is_empty(), Ordering::Relaxed);
        if !partitions.is_empty() {
            self.metrics.lag(None);
        }
    }

    /// The consumer can't read, and why.
    pub(super) fn failed(&self, error: String) {
        let mut standing = self.standing();
        (standing.error, standing.failed_at) = (Some(error), Some(Instant::now()));
    }

    /// A message has come, so it can read.
    pub(super) fn reads(&self) {
        let mut standing = self.standing();
        (standing.error, standing.failed_at) = (None, None);
        standing.member_at = Some(Instant::now());
    }

    /// Whether the client has failed so long ago that a new one should ask: it tells an error once and not
    /// when that is over.
    pub(super) fn is_worn_out(&self) -> bool {
        self.standing().failed_at.is_some_and(|at| at.elapsed() > ASK_AGAIN)
    }

    /// Whether it is a member of `group`.
    pub(super) fn health(&self, group: &str) -> Health {
        let standing = self.standing();
        if let Some(error) = &standing.error {
            return Health::Down(error.clone());
        }
        let since = standing.member_at.unwrap_or(standing.began_at);
        if since.elapsed() > SETTLES_WITHIN {
            let state = &standing.state;
            return Health::Down(format!(
                "this replica is no member of the consumer group {group} (KAFKA_GROUP; its state is {state})"
            ));
        }
        if standing.member_at.is_some() { Health::Up } else { Health::Unknown }
    }
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(group) = &statistics.cgrp {
            let mut standing = self.standing();
            standing.state = format!("{}, {}", group.state, group.join_state);
            if group.state == "up" && group.join_state == "steady" {
                standing.member_at = Some(Instant::now());
                if standing.failed_at.is_none() {
                    standing.error = None;
                }
            }
        }
        if !self.held_back.load(Ordering::Relaxed) {
            self.metrics.lag(lag(&statistics, &self.standing().assigned));
        }
    }
}

/// How many messages of these partitions wait; `None` where the client can't know.
fn lag(statistics: &Statistics, assigned: &BTreeSet<i32>) -> Option<u64> {
    let is_up = |broker: &Broker| broker.state == "UP";
    let member = statistics.cgrp.as_ref().is_some_and(|group| group.join_state == "steady");
    if !member || !statistics.brokers.values().any(is_up) {
        return None;
    }
    let partition_lag = |partition: &i32| {
        let partition = statistics.topics.values().find_map(|topic| topic.partitions.get(partition))?;
        // Its end stays as it was while the broker that it is read from is away.
        let read_from = |broker: &&Broker| broker.nodeid == partition.broker && is_up(broker);
        statistics.brokers.values().find(read_from)?;
        let known = u64::try_from(partition.consumer_lag).ok();
        // Not known is it also where nothing was committed yet: then all that is there waits.
        known.or_else(|| {
            let (begin, end) = (partition.lo_offset, partition.hi_offset);
            (begin >= 0).then(|| u64::try_from(end - begin).ok()).flatten()
        })
    };
    assigned.iter().map(partition_lag).sum()
}

impl ConsumerContext for MemberContext {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let mut standing = self.standing();
            for element in partitions.elements() {
                standing.assigned.remove(&element.partition());
                standing.lost.insert(element.partition());
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Also with no partition at all: there may be more members than partitions.
        if let Rebalance::Assign(partitions) = rebalance {
            let mut standing = self.standing();
            standing.assigned.extend(partitions.elements().iter().map(TopicPartitionListElem::partition));
            (standing.member_at, standing.failed_at) = (Some(Instant::now()), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::{ConsumerGroup, Partition, Topic};

    use super::*;

    /// Two partitions of ours that are read from broker 1, and one of somebody else.
    fn well() -> Statistics {
        let partition = |partition, broker, consumer_lag| Partition {
            partition,
            broker,
            consumer_lag,
            committed_offset: 5,
            hi_offset: 5 + consumer_lag,
            ..Partition::default()
        };
        let unknown =
            Partition { hi_offset: -1001, committed_offset: -1001, lo_offset: -1001, ..partition(7, -1, -1) };
        let partitions = [partition(0, 1, 2), partition(1, 1, 3), unknown];
        let partitions = partitions.into_iter().map(|partition| (partition.partition, partition)).collect();
        let broker = |nodeid, state: &str| Broker { nodeid, state: state.to_owned(), ..Broker::default() };
        let group = ConsumerGroup {
            state: "up".to_owned(),
            join_state: "steady".to_owned(),
            ..ConsumerGroup::default()
        };
        Statistics {
            brokers: [("one".to_owned(), broker(1, "UP")), ("two".to_owned(), broker(2, "DOWN"))].into(),
            topics: [("orders.v1".to_owned(), Topic { partitions, ..Topic::default() })].into(),
            cgrp: Some(group),
            ..Statistics::default()
        }
    }

    fn member() -> (MemberContext, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let member = MemberContext::new(Context::default(), Arc::clone(&metrics));
        member.standing().assigned.extend([0, 1]);
        (member, metrics)
    }

    /// The gauge after these statistics, which come after good ones.
    fn told(change: impl FnOnce(&mut Statistics)) -> String {
        let (member, metrics) = member();
        member.stats(well());
        let mut statistics = well();
        change(&mut statistics);
        member.stats(statistics);
        gauge(&metrics)
    }

    fn gauge(metrics: &Metrics) -> String {
        let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
        let lag = text.lines().find_map(|line| line.strip_prefix("consumer_lag "));
        lag.expect("a gauge").to_owned()
    }

    fn of(statistics: &mut Statistics, partition: i32) -> &mut Partition {
        let topic = statistics.topics.get_mut("orders.v1").expect("a topic");
        topic.partitions.get_mut(&partition).expect("a partition")
    }

    /// Promise 6: it says what is wrong. What nobody knows is not 0, nor what it was.
    #[test]
    fn how_far_behind_is_told_only_where_it_is_known() {
        let group = |statistics: &mut Statistics, state: &str| {
            statistics.cgrp.as_mut().expect("a group").join_state = state.to_owned();
        };
        assert_eq!(told(|_| {}), "5");
        assert_eq!(told(|statistics| group(statistics, "wait-join")), "NaN");
        assert_eq!(told(|statistics| statistics.cgrp = None), "NaN");
        assert_eq!(told(|statistics| statistics.topics.clear()), "NaN", "assigned and not known");
        let unread = |statistics: &mut Statistics| of(statistics, 1).clone_from(&of(&mut well(), 7).clone());
        assert_eq!(told(unread), "NaN", "one of two");
        assert_eq!(told(|statistics| of(statistics, 1).broker = 2), "NaN", "its end stays as it was");
        let away = |statistics: &mut Statistics| {
            statistics.brokers.values_mut().for_each(|broker| broker.state = "TRY_CONNECT".to_owned());
        };
        assert_eq!(told(away), "NaN");
        let new = |statistics: &mut Statistics| {
            let lag = Partition {
                lo_offset: 3,
                committed_offset: -1001,
                consumer_lag: -1,
                hi_offset: 7,
                ..of(statistics, 1).clone()
            };
            of(statistics, 1).clone_from(&lag);
        };
        assert_eq!(told(new), "6", "nothing was committed yet, so all of it waits");
    }

    /// There may be more members than partitions.
    #[test]
    fn a_member_without_partitions_is_not_behind() {
        let (member, metrics) = member();
        member.standing().assigned.clear();
        member.stats(well());
        assert_eq!(gauge(&metrics), "0");
    }
}
