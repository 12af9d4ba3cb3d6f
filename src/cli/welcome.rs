//! The first minute: what somebody at a terminal is told once the service listens.

use std::{
    fmt::Write as _,
    io::{Write as _, stderr},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use tokio::time::{Instant, sleep};
use url::Url;

use super::client::Client;
use crate::{
    client::{Answer, ClientRequest},
    load::new_order,
};

/// How long the database may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Speaks as a client of the service, so what it tells is what anybody sees.
pub(super) struct Welcome {
    client: Client,
    demo: bool,
}

impl Welcome {
    /// For a service that listens there; `demo` lets it place an order where there is none.
    pub(super) fn new(mut address: SocketAddr, demo: bool) -> anyhow::Result<Self> {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Ok(Self { client: Client::impatient(Url::parse(&format!("http://{address}"))?), demo })
    }

    /// Places the first order, if there is none, and says what to try.
    pub(super) async fn say(self) {
        let order = self.first_order().await;
        let mut pages = Vec::new();
        let track = order.as_deref().map(|id| ("your first order", format!("/track/{id}")));
        let known = [("board", "/".to_owned()), ("documents", "/docs".to_owned())];
        for (name, path) in track.into_iter().chain(known) {
            if self.get(path.clone()).await.is_some() {
                pages.push((name, path));
            }
        }
        let program = std::env::args().next().unwrap_or_else(|| "order-tracker".to_owned());
        let text = words(&self.client.base, &program, order.as_deref(), &pages);
        drop(write!(stderr().lock(), "{text}"));
    }

    async fn first_order(&self) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let newest = loop {
            match self.get("/orders?limit=1".to_owned()).await {
                Some(newest) => break newest,
                None if Instant::now() > deadline => return None,
                None => sleep(POLL).await,
            }
        };
        let empty = self.client.read::<Vec<Value>>(&newest).is_ok_and(|orders| orders.is_empty());
        if !self.demo || !empty {
            return None;
        }
        Some(self.client.send(new_order()).await.ok()?.order_id()?.to_string())
    }

    async fn get(&self, path: String) -> Option<Answer> {
        self.client.send(ClientRequest::get(path)).await.ok()
    }
}

/// What is said; pages that are not there are not told of.
fn words(base: &Url, program: &str, order: Option<&str>, pages: &[(&str, String)]) -> String {
    let url = base.as_str().trim_end_matches('/');
    let at = if base.port() == Some(8080) { String::new() } else { format!(" --url {url}") };
    let mut text = String::from("\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<18}{value}");
    };
    for (name, path) in pages {
        line(name, &format!("{url}{path}"));
    }
    if let Some(id) = order {
        line("or here, live", &format!("{program} order watch {id}{at}"));
    }
    line("more orders", &format!("{program} simulate --rate 2 --duration 1m{at}"));
    line(
        "one of your own",
        &format!(
            "curl {url}/orders --json '{{\"customer_name\": \"Ada\", \"address\": \"1 High St\", \"item\": \"pizza\", \"size\": \"large\"}}'"
        ),
    );
    line("end", "Ctrl-C; orders under way go on at the next start");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_told_of() {
        let base: Url = "http://127.0.0.1:8080".parse().expect("an address");
        let alone = words(&base, "ot", None, &[]);
        assert!(alone.contains("  more orders       ot simulate --rate 2 --duration 1m\n"), "{alone}");
        assert!(!alone.contains("board") && !alone.contains("watch"), "{alone}");
        let base: Url = "http://127.0.0.1:9".parse().expect("an address");
        let full = words(&base, "ot", Some("ORD-1"), &[("board", "/".to_owned())]);
        assert!(full.contains("  board             http://127.0.0.1:9/\n"), "{full}");
        assert!(full.contains("ot order watch ORD-1 --url http://127.0.0.1:9\n"), "{full}");
    }

    #[test]
    fn a_service_on_all_addresses_is_asked_at_home() {
        for (address, told) in [("0.0.0.0:80", "http://127.0.0.1/"), ("[::]:81", "http://[::1]:81/")] {
            let welcome = Welcome::new(address.parse().expect("an address"), true).expect("a client");
            assert_eq!(welcome.client.base.as_str(), told);
        }
    }
}
