//! A demonstration to watch: everything breaks once while orders come in.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::{bench::Bench, check::Waiting, report::Outcome, stack::Part};

pub(crate) async fn rehearsal(bench: &mut Bench) -> Result<Outcome> {
    let curtain = Instant::now();
    let say = |act: &str| println!("[{:5.1} s] {act}", curtain.elapsed().as_secs_f64());
    bench.fleet.start_all(2).await?;
    say("two replicas are ready; orders come in, 50 a second");
    let load = bench.load(bench.plan(50.0));
    sleep(Duration::from_secs(4)).await;
    say("the broker is killed");
    bench.strike();
    bench.stack.kill(Part::Kafka).await?;
    sleep(Duration::from_secs(6)).await;
    tell(bench, &say).await;
    bench.stack.start(Part::Kafka).await?;
    say("the broker is back");
    sleep(Duration::from_secs(3)).await;
    tell(bench, &say).await;
    say("the database is restarted");
    bench.strike();
    bench.stack.stop(Part::Postgres).await?;
    sleep(Duration::from_secs(2)).await;
    bench.stack.start(Part::Postgres).await?;
    bench.ready_again();
    say("the database is back");
    sleep(Duration::from_secs(3)).await;
    tell(bench, &say).await;
    say("a replica is killed");
    bench.strike();
    bench.fleet.kill(0).await?;
    bench.ready_again();
    sleep(Duration::from_secs(3)).await;
    bench.fleet.start(0).await?;
    say("it is started again");
    let history = load.end().await?;
    say("the last order is accepted");
    let mut outcome = bench.finish(&history).await?;
    say("all is delivered and published; both replicas have stopped");
    let standstill = bench.longest_standstill(&history).await?;
    outcome.recovery("longest standstill after a fault", standstill, Duration::from_secs(2));
    Ok(outcome)
}

async fn tell(bench: &Bench, say: &impl Fn(&str)) {
    match Waiting::now(&bench.db).await {
        Ok(Waiting { stored, undelivered, unsent }) => {
            say(&format!("{stored} orders stored, {undelivered} on their way, {unsent} wait for the broker"));
        }
        Err(error) => say(&format!("the database says: {error}")),
    }
}
