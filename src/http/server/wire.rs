//! What hyper leaves to others on a connection: it waits for ever for a client that does not read, and
//! answers a head that is not HTTP with a status and no body. This sits below it, ends the one and puts a
//! problem in the place of the other. And it does not look whether a client is still there while an answer
//! waits, since a client may have closed its side and still read; for answers that may wait for minutes this looks.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

use super::{
    super::{Problem, RequestLog},
    client::Waiting,
};

/// How long a client may leave what was written for it unread.
const STALLED_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes that a client may send behind a request whose answer waits.
const MAX_AHEAD: usize = 16 * 1024;

/// A connection on which no write waits for ever and no error goes out without a body.
pub(in crate::http) struct Wire<I> {
    inner: I,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is left of the problem that is being written.
    problem: Vec<u8>,
    /// Whether the answer waits.
    waiting: Waiting,
    /// What the client has sent meanwhile.
    ahead: Vec<u8>,
    log: Arc<RequestLog>,
}

impl<I> Wire<I> {
    pub(in crate::http) fn new(inner: I, waiting: Waiting, log: Arc<RequestLog>) -> Self {
        Self { inner, stalled: None, problem: Vec::new(), waiting, ahead: Vec::new(), log }
    }

    pub(in crate::http) fn into_inner(self) -> I {
        self.inner
    }
}

/// The problem for an answer of hyper's own. Answers of ours always have a body, so an error
/// with a length of 0 is never one of them.
fn problem_for(head: &[u8]) -> Option<Problem> {
    let status = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
    if status[0] != b'4' || !head.windows(21).any(|part| part == b"\r\ncontent-length: 0\r\n") {
        return None;
    }
    Some(match status {
        b"431" => Problem::head_too_large(),
        _ => Problem::malformed("the request line or a header is not valid HTTP/1.1"),
    })
}

impl<I: Write + Unpin> Wire<I> {
    /// A write to the client, given up when it does not read.
    fn poll_in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let outcome = write(Pin::new(&mut self.inner), cx);
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED_TIMEOUT)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: Read + Unpin> Wire<I> {
    /// While the answer waits: an error as soon as the client is gone.
    fn look_for_the_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut bytes = [0; 1_024];
        while self.waiting.get() {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.inner).poll_read(cx, buf.unfilled()) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => break,
            }
            // Behind bytes that nobody takes its end could not be seen.
            if buf.filled().is_empty() || self.ahead.len() + buf.filled().len() > MAX_AHEAD {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.ahead.extend_from_slice(buf.filled());
        }
        Ok(())
    }
}

impl<I: Read + Unpin> Read for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let part = buf.remaining().min(self.ahead.len());
        buf.put_slice(&self.ahead[..part]);
        self.ahead.drain(..part);
        Poll::Ready(Ok(()))
    }
}

impl<I: Read + Write + Unpin> Write for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.problem.is_empty() {
            match problem_for(buf) {
                Some(problem) => this.problem = this.log.refuse(&problem),
                None => return this.poll_in_time(cx, |inner, cx| inner.poll_write(cx, buf)),
            }
        }
        // hyper offers the same bytes again until they count as written.
        while !this.problem.is_empty() {
            let rest = std::mem::take(&mut this.problem);
            let outcome = this.poll_in_time(cx, |inner, cx| inner.poll_write(cx, &rest));
            this.problem = rest;
            let written = ready!(outcome)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.problem.drain(..written);
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_in_time(cx, hyper::rt::Write::poll_flush))?;
        Poll::Ready(self.look_for_the_client(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(cx, hyper::rt::Write::poll_shutdown)
    }
}
