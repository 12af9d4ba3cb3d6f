//! Connections: five small pools, so that a flood of requests can't starve the loops, nor reads
//! the writers, nor a locked idempotency key those without one.
//!
//! A connection that served well rests until the next call; one that did not is dropped, and when one leads to a
//! server that is silent, only reads or has gone, so are all others. Nothing is asked of the server when one is given back, and when
//! one is taken only where this call has another limit than its last one.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout_at},
};
use tracing::warn;

use super::{
    STATEMENT_TIMEOUT, StoreError,
    preconditions::Preconditions,
    rehearsal::Kind,
    session::{Access, Purpose, WITHIN},
};

/// How long a connection is used before a new one takes its place, and how long it may rest, since what lies
/// between may forget an idle one.
const LIFETIME: Duration = Duration::from_mins(30);
const REST: Duration = Duration::from_mins(10);
/// Connections of the loops: scheduler, relay, consumer and sampler take turns.
const FOR_LOOPS: u32 = 2;
/// Each writer writes one batch at a time.
const FOR_PLACING: u32 = 1;
/// One set of reports is judged and written at a time.
const FOR_REPORTS: u32 = 1;
/// A call whose turn came late has at least so long to connect.
const LEAST: Duration = Duration::from_millis(300);
/// A server that answered so lately may be restarting: calls wait for it instead of failing at once.
const RESTART: Duration = Duration::from_secs(3);
/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(50);

/// The five pools.
pub(super) struct Pools {
    pub(super) place: Slot,
    pub(super) keyed: Slot,
    pub(super) loops: Slot,
    pub(super) read: Slot,
    pub(super) reports: Slot,
}

/// What the connections of each are for, in this order.
const PURPOSES: [Purpose; 5] =
    [Purpose::Calls, Purpose::Keys, Purpose::Calls, Purpose::Calls, Purpose::Reports];

impl Pools {
    pub(super) fn new(
        access: &Arc<Access>,
        preconditions: &Arc<Preconditions>,
        max_connections: u32,
    ) -> Self {
        let all = Arc::default();
        let slot = |at, connections: u32| Slot {
            access: Arc::clone(access),
            preconditions: Arc::clone(preconditions),
            connections,
            turns: Semaphore::new(connections as usize),
            all: Arc::clone(&all),
            at,
        };
        let taken = 2 * FOR_PLACING + FOR_LOOPS + FOR_REPORTS;
        let for_reading = max_connections.saturating_sub(taken).max(1);
        Self {
            place: slot(0, FOR_PLACING),
            keyed: slot(1, FOR_PLACING),
            loops: slot(2, FOR_LOOPS),
            read: slot(3, for_reading),
            reports: slot(4, FOR_REPORTS),
        }
    }

    /// Those on which orders of a kind are placed.
    pub(super) fn placing(&self, kind: Kind) -> &Slot {
        match kind {
            Kind::Keyed => &self.keyed,
            Kind::Keyless => &self.place,
            Kind::Reported => &self.reports,
        }
    }

    fn all(&self) -> [&Slot; 5] {
        [&self.place, &self.keyed, &self.loops, &self.read, &self.reports]
    }

    /// Discards all connections at rest.
    pub(super) fn doubt(&self) {
        self.all().into_iter().for_each(Slot::doubt);
    }

    pub(super) async fn close(&self) {
        futures::future::join_all(self.all().map(Slot::close)).await;
    }
}

/// Connections for one kind of call.
pub(super) struct Slot {
    access: Arc<Access>,
    pub(super) preconditions: Arc<Preconditions>,
    connections: u32,
    /// One for each connection: who has a turn takes one at rest, or makes one.
    turns: Semaphore,
    /// Of this kind and its neighbours.
    all: Arc<[Mutex<Current>; PURPOSES.len()]>,
    at: usize,
}

#[derive(Default)]
struct Current {
    /// Counts how often all connections were given up; one of an earlier era does not come to rest.
    era: u64,
    at_rest: Vec<Rested>,
    /// When a call last ended well.
    well: Option<Instant>,
    /// Why the last one could not connect, or got no answer.
    trouble: Option<StoreError>,
}

struct Rested {
    connection: PgConnection,
    made: Instant,
    used: Instant,
    /// By which word of the DSN's file.
    followed: u64,
    /// How long the server works at a statement of it.
    limit: Duration,
}

impl Rested {
    fn is_fresh(&self, followed: u64) -> bool {
        self.followed == followed && self.made.elapsed() < LIFETIME && self.used.elapsed() < REST
    }
}

