//! Bytes on a TCP connection, for what no HTTP client would send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{abuse::whole, harness::Service};

/// Longest that the service may leave a connection open here.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, read to the end of the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Insists on a whole problem.
    pub(crate) fn problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let length = self.header("content-length").and_then(|length| length.parse().ok());
        assert_eq!(length, Some(self.body.len()), "{self:?}");
        whole(&self.body, self.header("content-type"), self.header("x-request-id"), status, code);
    }
}

/// A connection on which these bytes were sent.
pub(crate) async fn connect(service: &Service, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(service.address()).await.expect("connected");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// What comes until the service closes; nothing if it closes without a word.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("closed in time")
        .unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&bytes)));
    bytes
}

/// The one answer on a connection.
pub(crate) async fn answer(stream: &mut TcpStream) -> Answer {
    let bytes = rest(stream).await;
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

/// Sends bytes and reads the one answer to them.
pub(crate) async fn exchange(service: &Service, bytes: &[u8]) -> Answer {
    answer(&mut connect(service, bytes).await).await
}
