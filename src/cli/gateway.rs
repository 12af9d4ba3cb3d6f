//! `gateway`: one port in front of any number of replicas, where nothing else deals out connections.
//!
//! It carries bytes and knows no HTTP, so event streams pass as they are. Limits on time are the replicas'.

use std::{
    future::pending,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    io::{AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream, lookup_host},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::serve::{Signals, start_logging};
use crate::config::{HttpConfig, LogConfig};

/// Most connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a replica may take to take a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long open connections may go on after a signal.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    #[command(flatten)]
    http: HttpConfig,
    /// Where the replicas are; a name may stand for many addresses
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
}

/// Deals out connections until a signal.
pub(super) async fn run(args: GatewayArgs, log: &LogConfig) -> anyhow::Result<()> {
    start_logging(log)?;
    let mut signals = Signals::new()?;
    let HttpConfig { host, port } = args.http;
    let listener = TcpListener::bind((host.as_str(), port))
        .await
        .with_context(|| format!("can't listen on {host}:{port} (APP_HOST, APP_PORT)"))?;
    let url = format!("http://{}", listener.local_addr()?);
    info!(url, to = args.to, "listening on {url}");
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        stopped.cancel();
    });
    forward(listener, args.to.into(), stop).await;
    Ok(())
}

async fn forward(listener: TcpListener, to: Arc<str>, stop: CancellationToken) {
    let (connections, seats) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    let accept = async || {
        let seat = Arc::clone(&seats).acquire_owned().await;
        (listener.accept().await, seat)
    };
    let mut turn = 0;
    while let Some((accepted, seat)) = stop.run_until_cancelled(accept()).await {
        let Ok((client, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let to = Arc::clone(&to);
        connections.spawn(async move {
            match replica(&to, turn).await {
                // Whoever hung up first, there is nobody to tell.
                Ok(replica) => drop(carry(client, replica).await),
                Err(error) => warn!(%error, "no replica takes connections"),
            }
            drop(seat);
        });
        turn = turn.wrapping_add(1);
    }
    drop(listener);
    connections.close();
    drop(timeout(DRAIN, connections.wait()).await);
}

/// A connection to one of the replicas that the name stands for now.
async fn replica(to: &str, turn: usize) -> io::Result<TcpStream> {
    let mut addresses: Vec<SocketAddr> = lookup_host(to).await?.collect();
    // The system sorts them by its own lights, often the same way.
    addresses.sort_unstable();
    connect(&addresses, turn).await
}

/// A connection to the address whose turn it is, or to the next one that takes it.
async fn connect(addresses: &[SocketAddr], turn: usize) -> io::Result<TcpStream> {
    let first = turn.checked_rem(addresses.len()).unwrap_or(0);
    let mut failure = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses[first..].iter().chain(&addresses[..first]) {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(replica)) => return Ok(replica),
            Ok(Err(error)) => failure = error,
            Err(late) => failure = late.into(),
        }
    }
    Err(failure)
}

/// Carries bytes both ways until the replica has said all. A client may end its half earlier.
async fn carry(mut client: TcpStream, mut replica: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    replica.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_replica, mut to_replica) = replica.split();
    let asking = async {
        // A client that broke off has asked all it will, too.
        drop(copy(&mut from_client, &mut to_replica).await);
        drop(to_replica.shutdown().await);
        pending::<()>().await;
    };
    tokio::select! {
        () = asking => {}
        answered = copy(&mut from_replica, &mut to_client) => drop(answered?),
    }
    to_client.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// A replica that tells its name and what it was asked, once the client has ended its half.
    async fn replica_named(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut question = String::new();
                    stream.read_to_string(&mut question).await.expect("a question");
                    stream.write_all(format!("{name}: {question}").as_bytes()).await.expect("a listener");
                });
            }
        });
        address
    }

    async fn said(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        stream.write_all(b"hello").await.expect("a listener");
        stream.shutdown().await.expect("a half");
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn replicas_take_turns_and_a_dead_one_is_passed_over() {
        let (a, b) = (replica_named("a").await, replica_named("b").await);
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let addresses = [a, dead, b];
        for (turn, answer) in ["a: hello", "b: hello", "b: hello", "a: hello"].into_iter().enumerate() {
            assert_eq!(said(connect(&addresses, turn).await.expect("a replica")).await, answer, "{turn}");
        }
        assert!(connect(&[dead], 7).await.is_err());
        assert!(connect(&[], 7).await.is_err());
    }

    #[tokio::test]
    async fn what_is_open_is_finished_before_the_gateway_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, to) = (listener.local_addr().expect("an address"), replica_named("a").await);
        let stop = CancellationToken::new();
        let gateway = tokio::spawn(forward(listener, to.to_string().into(), stop.clone()));
        assert_eq!(said(TcpStream::connect(address).await.expect("open")).await, "a: hello");

        let mut open = TcpStream::connect(address).await.expect("open");
        open.write_all(b"I say ").await.expect("open");
        // Accepted in order: once this one is answered, the other is being carried.
        assert_eq!(said(TcpStream::connect(address).await.expect("open")).await, "a: hello");
        stop.cancel();
        assert_eq!(said(open).await, "a: I say hello");
        gateway.await.expect("ends");
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}
