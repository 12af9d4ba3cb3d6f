//! F26: clients that are slow, deaf, idle and wrong, beside honest ones that must not notice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{report::Outcome, rig::Rig};

/// Enough honest orders for the whole play.
const ORDERS: usize = 2_000;
/// Connections that say nothing.
const IDLE: usize = 1_000;
/// Connections whose head, or body, comes byte by byte.
const SLOW: usize = 200;
/// Connections that ask without end and never read.
const DEAF: usize = 50;
/// How long it takes until they are all there.
const GATHER: Duration = Duration::from_secs(5);
/// Clients that send nonsense.
const WRONG: usize = 20;
/// Pause of a nonsense client between two requests, and of a slow one between two bytes.
const PAUSE: Duration = Duration::from_millis(250);
/// Two quantiles closer than this are the same on a busy machine.
const NOISE: Duration = Duration::from_millis(20);

/// How often each status was answered to nonsense.
type Answers = Arc<Mutex<BTreeMap<String, usize>>>;

pub(crate) async fn abused(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let url = rig.fleet.replica(0)?.url.clone();
    let address = url.trim_start_matches("http://").to_owned();
    let mut plan = rig.plan(50.0);
    plan.orders = plan.orders.max(ORDERS);
    let load = rig.load(plan);
    // The first seconds warm up.
    sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    sleep(Duration::from_secs(10)).await;
    rig.strike();
    let struck = Instant::now();
    let (answers, mut crowd) = (Answers::default(), JoinSet::new());
    for number in 0..IDLE {
        crowd.spawn(keep(address.clone(), number));
    }
    for number in 0..WRONG {
        crowd.spawn(talk_nonsense(address.clone(), number, Arc::clone(&answers)));
    }
    // Longer than a head may take.
    sleep(Duration::from_secs(20)).await;
    let over = Instant::now();
    crowd.shutdown().await;
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    let (before, during) = (history.latency(0.99, begun, struck), history.latency(0.99, struck, over));
    outcome.note(format!("p99 {before:.1?} before, {during:.1?} during"));
    let limit = (before * 2).max(before + NOISE);
    outcome.expect(!during.is_zero(), "nobody honest came");
    outcome.expect(during <= limit, format!("p99 was {before:.1?} before and {during:.1?} during"));
    let failed = history.attempts.iter().filter(|attempt| attempt.status != Some(201)).count();
    outcome.expect(failed == 0, format!("{failed} honest tries got no 201"));
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answered: usize = answers.values().sum();
    let refused: usize = answers.iter().filter(|(status, _)| status.starts_with('4')).map(|(_, n)| n).sum();
    outcome.note(format!("{answered} wrong requests: {answers:?}"));
    outcome.expect(answered > 0 && refused == answered, format!("wrong requests got {answers:?}"));
    Ok(outcome)
}

/// How a connection is held open.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Idle,
    SlowHead,
    SlowBody,
    Deaf,
}

impl Manner {
    fn of(number: usize) -> Self {
        match number {
            ..SLOW => Self::SlowHead,
            _ if number < 2 * SLOW => Self::SlowBody,
            _ if number < 2 * SLOW + DEAF => Self::Deaf,
            _ => Self::Idle,
        }
    }
}

/// Keeps a connection as long as the service lets it, again and again.
async fn keep(address: String, number: usize) {
    let manner = Manner::of(number);
    // They come within seconds, not in one instant.
    sleep(GATHER.mul_f64(rand::random())).await;
    loop {
        if let Ok(mut connection) = TcpStream::connect(&address).await {
            drop(misbehave(&mut connection, manner).await);
        }
        sleep(PAUSE).await;
    }
}

async fn misbehave(connection: &mut TcpStream, manner: Manner) -> Result<()> {
    let start = match manner {
        Manner::Idle => return Ok(connection.read_exact(&mut [0]).await.map(drop)?),
        Manner::SlowHead => "GET /orders HTTP/1.1\r\nhost: x\r\nx-slow: ",
        Manner::SlowBody => {
            "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
        }
        Manner::Deaf => "GET /orders?limit=200 HTTP/1.1\r\nhost: x\r\n\r\n",
    };
    connection.write_all(start.as_bytes()).await?;
    // A list costs something: who asked for many would be a load, not a rude client.
    let (more, pause) = if matches!(manner, Manner::Deaf) { (start, 8 * PAUSE) } else { ("x", PAUSE) };
    loop {
        sleep(pause).await;
        connection.write_all(more.as_bytes()).await?;
    }
}

/// Sends what is no good request, and counts the answers.
async fn talk_nonsense(address: String, number: usize, answers: Answers) {
    for turn in number.. {
        let status = match timeout(Duration::from_secs(5), nonsense(&address, turn)).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        *answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        sleep(PAUSE).await;
    }
}

/// One bad request; the status that it gets.
async fn nonsense(address: &str, turn: usize) -> Result<String> {
    let word = format!("{:x}", turn.wrapping_mul(2_654_435_761));
    let post = "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let request = match turn % 7 {
        0 => format!("GET /{word} HTTP/1.1\r\nhost: x\r\n\r\n"),
        1 => format!("B{word} /orders HTTP/1.1\r\nhost: x\r\n\r\n"),
        2 => format!("GET /orders/{word} HTTP/1.1\r\nhost: x\r\n\r\n"),
        3 => format!("{post}content-length: {}\r\n\r\n{word}", word.len()),
        4 => format!("{post}content-length: 99999999\r\n\r\n{}", "x".repeat(100_000)),
        5 => format!("GET / HTTP/1.1\r\n{}\r\n", format!("x-{word}: y\r\n").repeat(100)),
        _ => format!("{word}\r\n\r\n"),
    };
    let mut connection = TcpStream::connect(address).await?;
    // Who refuses a body need not read it to its end.
    drop(connection.write_all(request.as_bytes()).await);
    let mut head = [0; 12];
    connection.read_exact(&mut head).await?;
    Ok(String::from_utf8_lossy(&head[9..]).into_owned())
}
