//! Clients that ask for one thing again and again and cost little themselves, so that what is measured is
//! the service: one connection each, HTTP written by hand.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::report::quantile;

/// How long a client waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How clients ask.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) url: String,
    pub(crate) path: String,
    pub(crate) clients: usize,
    /// Between an answer and the next question.
    pub(crate) pause: Duration,
    pub(crate) lasting: Duration,
}

/// What they were answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    /// Sorted.
    took: Vec<Duration>,
    /// Answers other than 200, and none at all.
    pub(crate) refused: usize,
}

impl Answers {
    /// How many questions there were.
    pub(crate) fn count(&self) -> usize {
        self.took.len()
    }

    /// How long an answer took at this quantile.
    pub(crate) fn latency(&self, at: f64) -> Duration {
        quantile(&self.took, at).unwrap_or_default()
    }
}

impl Probe {
    /// Begins to ask.
    pub(crate) fn start(self) -> JoinHandle<Result<Answers>> {
        tokio::spawn(async move {
            let (mut clients, mut all) = (JoinSet::new(), Answers::default());
            let until = Instant::now() + self.lasting;
            for _ in 0..self.clients {
                clients.spawn(self.clone().ask_until(until));
            }
            while let Some(answers) = clients.join_next().await {
                let answers = answers?;
                all.took.extend(answers.took);
                all.refused += answers.refused;
            }
            ensure!(!all.took.is_empty(), "{} was never asked for", self.path);
            all.took.sort_unstable();
            Ok(all)
        })
    }

    async fn ask_until(self, until: Instant) -> Answers {
        let (mut answers, mut connection) = (Answers::default(), None);
        while Instant::now() < until {
            let asked = Instant::now();
            let answer = timeout(ANSWER_WITHIN, self.ask(connection.take())).await;
            answers.took.push(asked.elapsed());
            match answer {
                Ok(Ok((200, open))) => connection = Some(open),
                _ => answers.refused += 1,
            }
            sleep(self.pause).await;
        }
        answers
    }

    /// Asks once; answers the status and the connection, to be used again.
    async fn ask(&self, open: Option<BufReader<TcpStream>>) -> Result<(u16, BufReader<TcpStream>)> {
        let mut connection = match open {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(self.url.trim_start_matches("http://")).await?),
        };
        let request = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", self.path);
        connection.write_all(request.as_bytes()).await?;
        let (mut head, mut length) = (String::new(), 0);
        connection.read_line(&mut head).await?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        loop {
            head.clear();
            connection.read_line(&mut head).await?;
            let Some((name, value)) = head.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        connection.read_exact(&mut vec![0; length]).await?;
        Ok((status, connection))
    }
}
