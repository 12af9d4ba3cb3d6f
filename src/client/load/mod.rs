//! Load on a running service, measured as its clients feel it: the engine of `simulate` and of the benchmark;
//! and the kitchens and couriers that report on the orders it places.
//!
//! At a fixed rate every request has a moment when it is due, and its latency counts from then,
//! whenever a connection was free to send it: a service that stalls is charged for everybody who
//! would have come meanwhile (no coordinated omission).

mod follow;
mod recorder;
mod reports;
mod scenario;
mod ticker;

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Answer, ClientError, ClientRequest, Connection, StatusCode, Target};
pub use follow::{DeliveryStats, Watch};
pub use recorder::{Latency, Recorder, Summary, histogram, record};
pub use reports::{ReportPlan, ReportRun, ReportStats, ReportedOrders};
pub use scenario::{NewOrders, Scenario, new_order};
use ticker::Ticker;

/// Requests a second that can be asked for; the least is one in some three hours.
pub const RATES: RangeInclusive<f64> = 0.0001..=100_000.0;
/// The longest time that can be asked for.
pub const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Pause of a connection that could not be made, so that a dead service is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers that are out may take after a stop.
const GRACE: Duration = Duration::from_secs(1);
/// A request that is due when the time is up may still be sent for so long.
const LATE: Duration = Duration::from_millis(100);

/// How much load, how fast, and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the service is.
    pub target: Target,
    /// Requests a second, within [`RATES`]; none means as many as the service answers.
    pub rate: Option<f64>,
    /// Most requests at once, each on a connection of its own.
    pub connections: usize,
    /// Ends after so many requests.
    pub count: Option<u64>,
    /// Ends after so long, at most [`LONGEST`].
    pub duration: Option<Duration>,
}

/// A load under way.
pub struct Run {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    scenario: Arc<dyn Scenario>,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    ticker: Option<Arc<Ticker>>,
    taken: AtomicU64,
    count: u64,
    started: Instant,
    deadline: Option<Instant>,
    /// The answer that says that whoever asks may not.
    barred: Arc<OnceLock<Answer>>,
}

/// Whether the service says that whoever asks may not: asking again changes nothing.
fn bars(status: StatusCode) -> bool {
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status)
}

impl Run {
    /// Connects, then begins. An error means that nobody answers there.
    pub async fn start(plan: &Plan, scenario: Arc<dyn Scenario>) -> Result<Self, ClientError> {
        let lines = try_join_all((0..plan.connections).map(|_| Connection::open(&plan.target))).await?;
        let started = Instant::now();
        let ticker = plan.rate.map(|rate| Arc::new(Ticker::new(rate, started)));
        let count = match (&ticker, plan.duration) {
            (Some(ticker), Some(duration)) => ticker.due_within(duration).min(plan.count.unwrap_or(u64::MAX)),
            _ => plan.count.unwrap_or(u64::MAX),
        };
        let late = if ticker.is_some() { LATE } else { Duration::ZERO };
        let shared = Arc::new(Shared {
            scenario,
            recorder: Arc::new(Recorder::new(started)),
            stop: CancellationToken::new(),
            ticker: ticker.clone(),
            taken: AtomicU64::new(0),
            count,
            started,
            deadline: plan.duration.map(|duration| started + duration + late),
            barred: Arc::default(),
        });
        let mut workers = JoinSet::new();
        for line in lines {
            workers.spawn(Arc::clone(&shared).work(line));
        }
        if let Some(ticker) = ticker {
            let (workers, stop) = (plan.connections, shared.stop.clone());
            std::thread::spawn(move || ticker.run(count, workers, &stop));
        }
        Ok(Self { shared, workers })
    }

    /// What has been measured, also while it goes on.
    pub fn recorder(&self) -> Arc<Recorder> {
        Arc::clone(&self.shared.recorder)
    }

    /// Cancelled, nothing more is sent.
    pub fn stop(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// The answer, once one comes, that says that whoever asks may not: that ends it.
    pub fn barred(&self) -> Arc<OnceLock<Answer>> {
        Arc::clone(&self.shared.barred)
    }

    /// Waits for the last answer; after a stop not for long.
    pub async fn end(mut self) -> Summary {
        let stop = self.stop();
        let told = async {
            stop.cancelled().await;
            sleep(GRACE).await;
        };
        tokio::select! {
            () = async { while self.workers.join_next().await.is_some() {} } => {}
            () = told => {}
        }
        self.shared.recorder.summary()
    }
}

/// The number of a request, and when it is due.
type Ticket = (u64, Instant);

impl Shared {
    async fn work(self: Arc<Self>, mut line: Connection) {
        while let Some((n, due)) = self.next().await {
            if self.time_is_up() {
                self.recorder.failed("never sent: every connection was busy".to_owned());
                continue;
            }
            let answer = line.ask(self.scenario.ask(n)).await;
            let took = due.elapsed();
            match answer {
                Ok(answer) if answer.is_good() => {
                    self.recorder.answered(took);
                    self.scenario.answered(due, &answer);
                }
                Ok(answer) => {
                    self.recorder.failed(answer.status.to_string());
                    if bars(answer.status) {
                        self.barred.get_or_init(|| answer);
                        self.stop.cancel();
                    }
                }
                Err(trouble) => {
                    self.recorder.failed(trouble.to_string());
                    if matches!(trouble, ClientError::NoConnection(_)) {
                        self.stop.run_until_cancelled(sleep(RECONNECT_PAUSE)).await;
                    }
                }
            }
        }
    }

    async fn next(&self) -> Option<Ticket> {
        if let Some(ticker) = &self.ticker {
            self.stop.run_until_cancelled(ticker.ticket()).await?;
        } else if self.stop.is_cancelled() || self.time_is_up() {
            return None;
        }
        let n = self.taken.fetch_add(1, Ordering::Relaxed);
        let due = || self.ticker.as_ref().map_or_else(Instant::now, |ticker| self.started + ticker.due(n));
        (n < self.count).then(|| (n, due()))
    }

    fn time_is_up(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const STALL: Duration = Duration::from_millis(300);

    /// Answers its only client, but thinks for a while before the first answer.
    async fn slow_starter(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = [0; 4096];
        sleep(STALL).await;
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
        }
    }

    #[test]
    fn whatever_can_be_asked_for_has_an_end() {
        let started = Instant::now();
        for rate in [*RATES.start(), 1.0, *RATES.end()] {
            let ticker = Ticker::new(rate, started);
            let count = ticker.due_within(LONGEST);
            assert!(started + ticker.due(count) >= started + LONGEST, "{rate}");
            assert!(ticker.due(u64::MAX) >= LONGEST, "{rate}");
        }
    }

    /// One slow answer delays thirty that are due meanwhile; who only looks at the time from
    /// sending to answering sees one slow answer and twenty-nine fast ones.
    #[tokio::test]
    async fn waiting_for_a_stalled_service_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tokio::spawn(slow_starter(listener));
        let plan = Plan {
            target: Target::new(&url.parse().expect("an address")),
            rate: Some(100.0),
            connections: 1,
            count: Some(30),
            duration: None,
        };
        let run = Run::start(&plan, Arc::new(NewOrders::default())).await.expect("it listens");
        let summary = run.end().await;
        server.abort();
        assert_eq!((summary.good, summary.failed), (30, 0));
        assert!(summary.latency_ms.p50 >= 100.0, "{summary:?}");
    }
}
