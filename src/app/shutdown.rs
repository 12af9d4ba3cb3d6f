//! The time that stopping may take, dealt out: first requests, then the queues, then whatever is
//! left is dropped, so that the process ends in time in any case.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Supervisor;

/// Four signals, in this order.
#[derive(Debug, Clone)]
pub struct Shutdown {
    timeout: Duration,
    delay: Duration,
    leaving: CancellationToken,
    soft: CancellationToken,
    hard: CancellationToken,
    give_up: CancellationToken,
}

impl Shutdown {
    /// A shutdown that takes at most `timeout`, after `delay` in which all is served as before.
    pub fn new(timeout: Duration, delay: Duration) -> Self {
        let [leaving, soft, hard, give_up] = std::array::from_fn(|_| CancellationToken::new());
        Self { timeout, delay, leaving, soft, hard, give_up }
    }

    /// Send no more requests here; those that come are served.
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Says so, and gives balancers the time to hear of it.
    pub(super) async fn announce(&self) {
        self.leaving.cancel();
        sleep(self.delay).await;
    }

    /// Take nothing new; finish what is under way.
    pub fn soft(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Drop requests that are still open; no more retries.
    pub fn hard(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// Leave what no broker has acknowledged to the outbox.
    pub fn give_up(&self) -> CancellationToken {
        self.give_up.clone()
    }

    /// What is left of the timeout after [`Self::drain`], at least.
    pub(super) fn rest(&self) -> Duration {
        self.timeout / 10
    }

    /// Sends the signals and waits until every task has ended.
    pub(super) async fn drain(&self, tasks: &mut Supervisor) -> anyhow::Result<()> {
        let part = |tenths: u32| Instant::now() + self.timeout * tenths / 10;
        let (hard_at, give_up_at, end) = (part(5), part(8), part(9));
        self.leaving.cancel();
        self.soft.cancel();
        let signals = async {
            sleep_until(hard_at).await;
            self.hard.cancel();
            sleep_until(give_up_at).await;
            self.give_up.cancel();
            std::future::pending::<()>().await;
        };
        let ended = async {
            tokio::select! {
                panicked = tasks.all_ended() => panicked,
                () = signals => Vec::new(),
            }
        };
        match timeout_at(end, ended).await {
            Ok(panicked) if panicked.is_empty() => Ok(()),
            Ok(panicked) => bail!("while stopping, these failed: {}", panicked.join(", ")),
            Err(_) => {
                bail!(
                    "stopping took longer than {:?}; still at work: {}",
                    self.timeout,
                    tasks.names().join(", ")
                )
            }
        }
    }
}
