//! Server-sent events of a running service, and the patience to come back for them.

use std::{mem, time::Duration};

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use tokio::time::sleep;

use super::{
    client::Client,
    retry::{self, Retry},
};
use crate::{
    client::{
        Answer, ClientError, ClientRequest, StatusCode, Stream,
        header::{self, HeaderName},
        shown,
    },
    time::{Clock as _, SystemClock},
};

pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long to try again after a lost connection.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// A stream that lasted no longer has led to nothing.
pub(super) const SHORT: Duration = Duration::from_secs(5);
/// How long a stream may be silent: two of its heartbeats and a bit.
const SILENCE: Duration = crate::time::deadlines::STREAM_SILENCE;
/// Longest event that is taken for one.
const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// Connects, patiently; `None` if there is nothing more to come. `lost` is told why it takes a while.
pub(super) async fn connect(
    client: &Client,
    request: &ClientRequest,
    retry: &mut Retry,
    again: bool,
    mut lost: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Option<Stream>> {
    if again {
        let pause = retry.next(None);
        let pause = pause.with_context(|| format!("{} ends every stream at once", shown(&client.base)))?;
        sleep(pause).await;
    }
    loop {
        let outcome = match client.stream(request.clone()).await {
            Ok(stream) if stream.status == StatusCode::NO_CONTENT => return Ok(None),
            Ok(stream) if stream.status.is_success() => return Ok(Some(stream)),
            Ok(stream) => stream.whole().await,
            Err(error) => Err(error),
        };
        let pause = if may_pass(&outcome, again) { retry.next(asked(&outcome)) } else { None };
        let Some(pause) = pause else { return client.checked(outcome).map(|_| None) };
        lost(&client.state(&outcome))?;
        sleep(pause).await;
    }
}

/// Whether it is worth to come again. Where nothing has ever answered, the address is more likely to be wrong.
fn may_pass(outcome: &Result<Answer, ClientError>, again: bool) -> bool {
    match outcome {
        Ok(answer) => retry::is_busy(answer.status) || again && answer.status.is_server_error(),
        Err(ClientError::Lost) => true,
        Err(ClientError::NoConnection(_) | ClientError::Timeout) => again,
        Err(ClientError::Tls(_) | ClientError::NotHttp) => false,
    }
}

fn asked(outcome: &Result<Answer, ClientError>) -> Option<Duration> {
    retry::retry_after(outcome.as_ref().ok()?, SystemClock.now())
}

/// What stands between two empty lines; what was not sent is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// With what to come back from here on.
    pub(super) id: Option<String>,
    /// The kind of event.
    pub(super) name: String,
    /// What it says.
    pub(super) data: String,
}

impl Frame {
    /// Takes a line, as the standard says: <https://html.spec.whatwg.org/multipage/server-sent-events.html>
    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
    }
}

/// The frames of an open stream.
pub(super) struct Frames {
    stream: Stream,
    bytes: BytesMut,
    /// The lines of a frame that is not whole yet.
    begun: Frame,
}

impl Frames {
    pub(super) fn of(client: &Client, stream: Stream) -> anyhow::Result<Self> {
        let kind = stream.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_none_or(|kind| !kind.starts_with("text/event-stream")) {
            bail!("{} answered no event stream: is this an order-tracker?", shown(&client.base));
        }
        Ok(Self { stream, bytes: BytesMut::new(), begun: Frame::default() })
    }

    /// The next frame; `None` when the connection is gone. Nothing is lost if this is dropped half-way.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = whole(&mut self.bytes, &mut self.begun) {
                return Some(frame);
            }
            if self.bytes.len() + self.begun.data.len() > MAX_FRAME_BYTES {
                return None;
            }
            self.bytes.extend_from_slice(&self.stream.part(SILENCE).await?);
        }
    }
}

/// Takes the lines that are there; the frame once its last one is.
fn whole(bytes: &mut BytesMut, begun: &mut Frame) -> Option<Frame> {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line = bytes.split_to(end + 1);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Some(mem::take(begun));
        }
        begun.take(line);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let text = "retry: 2000\nid: 7\n\nid:8\r\nevent: event\r\n: a comment\r\ndata: {\"a\":\r\ndata: \"ü\"}\r\n\r\ndata\n\n";
        let frame = |id: Option<&str>, name: &str, data: &str| Frame {
            id: id.map(str::to_owned),
            name: name.to_owned(),
            data: data.to_owned(),
        };
        let expected =
            [frame(Some("7"), "", ""), frame(Some("8"), "event", "{\"a\":\n\"ü\"}"), frame(None, "", "")];
        for size in [1, 2, 7, text.len()] {
            let (mut bytes, mut begun, mut read) = (BytesMut::new(), Frame::default(), Vec::new());
            for part in text.as_bytes().chunks(size) {
                bytes.extend_from_slice(part);
                while let Some(frame) = whole(&mut bytes, &mut begun) {
                    read.push(frame);
                }
            }
            assert_eq!(read, expected, "{size} bytes at once");
        }
    }
}
