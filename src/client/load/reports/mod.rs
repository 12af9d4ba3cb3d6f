//! Kitchens and couriers that report on orders of a running service, and what becomes of their reports.
//!
//! Each order has a life of its own, made up from a seed; its reports follow one another, those of different orders do not
//! wait for each other. So many lives at once, so many requests at once: what comes beyond is left out and counted.

mod life;
mod outcome;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    life::{Action, LifePlanner, Step},
    outcome::{Outcome, OutcomeCounts},
};
pub use outcome::ReportStats;

use super::{Answer, ClientError, ClientRequest, Connection, NewOrders, Recorder, Scenario, Target};
use crate::{
    order::{EventKind, OrderId, Report},
    time::Backoff,
};

/// Most orders whose reports are under way.
const MOST_LIVES: usize = 20_000;
/// Keeps the lives of one seed apart from those of the next.
const APART: u64 = 0x9E37_79B9_7F4A_7C15;
/// How often a report is sent that was not answered, under the same id.
const TRIES: usize = 6;

/// How reports are made up, and where they go.
#[derive(Debug, Clone)]
pub struct ReportPlan {
    /// Where the service is.
    pub target: Target,
    /// Most requests at once.
    pub connections: usize,
    /// So many times as fast as stages usually are.
    pub speed: f64,
    /// What the lives are made up from.
    pub seed: u64,
}

/// Reports under way on the orders that it is given.
pub struct ReportRun {
    plan: ReportPlan,
    recorder: Recorder,
    counts: Mutex<OutcomeCounts>,
    begun: AtomicU64,
    ended: AtomicU64,
    places: Semaphore,
    connections: Connections,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Connections that are made when they are needed.
struct Connections {
    free: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl ReportRun {
    /// Nothing is reported yet; cancelled, nothing more is.
    pub fn new(plan: ReportPlan, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            recorder: Recorder::new(Instant::now()),
            counts: Mutex::default(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            places: Semaphore::new(MOST_LIVES),
            connections: Connections {
                free: Semaphore::new(plan.connections.max(1)),
                idle: Mutex::default(),
            },
            tasks: TaskTracker::new(),
            plan,
            stop,
        })
    }

    /// From here on this order is worked on, unless too many are.
    pub fn take(self: &Arc<Self>, order_id: OrderId) {
        let Ok(place) = self.places.try_acquire() else {
            self.counts().left_out += 1;
            return;
        };
        place.forget();
        let n = self.begun.fetch_add(1, Ordering::Relaxed);
        let mut rng = StdRng::seed_from_u64(self.plan.seed.wrapping_mul(APART).wrapping_add(n));
        let steps = LifePlanner::new(&mut rng, self.plan.speed).life();
        let run = Arc::clone(self);
        self.tasks.spawn(async move {
            run.stop.run_until_cancelled(run.live(order_id, steps)).await;
            run.ended.fetch_add(1, Ordering::Relaxed);
            run.places.add_permits(1);
        });
    }

    /// How many lives have begun, and how many have ended.
    pub fn lives(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }

    /// What has become of reports so far.
    pub fn stats(&self) -> ReportStats {
        let (orders, _) = self.lives();
        ReportStats::new(orders, self.plan.seed, &self.counts(), self.recorder.summary())
    }

    /// Waits until all lives have ended, or for the stop.
    pub async fn end(&self) -> ReportStats {
        self.tasks.close();
        self.tasks.wait().await;
        self.stats()
    }

    async fn live(&self, order_id: OrderId, steps: Vec<Step>) {
        let (mut last, mut applied) = (None, None);
        for (n, Step { after, action }) in steps.into_iter().enumerate() {
            sleep(after).await;
            let report = match action {
                Action::Report(report) => Some(*report),
                Action::Repeat => last.clone(),
                // What was not applied needs no undo.
                Action::TakeBack(source) => applied.map(|seq| Report {
                    id: Some(format!("sim-{n}")),
                    reverts: Some(seq),
                    ..Report::of(EventKind::Reverted, source)
                }),
            };
            let Some(report) = report else { continue };
            // On the heap only while it is under way: most lives wait at any moment.
            let Some(outcome) = Box::pin(self.report(order_id, &report)).await else { return };
            applied = match outcome {
                Outcome::Applied(seq) => seq,
                Outcome::Replayed => applied,
                Outcome::Ignored | Outcome::Refused(_) => None,
            };
            last = Some(report);
        }
    }

    /// What becomes of a report; `None` if nobody says so.
    async fn report(&self, order_id: OrderId, report: &Report) -> Option<Outcome> {
        let mut backoff = Backoff::default();
        let mut trouble = String::new();
        for _ in 0..TRIES {
            let begun = Instant::now();
            let answer = self.connections.ask(&self.plan.target, request(order_id, report)).await;
            match answer.as_ref().map(Outcome::of) {
                Ok(Ok(outcome)) => {
                    self.recorder.answered(begun.elapsed());
                    self.counts().count(&outcome);
                    return Some(outcome);
                }
                Ok(Err(why)) => trouble = why,
                Err(error) => trouble = error.to_string(),
            }
            if answer.is_ok_and(|answer| answer.status.is_client_error() && answer.status.as_u16() != 429) {
                break;
            }
            sleep(backoff.next_pause()).await;
        }
        self.recorder.failed(trouble);
        None
    }

    fn counts(&self) -> MutexGuard<'_, OutcomeCounts> {
        self.counts.lock().expect("no holder panics")
    }
}

fn request(order_id: OrderId, report: &Report) -> ClientRequest {
    let mut body = report.said();
    body["id"] = json!(report.id);
    if let Some(note) = &report.note {
        body["note"] = json!(note);
    }
    ClientRequest::post(format!("/orders/{order_id}/events"), body.to_string())
}

impl Connections {
    async fn ask(&self, target: &Target, request: ClientRequest) -> Result<Answer, ClientError> {
        let _place = self.free.acquire().await.map_err(|_| ClientError::Lost)?;
        let idle = self.idle.lock().expect("no holder panics").pop();
        let mut line = match idle {
            Some(line) => line,
            None => Connection::open(target).await?,
        };
        let answer = line.ask(request).await;
        self.idle.lock().expect("no holder panics").push(line);
        answer
    }
}

/// New orders, each of which is worked on from then on.
pub struct ReportedOrders {
    orders: Arc<NewOrders>,
    run: Arc<ReportRun>,
}

impl ReportedOrders {
    /// Of these orders.
    pub fn new(orders: Arc<NewOrders>, run: Arc<ReportRun>) -> Self {
        Self { orders, run }
    }
}

impl Scenario for ReportedOrders {
    fn ask(&self, n: u64) -> ClientRequest {
        self.orders.ask(n)
    }

    fn answered(&self, due: Instant, answer: &Answer) {
        self.orders.answered(due, answer);
        if let Some(id) = answer.order_id() {
            self.run.take(id);
        }
    }
}
