//! Reports: F39, F40, F41, F42.

use std::time::Duration;

use anyhow::Result;
use testkit::Part;
use tokio::time::sleep;

use super::feed::merge;
use crate::{
    load::History,
    report::Outcome,
    reporters::{Answers, Manner, Reporters},
    rig::{REFUSED_WITHIN, Rig},
};

/// F39: many report the same and different things about one order on two replicas.
pub(crate) async fn racing(rig: &mut Rig) -> Result<Outcome> {
    let orders = if rig.scale.ci { 40 } else { 300 };
    let history = placed(rig, orders, "reported").await?;
    let manner = Manner { racers: 32, pause: Duration::ZERO, orders_at_once: 4 };
    let answers = Reporters::start(rig.fleet.targets.clone(), &history.placed, manner).end().await?;
    finish(rig, &history, &answers).await
}

/// F40: replicas are killed while they take reports.
pub(crate) async fn killed(rig: &mut Rig) -> Result<Outcome> {
    let orders = rig.scale.orders.min(1_000);
    let history = placed(rig, orders, "reported").await?;
    let manner = Manner { racers: 2, pause: Duration::from_millis(150), orders_at_once: 48 };
    let reporters = Reporters::start(rig.fleet.targets.clone(), &history.placed, manner);
    while reporters.work_on() && rig.strikes < 20 {
        rig.pause(200..900).await;
        let slot = rig.strikes % 2;
        rig.strike();
        rig.fleet.kill(slot).await?;
        rig.fleet.start(slot).await?;
        rig.ready_again();
    }
    let answers = reporters.end().await?;
    let killed = rig.strikes;
    let mut outcome = finish(rig, &history, &answers).await?;
    outcome.expect(killed > 1, "nobody was killed in the middle");
    Ok(outcome)
}

/// F41: what a timer does is reported at the same moment.
pub(crate) async fn against_timers(rig: &mut Rig) -> Result<Outcome> {
    let orders = rig.scale.orders.min(1_000);
    // A step that was reported sets the timer for just the moment of the next report.
    let delay = Duration::from_millis(500);
    rig.set("STAGE_DELAYS", format!("{}ms", delay.as_millis()));
    let history = placed(rig, orders, "timer").await?;
    let manner = Manner { racers: 2, pause: delay, orders_at_once: orders };
    let answers = Reporters::start(rig.fleet.targets.clone(), &history.placed, manner).end().await?;
    let mut outcome = finish(rig, &history, &answers).await?;
    outcome.expect(answers.count() > 0, "no report came before its timer");
    Ok(outcome)
}

/// F42: the database is restarted while reports are made, then the broker is away.
pub(crate) async fn without_others(rig: &mut Rig) -> Result<Outcome> {
    let orders = rig.scale.orders.min(1_000);
    let history = placed(rig, orders, "reported").await?;
    let manner = Manner { racers: 2, pause: Duration::from_millis(300), orders_at_once: 48 };
    let reporters = Reporters::start(rig.fleet.targets.clone(), &history.placed, manner);
    sleep(Duration::from_secs(1)).await;
    rig.strike();
    rig.servers.stop(Part::Postgres).await?;
    sleep(Duration::from_millis(2_500)).await;
    rig.servers.start(Part::Postgres).await?;
    rig.ready_again();
    sleep(Duration::from_secs(2)).await;
    rig.strike();
    rig.servers.kill(Part::Kafka).await?;
    let answers = reporters.end().await?;
    rig.servers.start(Part::Kafka).await?;
    rig.ready_again();
    let mut outcome = finish(rig, &history, &answers).await?;
    outcome.at_most("slowest 503", answers.slowest_refusal(), REFUSED_WITHIN);
    Ok(outcome)
}

/// Orders that people move, or timers, on two replicas.
async fn placed(rig: &mut Rig, orders: usize, progression: &str) -> Result<History> {
    rig.set("PROGRESSION", progression);
    rig.fleet.start_all(2).await?;
    let mut plan = rig.plan(400.0);
    plan.orders = orders;
    rig.load(plan).end().await
}

async fn finish(rig: &mut Rig, history: &History, answers: &Answers) -> Result<Outcome> {
    let mut own = Outcome::default();
    let outcome = rig.finish(history).await?;
    answers.judge(&rig.db, &mut own).await?;
    let verified = rig.run(&["verify"]).await?;
    let said = String::from_utf8_lossy(&verified.stdout);
    own.expect(verified.status.success(), format!("verify: {said}"));
    Ok(merge(outcome, own))
}
