//! Whether anybody is where the broker is said to be, told at once: the Kafka client itself tries on until its time is up.

use std::time::Duration;

use anyhow::bail;
use futures::future::join_all;
use tokio::{net::TcpStream, time::timeout};

use crate::client::in_words;

/// How long one address may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Well if one of the bootstrap servers takes a connection; else why none does.
pub(super) async fn broker(brokers: &str) -> anyhow::Result<()> {
    let outcomes = join_all(brokers.split(',').map(|address| async move {
        match timeout(TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("{address} ({})", in_words(&error))),
            Err(_) => Err(format!("{address} (no answer within {TIMEOUT:?})")),
        }
    }))
    .await;
    if outcomes.iter().any(Result::is_ok) {
        return Ok(());
    }
    let reasons: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    bail!("no broker at {}: KAFKA_BROKERS says where it is", reasons.join(", "))
}