impl Slot {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.all[self.at].lock().expect("no holder panics")
    }

    fn purpose(&self) -> Purpose {
        PURPOSES[self.at]
    }

    /// The way that its connections take.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// A connection for one call, of those at rest one whose statements are given up after `limit`, if there is one.
    pub(super) async fn lease(&self, limit: Duration) -> Result<PooledConnection<'_>, StoreError> {
        let deadline = Instant::now() + WITHIN;
        let turn = timeout_at(deadline, self.turns.acquire()).await.map_err(|_| self.no_turn())?;
        let turn =
            turn.map_err(|_| StoreError::Unavailable("the connections to it are closed".to_owned()))?;
        let (era, rested) = {
            let mut current = self.current();
            // Dropped without closing: whoever is at the other end may be silent.
            current.at_rest.retain(|rested| rested.is_fresh(self.access.followed()));
            let at_rest = &mut current.at_rest;
            let alike = at_rest.iter().rposition(|rested| rested.limit == limit);
            let rested = alike.map(|at| at_rest.remove(at)).or_else(|| at_rest.pop());
            (current.era, rested)
        };
        let rested = match rested {
            Some(rested) => rested,
            None => self.connect(deadline.max(Instant::now() + LEAST)).await?,
        };
        Ok(PooledConnection { slot: self, era, rested, _turn: turn })
    }

    /// Tries again for as long as the server may be restarting, or takes no more connections.
    async fn connect(&self, deadline: Instant) -> Result<Rested, StoreError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(LEAST);
            let followed = self.access.followed();
            let cause = match self.access.session(self.purpose(), left).await {
                Ok(connection) => {
                    let now = Instant::now();
                    let limit = STATEMENT_TIMEOUT;
                    return Ok(Rested { connection, made: now, used: now, followed, limit });
                }
                Err(cause) => cause,
            };
            if let Some(rested) = cause.crowded.then(|| self.spared()).flatten() {
                return Ok(rested);
            }
            let refusal = self.access.refusal(&cause);
            let well = {
                let mut current = self.current();
                current.trouble = Some(refusal.clone());
                current.well
            };
            let restarting = well.is_some_and(|well| well.elapsed() < RESTART);
            if !(restarting || cause.crowded) || Instant::now() + PAUSE > deadline {
                return Err(refusal);
            }
            sleep(PAUSE).await;
        }
    }

    /// A connection that rests at a neighbour's; one in which other things are set is closed to make room.
    fn spared(&self) -> Option<Rested> {
        let others = (0..self.all.len()).filter(|at| *at != self.at);
        let (alike, unlike): (Vec<usize>, Vec<usize>) =
            others.partition(|at| PURPOSES[*at] == self.purpose());
        let rested = |at: usize| {
            let mut current = self.all[at].lock().expect("no holder panics");
            current.at_rest.retain(|rested| rested.is_fresh(self.access.followed()));
            current.at_rest.pop()
        };
        alike.into_iter().find_map(rested).or_else(|| {
            drop(unlike.into_iter().find_map(rested));
            None
        })
    }

    /// What those say who wait behind calls that get no answer is what these found out.
    fn no_turn(&self) -> StoreError {
        let trouble = self.current().trouble.clone();
        trouble.unwrap_or_else(|| {
            let connections = self.connections;
            StoreError::Unavailable(format!(
                "all {connections} connections for such calls were busy for {WITHIN:?} (PG_MAX_CONNECTIONS)"
            ))
        })
    }

    /// Discards all connections at rest: one has broken, so the others may have.
    pub(super) fn doubt(&self) {
        self.current().at_rest.clear();
    }

    /// Gives up all connections of an era: those at rest are dropped, those of calls under way when these end.
    pub(super) fn give_up(&self, era: u64, why: StoreError) {
        let mut current = self.current();
        if current.era == era {
            warn!(error = %why, "connections to the database are of no use and are replaced");
            current.era += 1;
            current.at_rest.clear();
        }
        current.trouble = Some(why);
    }

    async fn close(&self) {
        self.turns.close();
        let at_rest = {
            let mut current = self.current();
            current.era += 1;
            mem::take(&mut current.at_rest)
        };
        for rested in at_rest {
            // One that can't be told is gone all the same.
            drop(rested.connection.close().await);
        }
    }
}

/// A connection in use. Dropped before it comes to rest it is discarded: nobody knows what state it is in.
pub(super) struct PooledConnection<'a> {
    slot: &'a Slot,
    era: u64,
    rested: Rested,
    _turn: SemaphorePermit<'a>,
}

impl PooledConnection<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.rested.connection
    }

    /// Has the server give each of its statements up after `limit`: asks for it only where that was another one.
    pub(super) async fn give_up_after(&mut self, limit: Duration) -> sqlx::Result<()> {
        if self.rested.limit != limit {
            sqlx::query("SELECT set_config('statement_timeout', $1, false)")
                .bind(limit.as_millis().to_string())
                .execute(&mut self.rested.connection)
                .await?;
            self.rested.limit = limit;
        }
        Ok(())
    }

    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// Keeps it for the next call: this one has ended well.
    pub(super) fn rest(self) {
        let (mut current, now) = (self.slot.current(), Instant::now());
        current.well = Some(now);
        current.trouble = None;
        if current.era == self.era {
            current.at_rest.push(Rested { used: now, ..self.rested });
        }
    }
}
