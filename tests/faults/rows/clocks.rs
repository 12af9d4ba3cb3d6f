//! F20: the clock of one replica is wrong, in another way every two seconds.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use tokio::time::sleep;

use super::LeftOut;
use crate::{report::Outcome, rig::Rig};

/// What the dial is turned to, one after the other.
const TURNS: [&str; 6] = ["+2h", "-2h", "+1d", "-1d", "+5s", "-5s"];
/// The clock that is turned is this replica's; the other one's is right.
const WRONG: usize = 1;

pub(crate) async fn stepped(rig: &mut Rig) -> Result<Outcome> {
    let library = library().ok_or_else(|| LeftOut("needs faketime (apt install faketime)".to_owned()))?;
    let dial = rig.servers.dir().join(format!("{}.clock", rig.name));
    fs::write(&dial, "+0")?;
    rig.fleet.start(0).await?;
    rig.set("LD_PRELOAD", library.to_string_lossy());
    rig.set("FAKETIME_TIMESTAMP_FILE", dial.to_string_lossy());
    rig.set("FAKETIME_NO_CACHE", "1");
    // Only the time of day: nothing sets back what counts since the machine's start.
    rig.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    rig.fleet.start(WRONG).await?;
    rig.fleet.rest().await?;
    let load = rig.load(rig.plan(50.0));
    let mut farthest = 0;
    while load.goes_on() || rig.strikes < TURNS.len() {
        fs::write(&dial, TURNS[rig.strikes % TURNS.len()])?;
        rig.strike();
        sleep(Duration::from_secs(2)).await;
        farthest = farthest.max(wrong_by(rig).await?.abs());
        // From here on nobody has the right time.
        if rig.strikes == TURNS.len() {
            rig.fleet.stop(0).await?;
        }
    }
    let history = load.end().await?;
    let mut outcome = rig.finish(&history).await?;
    outcome.note(format!("wrong by up to {farthest} s"));
    outcome.expect(farthest > 80_000, format!("the clock was wrong by {farthest} s at most"));
    outcome.recovery("p99 lateness", rig.lateness(0.99).await?, Duration::from_millis(250));
    outcome.at_most("latest step", rig.lateness(1.0).await?, Duration::from_secs(2));
    Ok(outcome)
}

/// By how many seconds the replica's clock is ahead of the database's.
async fn wrong_by(rig: &Rig) -> Result<i64> {
    let url = format!("{}/healthz", rig.fleet.replica(WRONG)?.url);
    let answer = reqwest::Client::builder().no_proxy().build()?.get(url).send().await?;
    let date = answer.headers().get("date").context("no Date")?.to_str()?.to_owned();
    let right: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&rig.db).await?;
    Ok((DateTime::parse_from_rfc2822(&date)?.to_utc() - right).num_seconds())
}

/// Where Debian puts the library, on any kind of machine.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}
