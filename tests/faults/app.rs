//! The service as its operators meet it: real processes, started, signalled and started again.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::{
    readiness::Readiness,
    stack::{Frozen, POLL, signal},
    watch::{Holdings, Observations, Watch, resident_kb, series},
};

/// How long a start or an end may take before the row is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Stands in every customer's name and address, and must not stand in any log.
pub(crate) const SECRET: &str = "Secretname";

/// Settings of the service, as environment variables.
pub(crate) type Settings = Vec<(&'static str, String)>;

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
pub(crate) struct Replica {
    child: Child,
    pid: u32,
    /// Ends as soon as the replica is meant to.
    watch: Option<Watch>,
    pub(crate) url: String,
    /// From the start of the process until it listened.
    pub(crate) listened_in: Duration,
}

impl Replica {
    async fn start(slot: usize, settings: &Settings, journal: &Journal, book: &Observations) -> Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_order-tracker"))
            .env_clear()
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().context("it has ended already")?;
        let log = child.stderr.take().context("stderr is piped")?;
        let (found, url) = oneshot::channel();
        tokio::spawn(read_log(slot, log, journal.clone(), found));
        match timeout(PATIENCE, url).await {
            Ok(Ok(url)) => {
                let watch = Watch::start(pid, &url, database_port(settings), book.clone())?;
                Ok(Self { child, pid, watch: Some(watch), url, listened_in: started.elapsed() })
            }
            _ => bail!("the service did not start: {:?}", child.try_wait()?),
        }
    }
}

/// The port that replicas with these settings reach the database at.
fn database_port(settings: &Settings) -> Option<u16> {
    let dsn = settings.iter().find_map(|(name, value)| (*name == "PG_DSN").then_some(value))?;
    dsn.rsplit_once('@')?.1.split(['/', '?']).next()?.rsplit_once(':')?.1.parse().ok()
}

/// Copies the log to the journal and reports the address that it names.
async fn read_log(slot: usize, log: ChildStderr, journal: Journal, found: oneshot::Sender<String>) {
    let (mut lines, mut found) = (BufReader::new(log).lines(), Some(found));
    while let Ok(Some(line)) = lines.next_line().await {
        journal.note(slot, &line);
        let url =
            serde_json::from_str::<Value>(&line).ok().and_then(|line| Some(line["url"].as_str()?.to_owned()));
        if let Some(url) = url
            && let Some(found) = found.take()
        {
            drop(found.send(url));
        }
    }
}

/// The replicas of one row; the supervisor of this play.
pub(crate) struct Fleet {
    pub(crate) settings: Settings,
    pub(crate) targets: Targets,
    pub(crate) journal: Journal,
    pub(crate) book: Observations,
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
        let (book, idle) = (Observations::default(), None);
        // Dead letters stay where they are; no row requeues them.
        let (lasting, replicas) = (vec!["dead_letters"], Vec::new());
        Self { settings, targets, journal, book, idle, lasting, replicas, slowest_start }
    }

    /// Starts the replica of this slot and shows it to clients.
    pub(crate) async fn start(&mut self, slot: usize) -> Result<()> {
        let replica = Replica::start(slot, &self.settings, &self.journal, &self.book).await?;
        self.slowest_start = self.slowest_start.max(replica.listened_in);
        self.targets.set(slot, Some(&replica.url));
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
            ready(&replica.url, &self.lasting).await?;
        }
        Ok(())
    }

    fn take(&mut self, slot: usize) -> Result<Replica> {
        self.targets.set(slot, None);
        let mut replica = self.replicas.get_mut(slot).and_then(Option::take).context("no such replica")?;
        replica.watch = None;
        Ok(replica)
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self, slot: usize) -> Result<()> {
        Ok(self.take(slot)?.child.kill().await?)
    }

    /// SIGTERM; answers how it ended and how long that took.
    pub(crate) async fn stop(&mut self, slot: usize) -> Result<(ExitStatus, Duration)> {
        let Replica { mut child, pid, .. } = self.take(slot)?;
        let asked = Instant::now();
        signal("TERM", &[pid]).await?;
        Ok((timeout(PATIENCE, child.wait()).await.context("SIGTERM did not end it")??, asked.elapsed()))
    }

    /// Sends SIGTERM and leaves the replica as it is.
    pub(crate) async fn signal(&mut self, slot: usize, name: &str) -> Result<()> {
        self.replicas.get_mut(slot).and_then(Option::as_mut).context("no such replica")?.watch = None;
        signal(name, &[self.replica(slot)?.pid]).await
    }

    /// Waits until a replica ends by itself.
    pub(crate) async fn ended(&mut self, slot: usize) -> Result<ExitStatus> {
        let mut replica = self.take(slot)?;
        Ok(timeout(PATIENCE, replica.child.wait()).await.context("it does not end")??)
    }

    /// Stops a replica where it stands; clients still know it.
    pub(crate) async fn freeze(&self, slot: usize) -> Result<Frozen> {
        let pid = self.replica(slot)?.pid;
        signal("STOP", &[pid]).await?;
        Ok(Frozen::of(pid))
    }

    /// A replica that listens.
    pub(crate) fn replica(&self, slot: usize) -> Result<&Replica> {
        self.replicas.get(slot).and_then(Option::as_ref).context("no such replica")
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
        let database = database_port(&self.settings);
        let each = self.replicas.iter().flatten().map(|replica| Holdings::of(replica.pid, database));
        each.fold(Holdings::default(), Holdings::most)
    }

    /// The memory of all replicas together, in KB.
    pub(crate) fn resident_kb(&self) -> u64 {
        self.replicas.iter().flatten().map(|replica| resident_kb(replica.pid)).sum()
    }

    /// What the replicas count.
    pub(crate) async fn series(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for replica in self.replicas.iter().flatten() {
            all.extend(series(&replica.url).await?);
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
