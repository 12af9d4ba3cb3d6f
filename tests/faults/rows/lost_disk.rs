//! A broker that comes back with nothing of what it had: F35.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::Part;
use tokio::time::sleep;

use super::broker::{OUT_WITHIN, emptied};
use crate::{report::Outcome, rig::Rig};

/// How long until the new, empty topics are read.
const READ_WITHIN: Duration = Duration::from_secs(15);

/// Topics, orders and the group's offsets are gone. The topics are made again, what is placed from then on is
/// published and read, and `republish` brings back what was lost.
pub(crate) async fn empty_disk(rig: &mut Rig) -> Result<Outcome> {
    rig.fleet.start_all(1).await?;
    let load = rig.load(rig.plan(40.0));
    sleep(Duration::from_secs(2)).await;
    rig.strike();
    rig.servers.kill(Part::Kafka).await?;
    rig.servers.wipe(Part::Kafka).await?;
    rig.servers.start(Part::Kafka).await?;
    let out = emptied(rig).await;
    let history = load.end().await?;
    let read = rig.topic.caught_up(&rig.group, READ_WITHIN).await?;
    let published = rig.topic.read().await?.len();
    let republished = rig.run(&["republish", "--since", "1h"]).await?;
    ensure!(republished.status.success(), "{}", String::from_utf8_lossy(&republished.stderr));
    emptied(rig).await;
    let mut outcome = rig.finish(&history).await?;
    outcome.recovery("what waited was out", out, OUT_WITHIN);
    outcome.note(format!("read after {read:.1?}; {published} orders on the new topic before republish"));
    outcome.expect(published < history.attempts.len(), "nothing was lost with the disk".to_owned());
    Ok(outcome)
}
