//! A service that says what a test wants, to see what a command makes of it.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Answers each connection with the next of its answers, the last one again and again.
pub(crate) struct Double {
    /// `http://127.0.0.1:port`.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Double {
    pub(crate) async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, answers, Arc::clone(&asked)));
        Self { url, asked }
    }

    /// The requests so far, as they came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn serve(listener: TcpListener, answers: Vec<String>, asked: Arc<Mutex<Vec<String>>>) {
    let mut n = 0;
    while let Ok((mut stream, _)) = listener.accept().await {
        let request = request(&mut stream).await;
        asked.lock().expect("no panic").push(request);
        drop(stream.write_all(answers[n.min(answers.len() - 1)].as_bytes()).await);
        drop(stream.shutdown().await);
        n += 1;
    }
}

/// A request with as much of a body as it announces.
async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
                return text;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers = headers.iter().flat_map(|header| [*header, "\r\n"]).collect::<String>();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// An answer of JSON.
pub(crate) fn json(body: &serde_json::Value) -> String {
    answer("200 OK", &["content-type: application/json"], &body.to_string())
}
