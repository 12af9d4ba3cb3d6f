//! F25: the broker's name is wrong, and the topic is missing where nobody creates topics by itself.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::{report::Outcome, rig::Rig};

/// How long the service is left alone with its wrong setting.
const ALONE: Duration = Duration::from_secs(30);
/// Lines about one broker in that time: that it is away, and what the client itself says.
const FEW_LINES: usize = 4;

pub(crate) async fn wrong_broker(rig: &mut Rig) -> Result<Outcome> {
    let brokers = rig.topic.brokers.clone();
    rig.set("KAFKA_BROKERS", "127.0.0.1:9");
    rig.fleet.start(0).await?;
    let mut plan = rig.plan(50.0);
    plan.orders = rig.scale.orders.min(500);
    let history = rig.load(plan).end().await?;
    sleep(ALONE).await;
    let lines = rig.fleet.journal.warnings();
    // Stopping must not wait for a broker that never comes.
    let (status, took) = rig.fleet.stop(0).await?;
    rig.set("KAFKA_BROKERS", brokers);
    let begun = Instant::now();
    rig.fleet.start_all(1).await?;
    let (_, left) = rig.settle().await;
    let published_in = begun.elapsed();
    let mut outcome = rig.finish(&history).await?;
    rig.said_so(&mut outcome);
    outcome.recovery("published with the right name", published_in, Duration::from_secs(10));
    outcome.expect(left.is_none(), format!("not published: {left:?}"));
    outcome.expect(lines.len() <= FEW_LINES, format!("{} warnings, such as {:?}", lines.len(), lines.last()));
    outcome.note(format!("{} warnings; exit {status} after {:.1} s", lines.len(), took.as_secs_f64()));
    outcome.at_most("SIGTERM without a broker", took, Duration::from_secs(10));
    let failed = history.attempts.iter().filter(|attempt| attempt.status != Some(201)).count();
    outcome.expect(failed == 0, format!("{failed} tries got no 201"));
    Ok(outcome)
}
