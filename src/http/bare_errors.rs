//! hyper answers a head that is not HTTP by itself, with a status and no body. This sits below it
//! and puts a problem in the place of such an answer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::Problem;

/// A connection on which no error goes out without a body.
pub(super) struct BareErrors<I> {
    inner: I,
    /// What is left of the problem that is being written.
    problem: Vec<u8>,
}

impl<I> BareErrors<I> {
    pub(super) fn new(inner: I) -> Self {
        Self { inner, problem: Vec::new() }
    }

    pub(super) fn into_inner(self) -> I {
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
        b"414" => Problem::path_too_long(),
        b"431" => Problem::head_too_large(),
        _ => Problem::malformed("the request line or a header is not valid HTTP/1.1"),
    })
}

impl<I: Read + Unpin> Read for BareErrors<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<I: Write + Unpin> Write for BareErrors<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.problem.is_empty() {
            match problem_for(buf) {
                Some(problem) => this.problem = problem.raw_response(),
                None => return Pin::new(&mut this.inner).poll_write(cx, buf),
            }
        }
        // hyper offers the same bytes again until they count as written.
        while !this.problem.is_empty() {
            let written = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.problem))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.problem.drain(..written);
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
