//! Looks at every replica all the time: whether it says that it lives and is ready, and what it holds.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use reqwest::Client;
use testkit::{Process, proc};
use tokio::{task::JoinHandle, time::sleep};

use crate::readiness::Readiness;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a sign of life may take.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// What a process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Connections to the database.
    pub(crate) to_database: usize,
    /// All other descriptors.
    pub(crate) descriptors: usize,
    /// Most memory it ever had, in MB.
    pub(crate) peak_mb: u64,
}

impl Holdings {
    /// As the kernel tells it; `database` is the port of the database or of the proxy before it.
    pub(crate) fn of(pid: u32, database: Option<u16>) -> Self {
        let sockets = sockets_to(pid, database);
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let links: Vec<String> = links
            .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            .collect();
        let to_database = links.iter().filter(|link| sockets.contains(link.as_str())).count();
        Self {
            to_database,
            descriptors: links.len() - to_database,
            peak_mb: proc::peak_kb(pid).unwrap_or_default() / 1024,
        }
    }

    /// The larger of each.
    pub(crate) fn most(self, other: Self) -> Self {
        Self {
            to_database: self.to_database.max(other.to_database),
            descriptors: self.descriptors.max(other.descriptors),
            peak_mb: self.peak_mb.max(other.peak_mb),
        }
    }
}

/// Sockets whose other side has this port, as `/proc` names them.
fn sockets_to(pid: u32, port: Option<u16>) -> HashSet<String> {
    let Some(port) = port else { return HashSet::new() };
    let (table, suffix) =
        (fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default(), format!(":{port:04X}"));
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2)?.ends_with(&suffix).then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// What was seen of all replicas of a fleet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Looks at `/healthz` that got no 200.
    pub(crate) sick: Vec<String>,
    /// Looks at `/readyz` that got 503.
    pub(crate) unready: usize,
    /// Looks at `/readyz` that were told of something wrong, with 503 or without.
    pub(crate) complaints: usize,
    /// The most that one of them ever held.
    pub(crate) most: Holdings,
}

/// Where watches write what they see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observations(Arc<Mutex<Seen>>);

impl Observations {
    fn open(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.open().clone()
    }
}

/// Looks at one replica until it is dropped.
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    pub(crate) fn start(
        process: &Process,
        database: Option<u16>,
        observations: Observations,
    ) -> Result<Self> {
        let (pid, url) = (process.pid, process.url.clone());
        let http = Client::builder().no_proxy().timeout(ALIVE_WITHIN).build()?;
        Ok(Self(tokio::spawn(async move {
            loop {
                if let Some(sick) = ailment(&http, pid, &url).await {
                    observations.open().sick.push(sick);
                }
                let readiness = Readiness::ask(&http, &url).await.ok();
                {
                    let (mut seen, holds) = (observations.open(), Holdings::of(pid, database));
                    seen.unready += usize::from(readiness.as_ref().is_some_and(|said| said.status == 503));
                    seen.complaints += usize::from(readiness.is_some_and(|said| !said.is_whole(&[])));
                    seen.most = seen.most.most(holds);
                }
                sleep(PAUSE).await;
            }
        })))
    }
}

/// What is wrong with a replica that should answer 200. A process that stands still can't answer,
/// and one that has just been woken gets a second chance.
async fn ailment(http: &Client, pid: u32, url: &str) -> Option<String> {
    let look = || http.get(format!("{url}/healthz")).send();
    let answer = match look().await {
        Ok(answer) => answer,
        Err(_) if proc::is_frozen(pid) => return None,
        Err(_) => match look().await {
            Ok(answer) => answer,
            Err(_) if proc::is_frozen(pid) => return None,
            Err(error) => return Some(format!("{error:?}")),
        },
    };
    (answer.status() != 200).then(|| answer.status().to_string())
}

/// What `/metrics` counts apart, leaving out what an answer's status and method add.
pub(crate) async fn series(process: &Process) -> Result<BTreeSet<String>> {
    let text = process.get("/metrics").await?;
    let named = |line: &str| {
        let (series, _) = line.rsplit_once(' ')?;
        let labels = series.split(['{', ',', '}']);
        let kept: Vec<&str> =
            labels.filter(|label| !label.starts_with("status=") && !label.starts_with("method=")).collect();
        Some(kept.join(","))
    };
    Ok(text.lines().filter(|line| !line.starts_with('#')).filter_map(named).collect())
}
