//! Whether to ask again, and when.

use std::time::Duration;

use chrono::DateTime;
use tokio::time::Instant;

use crate::{
    client::{Answer, ClientError, StatusCode, header},
    order::Timestamp,
    time::{Backoff, Clock as _, SystemClock},
};

/// What is left of somebody's patience.
pub(super) struct Retry {
    patience: Duration,
    begun: Instant,
    backoff: Backoff,
    pauses: u32,
}

impl Retry {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, begun: Instant::now(), backoff: Backoff::default(), pauses: 0 }
    }

    /// How long to wait; `None` if there is nothing to wait for, or no longer than the patience lasts.
    pub(super) fn pause(&mut self, outcome: &Result<Answer, ClientError>) -> Option<Duration> {
        let asked = match outcome {
            Ok(answer) if is_busy(answer.status) => retry_after(answer, SystemClock.now()),
            Err(ClientError::Lost) => None,
            // A wrong address, a certificate: no time heals these. Who was silent has had ten seconds.
            _ => return None,
        };
        self.next(asked)
    }

    /// The same where the outcome is known to be worth it.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let pause = self.backoff.next_pause().max(asked.unwrap_or_default());
        let fits = self.begun.elapsed().saturating_add(pause) <= self.patience;
        self.pauses += u32::from(fits);
        fits.then_some(pause)
    }

    /// Whether the pause that begins is the first.
    pub(super) fn is_first(&self) -> bool {
        self.pauses == 1
    }
}

/// Whether this says "not now": of the service, or of what deals out its connections.
pub(super) fn is_busy(status: StatusCode) -> bool {
    use StatusCode as S;
    [S::TOO_MANY_REQUESTS, S::BAD_GATEWAY, S::SERVICE_UNAVAILABLE, S::GATEWAY_TIMEOUT].contains(&status)
}

/// How long an answer asks to wait: seconds, or a moment.
pub(super) fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let text = answer.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let moment = DateTime::parse_from_rfc2822(text).ok()?;
        Some((moment.to_utc() - now).to_std().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::client::HeaderMap;

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        headers.extend(retry_after.map(|text| (header::RETRY_AFTER, text.parse().expect("a value"))));
        Answer { status: StatusCode::from_u16(status).expect("a status"), headers, body: Bytes::new() }
    }

    #[test]
    fn seconds_and_moments_are_understood() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a moment");
        for (text, seconds) in [
            ("7", Some(7)),
            ("Fri, 02 Jan 2026 03:04:15 GMT", Some(10)),
            ("Fri, 02 Jan 2026 03:04:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(
                retry_after(&answer(503, Some(text)), now),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(retry_after(&answer(503, None), now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_waited_for_and_not_for_longer_than_patience_lasts() {
        let fresh = || Retry::new(Duration::from_secs(5));
        for status in [429, 502, 503, 504] {
            assert_eq!(
                fresh().pause(&Ok(answer(status, Some("2")))),
                Some(Duration::from_secs(2)),
                "{status}"
            );
            assert_eq!(fresh().pause(&Ok(answer(status, Some("6")))), None, "{status}");
        }
        assert!(fresh().pause(&Err(ClientError::Lost)).is_some());
        for outcome in [
            Ok(answer(200, None)),
            Ok(answer(500, None)),
            Ok(answer(404, Some("1"))),
            Err(ClientError::Timeout),
        ] {
            assert_eq!(fresh().pause(&outcome), None, "{outcome:?}");
        }
        let mut retry = fresh();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            retry.pause(&Ok(answer(503, Some("18446744073709551615")))),
            None,
            "longer than can be added"
        );
        let mut retry = fresh();
        let mut pauses = Vec::new();
        while let Some(pause) = retry.pause(&Err(ClientError::Lost)) {
            assert_eq!(retry.is_first(), pauses.is_empty());
            pauses.push(pause);
            tokio::time::advance(pause).await;
        }
        assert!(pauses.len() > 2 && pauses.iter().sum::<Duration>() <= Duration::from_secs(5), "{pauses:?}");
    }
}
