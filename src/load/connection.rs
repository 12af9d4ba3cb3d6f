//! One connection to the service: one request after the other, made again when it is lost.

use std::{
    io,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::Ask;
use crate::order::OrderId;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection idle for so long is made anew: the service may be closing it at this moment.
const STALE: Duration = Duration::from_secs(5);

/// Where the service is.
#[derive(Debug, Clone)]
pub struct Target {
    host: String,
    port: u16,
    /// What `Host` says.
    authority: String,
    /// What comes before every path, without a slash at the end.
    prefix: String,
}

impl Target {
    /// From the address of a service, `http://host:port`.
    pub fn new(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port_or_known_default().unwrap_or(80),
            authority: url.authority().rsplit('@').next().unwrap_or(host).to_owned(),
            prefix: url.path().trim_end_matches('/').to_owned(),
        }
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody took the call.
    #[error("{}", .0.kind())]
    NoConnection(io::Error),
    /// The connection ended before the answer did.
    #[error("connection lost")]
    Lost,
    /// Nothing came in time.
    #[error("no answer within {PATIENCE:?}")]
    Timeout,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the service did what was asked.
    pub fn is_good(&self) -> bool {
        self.status.is_success()
    }

    /// The order that was placed, if this is the answer to a new order.
    pub fn order_id(&self) -> Option<OrderId> {
        #[derive(Deserialize)]
        struct Placed {
            order_id: OrderId,
        }
        serde_json::from_slice::<Placed>(&self.body).ok().map(|placed| placed.order_id)
    }
}

/// A connection that is made when it is needed.
pub struct Connection {
    target: Target,
    line: Option<SendRequest<Full<Bytes>>>,
    used: Instant,
}

impl Connection {
    /// Connects.
    pub async fn open(target: &Target) -> Result<Self, Trouble> {
        let mut connection = Self { target: target.clone(), line: None, used: Instant::now() };
        connection.line = Some(connection.call().await?);
        Ok(connection)
    }

    /// Sends one request and reads the whole answer.
    pub async fn ask(&mut self, ask: Ask) -> Result<Answer, Trouble> {
        let line = self.line.take().filter(|line| !line.is_closed() && self.used.elapsed() < STALE);
        let exchange = async {
            let mut line = match line {
                Some(line) => line,
                None => self.call().await?,
            };
            let response = line.send_request(self.request(ask)).await.map_err(|_| Trouble::Lost)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|_| Trouble::Lost)?.to_bytes();
            // After `Connection: close` there is no next request.
            let line = line.ready().await.is_ok().then_some(line);
            Ok((line, Answer { status, body }))
        };
        let (line, answer) = timeout(PATIENCE, exchange).await.map_err(|_| Trouble::Timeout)??;
        (self.line, self.used) = (line, Instant::now());
        Ok(answer)
    }

    async fn call(&self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        let address = (self.target.host.as_str(), self.target.port);
        let calling = timeout(PATIENCE, TcpStream::connect(address));
        let stream = calling.await.map_err(|_| Trouble::Timeout)?.map_err(Trouble::NoConnection)?;
        drop(stream.set_nodelay(true));
        let (line, driver) = handshake(TokioIo::new(stream)).await.map_err(|_| Trouble::Lost)?;
        // Ends with the connection; what went wrong shows in the answer that is missing.
        tokio::spawn(async { drop(driver.await) });
        Ok(line)
    }

    fn request(&self, ask: Ask) -> Request<Full<Bytes>> {
        let Ask { method, path, body } = ask;
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.prefix))
            .header(header::HOST, &self.target.authority);
        let request =
            if body.is_empty() { request } else { request.header(header::CONTENT_TYPE, "application/json") };
        request.body(Full::new(body)).expect("a path and plain headers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (url, host, port, authority, prefix) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080", ""),
            ("http://food.example/api/", "food.example", 80, "food.example", "/api"),
            ("http://[::1]:90", "::1", 90, "[::1]:90", ""),
        ] {
            let target = Target::new(&url.parse().expect("an address"));
            let Target { host: h, port: p, authority: a, prefix: x } = &target;
            assert_eq!((h.as_str(), *p, a.as_str(), x.as_str()), (host, port, authority, prefix));
        }
    }
}
