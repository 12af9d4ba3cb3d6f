//! The service as its operators meet it: real processes, started, signalled and started again.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    process::ExitStatus,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use testkit::{Frozen, POLL, Process, Settings, command, proc};
use tokio::time::{Instant, sleep};

use crate::{
    readiness::Readiness,
    watch::{Holdings, Observations, Watch, series},
};

/// How long replicas may take to be ready before the row is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// The service.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_order-tracker");
/// Stands in every customer's name and address, and must not stand in any log.
pub(crate) const SECRET: &str = "Secretname";

/// Where clients find the replicas that listen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Targets(Arc<RwLock<Vec<(usize, String)>>>);

impl Targets {
    /// The address for the n-th try: tries take turns.
    pub(crate) fn pick(&self, n: usize) -> Option<String> {
        let all = self.0.read().expect("no holder panics");
        (!all.is_empty()).then(|| all[n % all.len()].1.clone())
    }

    fn set(&self, slot: usize, url: Option<&str>) {
        let mut all = self.0.write().expect("no holder panics");
        all.retain(|(other, _)| *other != slot);
        all.extend(url.map(|url| (slot, url.to_owned())));
    }
}

/// What the logs of a fleet gave away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    file: Arc<Mutex<Option<File>>>,
    leaks: Arc<AtomicUsize>,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Journal {
    fn note(&self, slot: usize, line: &str) {
        if line.contains(SECRET) {
            self.leaks.fetch_add(1, Ordering::Relaxed);
        }
        if line.contains("\"WARN\"") || line.contains("\"ERROR\"") {
            self.warnings.lock().expect("no holder panics").push(line.to_owned());
        }
        if let Some(file) = self.file.lock().expect("no holder panics").as_mut() {
            drop(writeln!(file, "{slot} {line}"));
        }
    }

    /// Lines that hold a customer's name or address.
    pub(crate) fn leaks(&self) -> usize {
        self.leaks.load(Ordering::Relaxed)
    }

    /// Lines at WARN and above so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().expect("no holder panics").clone()
    }
}

/// A process of the service that listens.
struct Replica {
    process: Process,
    /// The port that it reaches the database at: a fleet's later replicas may have another one.
    database: Option<u16>,
    /// Ends as soon as the replica is meant to.
    watch: Option<Watch>,
}

impl Replica {
    async fn start(
        slot: usize,
        settings: &Settings,
        journal: &Journal,
        observations: &Observations,
    ) -> Result<Self> {
        let serve = command(BINARY, &["serve"], settings.iter().map(|(name, value)| (name, value)));
        let journal = journal.clone();
        let process = Process::start(serve, move |line| journal.note(slot, &line)).await?;
        let database = database_port(settings);
        let watch = Watch::start(&process, database, observations.clone())?;
        Ok(Self { process, database, watch: Some(watch) })
    }
}

/// The port that replicas with these settings reach the database at.
fn database_port(settings: &Settings) -> Option<u16> {
    let dsn = settings.iter().find_map(|(name, value)| (*name == "PG_DSN").then_some(value))?;
    dsn.rsplit_once('@')?.1.split(['/', '?']).next()?.rsplit_once(':')?.1.parse().ok()
}

/// The replicas of one row; what a supervisor would do to them.
pub(crate) struct Fleet {
    pub(crate) settings: Settings,
    pub(crate) targets: Targets,
    pub(crate) journal: Journal,
    pub(crate) observations: Observations,
    /// What the first replicas held and counted when they were ready and had nothing to do.
    pub(crate) idle: Option<(Holdings, BTreeSet<String>)>,
    /// Parts that may be degraded while nothing else is wrong: what a row leaves broken.
    pub(crate) lasting: Vec<&'static str>,
    replicas: Vec<Option<Replica>>,
    /// The slowest start so far.
    pub(crate) slowest_start: Duration,
}

impl Fleet {
    /// No replica yet; logs go to `log`.
    pub(crate) fn new(settings: Settings, log: Option<File>) -> Self {
        let journal = Journal { file: Arc::new(Mutex::new(log)), ..Journal::default() };
        let (targets, slowest_start) = (Targets::default(), Duration::ZERO);
        let (observations, idle) = (Observations::default(), None);
        // Dead letters stay where they are; no row requeues them.
        let (lasting, replicas) = (vec!["dead_letters"], Vec::new());
        Self { settings, targets, journal, observations, idle, lasting, replicas, slowest_start }
    }

