//! One connection to the service: one request after the other, made again when it is lost.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{timeout, timeout_at},
};

use super::{Answer, ClientError, ClientRequest, PATIENCE, Target, tls};

/// A connection idle for so long is made anew: the service may be closing it at this moment.
const STALE: Duration = Duration::from_secs(5);

/// A connection that is made when it is needed.
pub struct Connection {
    target: Target,
    line: Option<SendRequest<Full<Bytes>>>,
    used: Instant,
}

impl Connection {
    /// Connects.
    pub async fn open(target: &Target) -> Result<Self, ClientError> {
        let mut connection = Self { target: target.clone(), line: None, used: Instant::now() };
        connection.line = Some(connection.call().await?);
        Ok(connection)
    }

    /// Sends one request and reads the whole answer.
    pub async fn ask(&mut self, request: ClientRequest) -> Result<Answer, ClientError> {
        let line = self.line.take().filter(|line| !line.is_closed() && self.used.elapsed() < STALE);
        let exchange = async {
            let mut line = match line {
                Some(line) => line,
                None => self.call().await?,
            };
            let (head, body) = self.send(&mut line, request).await?.into_parts();
            let body = body.collect().await.map_err(|_| ClientError::Lost)?.to_bytes();
            // After `Connection: close` there is no next request.
            let line = line.ready().await.is_ok().then_some(line);
            Ok((line, Answer { status: head.status, headers: head.headers, body }))
        };
        let (line, answer) = timeout(PATIENCE, exchange).await.map_err(|_| ClientError::Timeout)??;
        (self.line, self.used) = (line, Instant::now());
        Ok(answer)
    }

    /// Sends one request whose answer has no end; only its head has to come in time.
    pub async fn stream(mut self, request: ClientRequest) -> Result<Stream, ClientError> {
        let exchange = async {
            let mut line = match self.line.take() {
                Some(line) => line,
                None => self.call().await?,
            };
            let (head, body) = self.send(&mut line, request).await?.into_parts();
            let now = tokio::time::Instant::now();
            Ok(Stream { status: head.status, headers: head.headers, body, heard: now, _line: line })
        };
        timeout(PATIENCE, exchange).await.map_err(|_| ClientError::Timeout)?
    }

    async fn send(
        &self,
        line: &mut SendRequest<Full<Bytes>>,
        request: ClientRequest,
    ) -> Result<Response<Incoming>, ClientError> {
        let sent = line.send_request(self.request(request)).await;
        sent.map_err(|error| if error.is_parse() { ClientError::NotHttp } else { ClientError::Lost })
    }

    async fn call(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        timeout(PATIENCE, self.connect()).await.map_err(|_| ClientError::Timeout)?
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let Target { host, port, tls, .. } = &self.target;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(ClientError::NoConnection)?;
        drop(stream.set_nodelay(true));
        if *tls { drive(tls::secure(stream, host).await?).await } else { drive(stream).await }
    }

    fn request(&self, request: ClientRequest) -> Request<Full<Bytes>> {
        let ClientRequest { method, path, headers, body, .. } = request;
        let Target { authority, prefix, authorization, .. } = &self.target;
        let has_body = !body.is_empty();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header(header::HOST, authority)
            .body(Full::new(body))
            .expect("a path and a host");
        let all = request.headers_mut();
        if has_body {
            all.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        }
        all.extend(authorization.iter().map(|value| (header::AUTHORIZATION, value.clone())));
        all.extend(headers);
        request
    }
}

async fn drive(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, ClientError> {
    let (line, driver) = handshake(TokioIo::new(stream)).await.map_err(|_| ClientError::Lost)?;
    // Ends with the connection; what went wrong shows in the answer that is missing.
    tokio::spawn(async { drop(driver.await) });
    Ok(line)
}

/// An answer that comes in parts.
pub struct Stream {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    /// When the last part came.
    heard: tokio::time::Instant,
    /// Keeps the connection.
    _line: SendRequest<Full<Bytes>>,
}

impl Stream {
    /// The next part; `None` at the end, or when nothing has come for `silence`. Nothing is lost if this is dropped half-way.
    pub async fn part(&mut self, silence: Duration) -> Option<Bytes> {
        loop {
            let frame = timeout_at(self.heard + silence, self.body.frame()).await.ok()??.ok()?;
            self.heard = tokio::time::Instant::now();
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// The rest as one answer.
    pub async fn whole(self) -> Result<Answer, ClientError> {
        let Self { status, headers, body, .. } = self;
        let body = timeout(PATIENCE, body.collect()).await.map_err(|_| ClientError::Timeout)?;
        Ok(Answer { status, headers, body: body.map_err(|_| ClientError::Lost)?.to_bytes() })
    }
}
