//! Places orders by itself, through the same queue as a POST.

use std::time::Duration;

use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{order::sample, tracker::Tracker};

/// The timer is as coarse.
const SHORTEST: Duration = Duration::from_millis(1);

/// How far apart orders are placed at so many a second; a day if they are fewer.
pub fn distance(rate: f64) -> Duration {
    const LONGEST: Duration = Duration::from_hours(24);
    Duration::try_from_secs_f64(1.0 / rate).map_or(LONGEST, |distance| distance.clamp(SHORTEST, LONGEST))
}

/// Places `rate` orders a second, above 0, until told to stop, and waits for those under way.
pub async fn run(tracker: Tracker, rate: f64, stop: CancellationToken) {
    let mut ticks = interval(distance(rate));
    // After a pause of the whole process the rate stays what was asked for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let placing = TaskTracker::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let tracker = tracker.clone();
        placing.spawn(async move {
            if let Err(error) =
                tracker.place(sample::plausible_order(), None, Some(json!({"source": "simulator"}))).await
            {
                debug!(%error, "a simulated order was not placed");
            }
        });
    }
    placing.close();
    placing.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_rate_has_a_distance() {
        assert_eq!(distance(4.0), Duration::from_millis(250));
        for rate in [1e-300, 1e-20, f64::MIN_POSITIVE, 0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX] {
            assert!((SHORTEST..=Duration::from_hours(24)).contains(&distance(rate)), "{rate}");
        }
    }
}
