//! A demonstration to watch: everything breaks once while orders come in.

use std::time::Duration;

use anyhow::Result;
use testkit::Part;
use tokio::time::{Instant, sleep};

use crate::{check::Waiting, report::Outcome, rig::Rig};

pub(crate) async fn rehearsal(rig: &mut Rig) -> Result<Outcome> {
    let curtain = Instant::now();
    let say = |act: &str| println!("[{:5.1} s] {act}", curtain.elapsed().as_secs_f64());
    rig.fleet.start_all(2).await?;
    say("two replicas are ready; orders come in, 50 a second");
    let load = rig.load(rig.plan(50.0));
    sleep(Duration::from_secs(4)).await;
    say("the broker is killed");
    rig.strike();
    rig.servers.kill(Part::Kafka).await?;
    sleep(Duration::from_secs(6)).await;
    tell(rig, &say).await;
    rig.servers.start(Part::Kafka).await?;
    say("the broker is back");
    sleep(Duration::from_secs(3)).await;
    tell(rig, &say).await;
    say("the database is restarted");
    rig.strike();
    rig.servers.stop(Part::Postgres).await?;
    sleep(Duration::from_secs(2)).await;
    rig.servers.start(Part::Postgres).await?;
    rig.ready_again();
    say("the database is back");
    sleep(Duration::from_secs(3)).await;
    tell(rig, &say).await;
    say("a replica is killed");
    rig.strike();
    rig.fleet.kill(0).await?;
    rig.ready_again();
    sleep(Duration::from_secs(3)).await;
    rig.fleet.start(0).await?;
    say("it is started again");
    let history = load.end().await?;
    say("the last order is accepted");
    let mut outcome = rig.finish(&history).await?;
    say("all is delivered and published; both replicas have stopped");
    let standstill = rig.longest_standstill(&history).await?;
    outcome.recovery("longest standstill after a fault", standstill, Duration::from_secs(2));
    Ok(outcome)
}

async fn tell(rig: &Rig, say: &impl Fn(&str)) {
    match Waiting::now(&rig.db).await {
        Ok(Waiting { stored, undelivered, unsent }) => {
            say(&format!("{stored} orders stored, {undelivered} on their way, {unsent} wait for the broker"));
        }
        Err(error) => say(&format!("the database says: {error}")),
    }
}
