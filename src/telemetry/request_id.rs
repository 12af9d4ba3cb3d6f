//! The id of a request, and the requests that the running code works for.
//!
//! Not a span of `tracing`: for a span every request would pay, at its beginning and at each poll. The id is copied, and
//! looked at only where a line is written.

use std::{fmt, sync::Arc};

/// Longest id that is taken from a client.
const LONGEST: usize = 64;
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Digits of an id of our own.
const DIGITS: usize = 32;

tokio::task_local! {
    static CURRENT: Requests;
}

/// What a request is called: in answers, and in every line of the log that it causes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    length: usize,
    text: [u8; LONGEST],
}

impl RequestId {
    /// An id for a request that brought none.
    pub fn random() -> Self {
        let (bits, mut text) = (rand::random::<u128>(), [0; LONGEST]);
        for (place, digit) in text[..DIGITS].iter_mut().enumerate() {
            *digit = HEX[(bits >> (4 * place)) as usize & 15];
        }
        Self { length: DIGITS, text }
    }

    /// The id that a client gave, if it is safe to log and to echo.
    pub fn given(id: &[u8]) -> Option<Self> {
        let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if !(1..=LONGEST).contains(&id.len()) || !id.iter().all(safe) {
            return None;
        }
        let mut text = [0; LONGEST];
        text[..id.len()].copy_from_slice(id);
        Some(Self { length: id.len(), text })
    }

    /// Letters, digits, `-`, `_` and `.` only.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }

    /// The request that the running code works for, if it is for one alone.
    pub fn current() -> Option<Self> {
        match Requests::current()? {
            Requests::One(id) => Some(id),
            Requests::Shared(_) => None,
        }
    }

    /// Works for this request.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(Requests::One(self), work).await
    }

    /// The same without waiting.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Requests::One(self), work)
    }

    /// Works for all of these at once, as a transaction or a query does.
    pub async fn during_all<T>(requests: Vec<Self>, work: impl Future<Output = T>) -> T {
        match requests[..] {
            [] => work.await,
            [id] => id.during(work).await,
            _ => CURRENT.scope(Requests::Shared(Arc::new(requests)), work).await,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The requests that the running code works for.
#[derive(Clone)]
pub(super) enum Requests {
    One(RequestId),
    Shared(Arc<Vec<RequestId>>),
}

impl Requests {
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_is_taken_from_a_client() {
        let longest = "x".repeat(LONGEST);
        for good in ["a", "abc-1.2_3", &longest] {
            assert_eq!(RequestId::given(good.as_bytes()).expect(good).as_str(), good);
        }
        for bad in ["", "a b", "<x>", "a\nb", "é", &format!("{longest}x")] {
            assert_eq!(RequestId::given(bad.as_bytes()), None, "{bad:?}");
        }
        let (one, other) = (RequestId::random(), RequestId::random());
        assert!(one != other && one.as_str().len() == DIGITS, "{one} {other}");
        assert_eq!(RequestId::given(one.as_str().as_bytes()), Some(one));
    }

    #[tokio::test]
    async fn work_knows_the_request_that_it_is_for() {
        let (id, other) = (RequestId::random(), RequestId::random());
        assert_eq!(RequestId::current(), None);
        let inside = async || {
            tokio::task::yield_now().await;
            RequestId::current()
        };
        assert_eq!(id.during(inside()).await, Some(id));
        assert_eq!(RequestId::during_all(vec![id], inside()).await, Some(id));
        assert_eq!(RequestId::during_all(Vec::new(), inside()).await, None);
        assert_eq!(RequestId::during_all(vec![id, other], inside()).await, None, "it is for both");
        assert_eq!((id.within(RequestId::current), RequestId::current()), (Some(id), None));
    }
}