    /// Starts the replica of this slot and shows it to clients.
    pub(crate) async fn start(&mut self, slot: usize) -> Result<()> {
        let replica = Replica::start(slot, &self.settings, &self.journal, &self.observations).await?;
        self.slowest_start = self.slowest_start.max(replica.process.listened_in);
        self.targets.set(slot, Some(&replica.process.url));
        if self.replicas.len() <= slot {
            self.replicas.resize_with(slot + 1, || None);
        }
        self.replicas[slot] = Some(replica);
        Ok(())
    }

    /// Starts replicas until there are so many, and waits until each says that it is ready.
    pub(crate) async fn start_all(&mut self, count: usize) -> Result<()> {
        for slot in 0..count {
            self.start(slot).await?;
        }
        self.rest().await
    }

    /// Waits until all are ready and notes what they hold with nothing to do.
    pub(crate) async fn rest(&mut self) -> Result<()> {
        self.ready().await?;
        if self.idle.is_none() {
            // What was opened to ask them is closed by then.
            sleep(POLL * 20).await;
            self.idle = Some((self.holdings(), self.series().await?));
        }
        Ok(())
    }

    /// Waits until every replica says that it is ready and that nothing is wrong.
    pub(crate) async fn ready(&self) -> Result<()> {
        for replica in self.replicas.iter().flatten() {
            ready(&replica.process.url, &self.lasting).await?;
        }
        Ok(())
    }

    fn take(&mut self, slot: usize) -> Result<Process> {
        self.targets.set(slot, None);
        let replica = self.replicas.get_mut(slot).and_then(Option::take).context("no such replica")?;
        Ok(replica.process)
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self, slot: usize) -> Result<()> {
        self.take(slot)?.kill().await
    }

    /// SIGTERM; answers how it ended and how long that took.
    pub(crate) async fn stop(&mut self, slot: usize) -> Result<(ExitStatus, Duration)> {
        self.take(slot)?.stop().await
    }

    /// Sends SIGTERM and leaves the replica as it is.
    pub(crate) async fn signal(&mut self, slot: usize, name: &str) -> Result<()> {
        self.replicas.get_mut(slot).and_then(Option::as_mut).context("no such replica")?.watch = None;
        self.replica(slot)?.signal(name).await
    }

    /// Waits until a replica ends by itself.
    pub(crate) async fn ended(&mut self, slot: usize) -> Result<ExitStatus> {
        Ok(self.take(slot)?.exit().await?.0)
    }

    /// Stops a replica where it stands; clients still know it.
    pub(crate) async fn freeze(&self, slot: usize) -> Result<Frozen> {
        self.replica(slot)?.freeze().await
    }

    /// A replica that listens.
    pub(crate) fn replica(&self, slot: usize) -> Result<&Process> {
        let replica = self.replicas.get(slot).and_then(Option::as_ref).context("no such replica")?;
        Ok(&replica.process)
    }

    /// The slots that are taken.
    pub(crate) fn slots(&self) -> Vec<usize> {
        self.replicas
            .iter()
            .enumerate()
            .filter_map(|(slot, replica)| replica.as_ref().map(|_| slot))
            .collect()
    }

    /// The most that any replica holds now.
    pub(crate) fn holdings(&self) -> Holdings {
        let each = self.replicas.iter().flatten();
        let each = each.map(|replica| Holdings::of(replica.process.pid, replica.database));
        each.fold(Holdings::default(), Holdings::most)
    }

    /// The memory of all replicas together, in KB.
    pub(crate) fn resident_kb(&self) -> u64 {
        self.replicas.iter().flatten().filter_map(|replica| proc::resident_kb(replica.process.pid)).sum()
    }

    /// What the replicas count.
    pub(crate) async fn series(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for replica in self.replicas.iter().flatten() {
            all.extend(series(&replica.process).await?);
        }
        Ok(all)
    }

    /// SIGTERM for all.
    pub(crate) async fn stop_all(&mut self) -> Result<()> {
        for slot in self.slots() {
            let (status, took) = self.stop(slot).await?;
            ensure!(status.success(), "SIGTERM at the end: {status} after {took:?}");
        }
        Ok(())
    }
}

async fn ready(url: &str, lasting: &[&str]) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Readiness::ask(&client, url).await {
            Ok(readiness) if readiness.is_whole(lasting) => return Ok(()),
            Ok(readiness) if Instant::now() > deadline => bail!("not ready: {}", readiness.body),
            Err(error) if Instant::now() > deadline => return Err(error),
            _ => sleep(POLL).await,
        }
    }
}
