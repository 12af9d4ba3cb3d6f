//! `healthcheck`: for containers, which have no curl.

use anyhow::Context as _;
use reqwest::Url;

use super::client::Client;
use crate::config::HttpConfig;

/// Asks `/healthz` of the service that these settings describe.
pub(super) async fn healthcheck(http: &HttpConfig) -> anyhow::Result<()> {
    // A service that listens on all addresses is asked on the loopback one.
    let host = match http.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" => "[::1]",
        host => host,
    };
    let base = Url::parse(&format!("http://{host}:{}", http.port))
        .with_context(|| format!("APP_HOST {host} is no host name"))?;
    let client = Client::new(base)?;
    client.send(client.http.get(client.at(&["healthz"])?)).await?;
    Ok(())
}
