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
use crate::client::{Answer, ClientRequest, StatusCode, load::new_order};

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
        Ok(Self { client: Client::without_key(Url::parse(&format!("http://{address}"))?), demo })
    }

    /// Places the first order, if there is none, and says what to try.
    pub(super) async fn say(self) {
        let (order, asks) = match self.first_order().await {
            First::Placed(id) => (Some(id), false),
            First::Asked => (None, true),
            First::Nothing => (None, false),
        };
        let mut pages = Vec::new();
        let track = order.as_deref().map(|id| ("your first order", format!("/track/{id}")));
        let known = [("board", "/".to_owned()), ("documents", "/docs".to_owned())];
        for (name, path) in track.into_iter().chain(known) {
            if self.get(path.clone()).await.is_some_and(|answer| answer.is_good() || asks) {
                pages.push((name, path));
            }
        }
        let program = std::env::args().next().unwrap_or_else(|| "order-tracker".to_owned());
        let text = words(&self.client.base, &program, order.as_deref(), &pages, asks);
        drop(write!(stderr().lock(), "{text}"));
    }

    async fn first_order(&self) -> First {
        let deadline = Instant::now() + PATIENCE;
        let newest = loop {
            match self.get("/orders?limit=1".to_owned()).await {
                Some(answer) if answer.status == StatusCode::UNAUTHORIZED => return First::Asked,
                Some(newest) if newest.is_good() => break newest,
                _ if Instant::now() > deadline => return First::Nothing,
                _ => sleep(POLL).await,
            }
        };
        let empty = self.client.read::<Vec<Value>>(&newest).is_ok_and(|orders| orders.is_empty());
        if !self.demo || !empty {
            return First::Nothing;
        }
        let placed = self.client.send(new_order()).await.ok().and_then(|answer| answer.order_id());
        placed.map_or(First::Nothing, |id| First::Placed(id.to_string()))
    }

    async fn get(&self, path: String) -> Option<Answer> {
        self.client.once(ClientRequest::get(path)).await.ok()
    }
}

/// What became of the first order.
enum First {
    Placed(String),
    /// The service asks for a key.
    Asked,
    Nothing,
}

/// What is said; pages that are not there are not told of.
fn words(base: &Url, program: &str, order: Option<&str>, pages: &[(&str, String)], asks: bool) -> String {
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
    if asks {
        line("a key", &format!("{program} keys create --name me --role staff"));
        line("with it", "sign in to the board, or export ORDER_TRACKER_KEY=otk_...");
        line("end", "Ctrl-C; orders under way go on at the next start");
        text.push('\n');
        return text;
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
        let alone = words(&base, "ot", None, &[], false);
        assert!(alone.contains("  more orders       ot simulate --rate 2 --duration 1m\n"), "{alone}");
        assert!(!alone.contains("board") && !alone.contains("watch"), "{alone}");
        let base: Url = "http://127.0.0.1:9".parse().expect("an address");
        let full = words(&base, "ot", Some("ORD-1"), &[("board", "/".to_owned())], false);
        assert!(full.contains("  board             http://127.0.0.1:9/\n"), "{full}");
        assert!(full.contains("ot order watch ORD-1 --url http://127.0.0.1:9\n"), "{full}");
        // Who has no key is told how to make one, not what he may not do.
        let asked = words(&base, "ot", None, &[("board", "/".to_owned())], true);
        assert!(asked.contains("ot keys create --name me --role staff\n"), "{asked}");
        assert!(!asked.contains("simulate") && !asked.contains("curl"), "{asked}");
    }

    #[test]
    fn a_service_on_all_addresses_is_asked_at_home() {
        for (address, told) in [("0.0.0.0:80", "http://127.0.0.1/"), ("[::]:81", "http://[::1]:81/")] {
            let welcome = Welcome::new(address.parse().expect("an address"), true).expect("a client");
            assert_eq!(welcome.client.base.as_str(), told);
        }
    }
}
