//! F23: replicas that start on an empty database together, and ones that find orders of those before them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use testkit::Stack;
use tokio::time::Instant;

use crate::{
    app::Fleet,
    check::{self, SIX},
    load::History,
    report::Outcome,
    rig::Rig,
};

/// Races in a full run.
const RACES: usize = 50;

pub(crate) async fn race(rig: &mut Rig) -> Result<Outcome> {
    let races = if rig.scale.orders < 1_000 { 5 } else { RACES };
    let (mut errors, mut slowest) = (Vec::new(), Duration::ZERO);
    for number in 0..races {
        let stack = Stack::make(&format!("{}_{number}", rig.name)).await?;
        rig.set("PG_DSN", stack.dsn().context("PG_DSN")?);
        // Whoever was killed before is a member of its group for a while, and others wait for it.
        rig.set("KAFKA_GROUP", stack.name.clone());
        let started = Instant::now();
        let mut replicas = [(); 2].map(|()| Fleet::new(rig.fleet.settings.clone(), None));
        let [one, other] = &mut replicas;
        let (one_up, other_up) = tokio::join!(one.start_all(1), other.start_all(1));
        one_up.and(other_up)?;
        slowest = slowest.max(started.elapsed());
        errors
            .extend(replicas.iter().flat_map(|fleet| fleet.journal.warnings()).filter(|line| is_error(line)));
        for replica in &mut replicas {
            replica.kill(0).await?;
        }
        stack.clean_up().await?;
    }
    let (dsn, group) = (rig.dsn.clone(), rig.group.clone());
    rig.set("PG_DSN", dsn);
    rig.set("KAFKA_GROUP", group);
    let mut outcome = upgraded(rig).await?;
    outcome.note(format!("{races} races"));
    outcome
        .expect(errors.is_empty(), format!("{} errors logged, such as {:?}", errors.len(), errors.first()));
    outcome.recovery("both ready", slowest, Duration::from_secs(5));
    Ok(outcome)
}

fn is_error(line: &str) -> bool {
    line.contains("\"ERROR\"") || line.contains("schema")
}

/// Orders that were under way when the schema was that of the first migration, the only one so far: once there are
/// more, undo them here.
async fn upgraded(rig: &mut Rig) -> Result<Outcome> {
    let orders = 20;
    rig.fleet.start_all(1).await?;
    rig.fleet.stop_all().await?;
    for number in 0..orders {
        let status = SIX[1 + number % 4];
        let order_id = format!("ORD-01KAAA0000000000000000{number:04}");
        sqlx::query(
            "INSERT INTO orders VALUES ($1, $1, 'x', 'soup', 'small', $2, $3, now() - interval '1 minute',
                now() - interval '1 minute', now() - interval '1 second')",
        )
        .bind(&order_id)
        .bind(status)
        .bind(i32::try_from(number % 4 + 2)?)
        .execute(&rig.db)
        .await?;
        for (seq, event) in (1_i32..).zip(&SIX[..number % 4 + 2]) {
            sqlx::query(
                r#"INSERT INTO order_events (order_id, event, seq, "timestamp")
                    VALUES ($1, $2, $3, now() - interval '1 minute')"#,
            )
            .bind(&order_id)
            .bind(event)
            .bind(seq)
            .execute(&rig.db)
            .await?;
        }
    }
    rig.fleet.start_all(2).await?;
    let (took, left) = rig.settle().await;
    rig.fleet.stop_all().await?;
    let lines = check::lines(&rig.db).await?;
    // They have no rows in the outbox: nobody ever promised to publish them, and their made-up history is all of
    // one moment.
    let findings = check::examine(&lines, &History::default(), None);
    let mut outcome = Outcome {
        orders: lines.len(),
        lost: findings.lost.len(),
        doubled: findings.doubled.len(),
        ..Outcome::default()
    };
    outcome.expect(lines.len() == orders, "orders of the old schema are gone");
    outcome.expect(left.is_none(), format!("orders of the old schema wait: {left:?}"));
    outcome.note(format!("orders of the old schema delivered in {:.1} s", took.as_secs_f64()));
    Ok(outcome)
}
