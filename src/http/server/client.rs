//! Who is at the other end of a connection, and whether an answer waits there.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What each request is told of its connection.
#[derive(Debug, Clone)]
pub(in crate::http) struct Connection {
    /// The address at its other end.
    pub(in crate::http) peer: IpAddr,
    /// Whether its answer waits.
    pub(in crate::http) waiting: Waiting,
}

/// Whether the answer on a connection waits for something to happen. While it does, nothing is written that
/// could fail, so the connection looks for the client's end itself.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Waiting(Arc<AtomicBool>);

impl Waiting {
    pub(in crate::http) fn set(&self, waiting: bool) {
        self.0.store(waiting, Ordering::Relaxed);
    }

    pub(in crate::http) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The proxies whose word on a client's address is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Those in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Who sent a request: the peer, or, where that is a trusted proxy, the last one in `X-Forwarded-For` that is
    /// none. What stands before that anybody may have written.
    pub(in crate::http) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if self.0.is_empty() {
            return client;
        }
        let lists = headers.get_all(X_FORWARDED_FOR).iter().rev();
        // A list that is no text names nobody.
        for entry in lists.flat_map(|list| list.to_str().unwrap_or_default().rsplit(',')) {
            if !self.trusts(client) {
                break;
            }
            match address(entry.trim()) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }

    /// Whether a trusted proxy says that it was asked by https.
    pub(in crate::http) fn says_https(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        self.trusts(peer.to_canonical())
            && headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto == "https")
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// An address as proxies write it: bare, in brackets, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').split(']').next().unwrap_or_default();
    let parsed = bare.parse().ok().or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

/// Whom a share of anything belongs to: an address, but of IPv6 the network, since one client has all addresses of it.
pub(in crate::http) fn holder(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(networks: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append(X_FORWARDED_FOR, list.parse().expect("a value"));
        }
        TrustedProxies::new(networks).client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        for (networks, peer, forwarded, expected) in [
            // Nobody is trusted by default, and nobody unknown ever is.
            (&[][..], "10.0.0.1", &["192.0.2.7"][..], "10.0.0.1"),
            (&proxies, "192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            (&proxies, "10.0.0.1", &[], "10.0.0.1"),
            (&proxies, "10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            // What the client wrote itself stands before what the first proxy saw.
            (&proxies, "10.0.0.1", &["127.0.0.1, 192.0.2.7"], "192.0.2.7"),
            (&proxies, "10.0.0.1", &["192.0.2.7, 10.0.0.2,10.0.0.3"], "192.0.2.7"),
            (&proxies, "10.0.0.1", &["192.0.2.6", "192.0.2.7, 10.0.0.2"], "192.0.2.7"),
            // Nobody but proxies: the first of them asks for itself.
            (&proxies, "10.0.0.1", &["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            // What can't be read ends the search.
            (&proxies, "10.0.0.1", &["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&proxies, "10.0.0.1", &[""], "10.0.0.1"),
            (&proxies, "fd00::1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            (&proxies, "10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
            (&proxies, "10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            (&proxies, "::ffff:10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
        ] {
            assert_eq!(client(networks, peer, forwarded), expected, "{networks:?} {peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_client_has_all_addresses_of_its_network() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ] {
            assert_eq!(holder(address.parse().expect("an address")).to_string(), expected);
        }
    }
}
