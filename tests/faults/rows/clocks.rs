//! F20: the clock of one replica is wrong, in another way every two seconds.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use tokio::time::sleep;

use super::LeftOut;
use crate::{bench::Bench, report::Outcome};

/// What the dial is turned to, one after the other.
const TURNS: [&str; 6] = ["+2h", "-2h", "+1d", "-1d", "+5s", "-5s"];
/// The clock that is turned is this replica's; the other one's is right.
const WRONG: usize = 1;

pub(crate) async fn stepped(bench: &mut Bench) -> Result<Outcome> {
    let library = library().ok_or_else(|| LeftOut("needs faketime (apt install faketime)".to_owned()))?;
    let dial = bench.stack.dir().join(format!("{}.clock", bench.name));
    fs::write(&dial, "+0")?;
    bench.fleet.start(0).await?;
    bench.set("LD_PRELOAD", library.to_string_lossy());
    bench.set("FAKETIME_TIMESTAMP_FILE", dial.to_string_lossy());
    bench.set("FAKETIME_NO_CACHE", "1");
    // Only the time of day: nothing sets back what counts since the machine's start.
    bench.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    bench.fleet.start(WRONG).await?;
    bench.fleet.rest().await?;
    let load = bench.load(bench.plan(50.0));
    let mut farthest = 0;
    while load.goes_on() || bench.strikes < TURNS.len() {
        fs::write(&dial, TURNS[bench.strikes % TURNS.len()])?;
        bench.strike();
        sleep(Duration::from_secs(2)).await;
        farthest = farthest.max(wrong_by(bench).await?.abs());
        // From here on nobody has the right time.
        if bench.strikes == TURNS.len() {
            bench.fleet.stop(0).await?;
        }
    }
    let history = load.end().await?;
    let mut outcome = bench.finish(&history).await?;
    outcome.note(format!("wrong by up to {farthest} s"));
    outcome.expect(farthest > 80_000, format!("the clock was wrong by {farthest} s at most"));
    outcome.recovery("p99 lateness", bench.lateness(0.99).await?, Duration::from_millis(250));
    outcome.at_most("latest step", bench.lateness(1.0).await?, Duration::from_secs(2));
    Ok(outcome)
}

/// By how many seconds the replica's clock is ahead of the database's.
async fn wrong_by(bench: &Bench) -> Result<i64> {
    let url = format!("{}/healthz", bench.fleet.replica(WRONG)?.url);
    let answer = reqwest::Client::builder().no_proxy().build()?.get(url).send().await?;
    let date = answer.headers().get("date").context("no Date")?.to_str()?.to_owned();
    let right: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&bench.db).await?;
    Ok((DateTime::parse_from_rfc2822(&date)?.to_utc() - right).num_seconds())
}

/// Where Debian puts the library, on any kind of machine.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}
