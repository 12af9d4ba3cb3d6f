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
    topic_partition_list::TopicPartitionListElem,
};
use tokio::time::Instant;

use super::Context;
use crate::{health::Condition, metrics::Metrics};

/// A group may take so long to settle before that is worth a word: replicas come and go.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// How long a client that has failed may go on.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// Shared by the consumer and its client's callbacks.
#[derive(Clone)]
pub(super) struct MemberContext {
    pub(super) context: Context,
    metrics: Arc<Metrics>,
    standing: Arc<Mutex<Standing>>,
    /// Whether nothing is taken from some partition: then its end is not known either.
    held_back: Arc<AtomicBool>,
}

/// What was last seen of the membership.
struct Standing {
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
        let standing = Standing {
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

    fn standing(&self) -> MutexGuard<'_, Standing> {
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
    pub(super) fn condition(&self, group: &str) -> Condition {
        let standing = self.standing();
        if let Some(error) = &standing.error {
            return Condition::Down(error.clone());
        }
        let since = standing.member_at.unwrap_or(standing.began_at);
        if since.elapsed() > SETTLES_WITHIN {
            let state = &standing.state;
            return Condition::Down(format!(
                "this replica is no member of the consumer group {group} (KAFKA_GROUP; its state is {state})"
            ));
        }
        if standing.member_at.is_some() { Condition::Up } else { Condition::Unknown }
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
        if self.held_back.load(Ordering::Relaxed) {
            return;
        }
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        // -1 is "not known", also for partitions of others.
        let lag = partitions.filter_map(|partition| u64::try_from(partition.consumer_lag).ok()).sum();
        self.metrics.lag(Some(lag));
    }
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
