//! The binary as its operators meet it: started, read, signalled and ended.

use std::{
    ffi::OsStr,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    time::{Instant, timeout},
};

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program with these settings and no others, whatever the environment of the tests holds.
pub fn command<N: AsRef<OsStr>, V: AsRef<OsStr>>(
    program: &str,
    arguments: &[&str],
    settings: impl IntoIterator<Item = (N, V)>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    for kept in ["PATH", "HOME", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.envs(settings).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A service that listens; killed when dropped.
pub struct Process {
    child: Child,
    /// Its number.
    pub pid: u32,
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// Where its embedded broker listens, if it has one.
    pub brokers: Option<String>,
    /// From the start of the process until it listened.
    pub listened_in: Duration,
}

impl Process {
    /// Runs a command that serves, on a free port unless it says otherwise; every line of its log goes to `note`.
    pub async fn start(mut command: Command, note: impl FnMut(String) + Send + 'static) -> Result<Self> {
        let started = Instant::now();
        for (name, value) in [("APP_PORT", "0"), ("LOG_FORMAT", "json")] {
            if !command.as_std().get_envs().any(|(other, _)| other == name) {
                command.env(name, value);
            }
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let pid = child.id().context("it has ended already")?;
        let log = child.stderr.take().context("stderr is piped")?;
        let (found, addresses) = oneshot::channel();
        tokio::spawn(read_log(log, note, found));
        match timeout(PATIENCE, addresses).await {
            Ok(Ok((url, brokers))) => Ok(Self { child, pid, url, brokers, listened_in: started.elapsed() }),
            Ok(Err(_)) => bail!("it ended before it listened: {:?}", timeout(PATIENCE, child.wait()).await),
            Err(_) => bail!("it does not listen after {PATIENCE:?}"),
        }
    }

    /// The text that it answers.
    pub async fn get(&self, path: &str) -> Result<String> {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(http.get(format!("{}{path}", self.url)).send().await?.text().await?)
    }

    /// Sends a signal by its name.
    pub async fn signal(&self, name: &str) -> Result<()> {
        signal(name, &[self.pid]).await
    }

    /// Stops it where it stands.
    pub async fn freeze(&self) -> Result<Frozen> {
        Frozen::freeze(vec![self.pid]).await
    }

    /// Ends it as a power cut would.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits for as long as it takes to end.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// How it ends by itself, and how long that took.
    pub async fn exit(&mut self) -> Result<(ExitStatus, Duration)> {
        let asked = Instant::now();
        let status = timeout(PATIENCE, self.wait()).await.context("it does not end")??;
        Ok((status, asked.elapsed()))
    }

    /// SIGTERM; answers how it ended and how long that took.
    pub async fn stop(mut self) -> Result<(ExitStatus, Duration)> {
        self.signal("TERM").await?;
        self.exit().await
    }
}

/// Reads the log as it comes, so that the process never waits for us, and reports the addresses that it names: its own
/// and, before that, the one of its broker if that is embedded.
async fn read_log(
    log: ChildStderr,
    mut note: impl FnMut(String),
    found: oneshot::Sender<(String, Option<String>)>,
) {
    let (mut lines, mut found, mut brokers) = (BufReader::new(log).lines(), Some(found), None);
    while let Ok(Some(line)) = lines.next_line().await {
        let entry: Value =
            if found.is_some() { serde_json::from_str(&line).unwrap_or_default() } else { Value::Null };
        note(line);
        brokers = entry["brokers"].as_str().map(str::to_owned).or(brokers);
        if let Some(url) = entry["url"].as_str()
            && let Some(found) = found.take()
        {
            drop(found.send((url.to_owned(), brokers.take())));
        }
    }
}

/// Processes that stand still.
#[must_use = "they must be woken again"]
pub struct Frozen(Vec<u32>);

impl Frozen {
    pub(crate) async fn freeze(pids: Vec<u32>) -> Result<Self> {
        signal("STOP", &pids).await?;
        Ok(Self(pids))
    }

    /// Lets them go on; those that have gone meanwhile are nobody's concern.
    pub async fn thaw(self) {
        drop(signal("CONT", &self.0).await);
    }
}

/// Sends a signal by its name.
pub async fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(pids.iter().map(u32::to_string)).stderr(Stdio::null());
    ensure!(command.status().await?.success(), "kill -{name} {pids:?} failed");
    Ok(())
}
