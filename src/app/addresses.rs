//! How others reach the service: under which address, from which pages, and where it is measured.

use std::{fmt, str::FromStr};

use clap::Args;
use url::Url;

/// How others reach the service.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct AddressConfig {
    /// Where clients reach the service, without a path, if that is not where it listens
    #[arg(long, env = "PUBLIC_URL", value_name = "https://HOST", value_parser = public_url)]
    pub(crate) public_url: Option<Url>,
    /// Other sites whose pages may use the API from a browser, each by its origin
    #[arg(long, env = "CORS_ORIGINS", value_name = "https://HOST,...", value_delimiter = ',', value_parser = origin)]
    pub(crate) cors_origins: Vec<String>,
    /// Where `/metrics` is served alone and without a key; unset means where all else is
    #[arg(long, env = "METRICS_ADDR", value_name = "HOST:PORT")]
    pub(crate) metrics_addr: Option<HostPort>,
}

/// A host, or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let found = parts.and_then(|(host, port)| {
            let within = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let plain = !host.is_empty() && !host.contains([':', '/', '@', ' ', '[', ']']);
            let host = within.or(Some(host).filter(|_| plain))?;
            Some(Self { host: host.to_owned(), port })
        });
        found.ok_or_else(|| "must be a host and a port, such as 127.0.0.1:9100 or [::1]:9100".to_owned())
    }
}

/// An origin as browsers write it, and nothing else.
fn as_origin(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let web = ["http", "https"].contains(&url.scheme());
    Some(url).filter(|url| web && url.origin().ascii_serialization() == text)
}

fn public_url(text: &str) -> Result<Url, String> {
    as_origin(text).ok_or_else(|| "must be an origin without a path, such as https://shop.example".to_owned())
}

fn origin(text: &str) -> Result<String, String> {
    let allowed = "must be origins with commas between, without a path, such as https://shop.example";
    as_origin(text).map(|_| text.to_owned()).ok_or_else(|| allowed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in [
            "https://shop.example",
            "http://localhost:3000",
            "https://shop.example:8443",
            "http://[::1]:3000",
        ] {
            assert_eq!(origin(good).as_deref(), Ok(good));
            assert!(public_url(good).is_ok(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "",
            "shop.example",
            "https://shop.example/",
            "https://shop.example/board",
            "https://shop.example:443",
            "https://SHOP.example",
            "https://*.shop.example/",
            "https://tom@shop.example",
            "https://shop.example?x",
            "ftp://shop.example",
            "file:///x",
            " https://shop.example",
        ] {
            assert!(origin(bad).is_err() && public_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:9100", "127.0.0.1", 9100),
            ("localhost:0", "localhost", 0),
            ("[::1]:9100", "::1", 9100),
        ] {
            let found: HostPort = text.parse().expect("an address");
            assert_eq!((found.host.as_str(), found.port), (host, port));
            assert_eq!(found.to_string(), text);
        }
        for bad in
            ["", "9100", ":9100", "localhost", "localhost:x", "localhost:70000", "::1:9100", "http://x:1"]
        {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?}");
        }
    }
}
