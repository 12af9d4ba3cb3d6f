//! A proxy of our own between the service and PostgreSQL or Kafka: it delays, holds back, cuts and
//! loses replies on demand.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::wire::{Requests, Seen};

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes them on.
    Pass,
    /// Passes each chunk on after `least` and up to `jitter` more.
    Slow { least: Duration, jitter: Duration },
    /// Passes requests on and keeps replies to itself.
    HoleBack,
    /// Keeps all to itself; nobody is told.
    Hole,
}

/// Which replies are lost, each with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Every n-th answer to a COMMIT.
    Commit(u64),
    /// Every n-th answer to a statement.
    Statement(u64),
    /// Every n-th answer to a COMMIT, and nobody is told: the connection just goes silent.
    Silence(u64),
}

struct State {
    upstream: Mutex<String>,
    mode: watch::Sender<Mode>,
    /// Counts up each time that all connections are cut.
    cuts: watch::Sender<u64>,
    loss: Mutex<Option<Loss>>,
    commits: AtomicU64,
    statements: AtomicU64,
    lost: AtomicU64,
}

/// A proxy that listens; it ends when dropped.
pub(crate) struct Proxy {
    /// `host:port` where it listens.
    pub(crate) address: String,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Proxy {
    /// A proxy to `upstream` that passes all on.
    pub(crate) async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(State {
            upstream: Mutex::new(upstream.to_owned()),
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            loss: Mutex::new(None),
            commits: AtomicU64::new(0),
            statements: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&state)));
        Ok(Self { address, state, listening })
    }

    /// The same address of a database, by way of this proxy.
    pub(crate) fn dsn(&self, dsn: &str) -> String {
        let upstream = self.state.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        dsn.replace(upstream.as_str(), &self.address)
    }

    /// Changes what is done with bytes, on open connections too.
    pub(crate) fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    /// Resets every connection.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Begins or ends losing replies.
    pub(crate) fn lose(&self, loss: Option<Loss>) {
        *self.state.loss.lock().unwrap_or_else(PoisonError::into_inner) = loss;
    }

    /// How many replies were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }

    /// Leads new connections to another server and resets the old ones.
    pub(crate) fn flip(&self, upstream: &str) {
        upstream.clone_into(&mut self.state.upstream.lock().unwrap_or_else(PoisonError::into_inner));
        self.cut();
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(carry(client, Arc::clone(&state)));
    }
}

/// One connection from its beginning to its end.
async fn carry(mut client: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    let upstream = state.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Ok(mut server) = TcpStream::connect(&upstream).await else {
        drop(client.set_zero_linger());
        return;
    };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let armed = AtomicBool::new(false);
    let reset = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::select! {
            () = requests(from_client, to_server, &state, &armed) => false,
            reset = replies(from_server, to_client, &state, &armed) => reset,
            _ = cuts.changed() => true,
        }
    };
    if reset {
        // Closing such a socket sends RST, as a dead host's neighbour would.
        drop((client.set_zero_linger(), server.set_zero_linger()));
    }
}

async fn requests(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, state: &State, armed: &AtomicBool) {
    let (mut buffer, mut requests) = (vec![0; 16 * 1024], Requests::default());
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        held(state, |mode| mode == Mode::Hole).await;
        let seen = requests.read(&buffer[..read]);
        if is_lost(state, seen) {
            armed.store(true, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Whether the connection is to be reset.
async fn replies(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, state: &State, armed: &AtomicBool) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // The server has done what was asked; the client will never know.
        if armed.load(Ordering::SeqCst) {
            state.lost.fetch_add(1, Ordering::Relaxed);
            if silent(state) {
                pending::<()>().await;
            }
            return true;
        }
        held(state, |mode| matches!(mode, Mode::Hole | Mode::HoleBack)).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return false;
        }
    }
    false
}

fn silent(state: &State) -> bool {
    matches!(*state.loss.lock().unwrap_or_else(PoisonError::into_inner), Some(Loss::Silence(_)))
}

/// Waits as long as the mode says.
async fn held(state: &State, in_hole: impl Fn(Mode) -> bool) {
    let mut mode = state.mode.subscribe();
    let now = *mode.borrow_and_update();
    if let Mode::Slow { least, jitter } = now {
        sleep(least + jitter.mul_f64(rand::random())).await;
    }
    drop(mode.wait_for(|mode| !in_hole(*mode)).await);
}

/// Counts what a client asked and says whether the answer is to be lost.
fn is_lost(state: &State, seen: Seen) -> bool {
    let Some(loss) = *state.loss.lock().unwrap_or_else(PoisonError::into_inner) else { return false };
    let (counter, seen, every) = match loss {
        Loss::Commit(every) | Loss::Silence(every) => (&state.commits, seen.commits, every),
        Loss::Statement(every) => (&state.statements, seen.statements, every),
    };
    let before = counter.fetch_add(seen, Ordering::Relaxed);
    (before + seen) / every > before / every
}
