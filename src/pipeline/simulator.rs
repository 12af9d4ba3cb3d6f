//! Places orders by itself, through the same desk as a POST.

use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{desk::Desk, sample};

/// Places `rate` orders a second, above 0, until told to stop, and waits for those under way.
pub async fn run(desk: Desk, rate: f64, stop: CancellationToken) {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    // After a pause of the whole process the rate stays what was asked for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let placing = TaskTracker::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let desk = desk.clone();
        placing.spawn(async move {
            if let Err(error) =
                desk.place(sample::plausible_draft(), None, Some(json!({"source": "simulator"}))).await
            {
                debug!(%error, "a simulated order was not placed");
            }
        });
    }
    placing.close();
    placing.wait().await;
}
