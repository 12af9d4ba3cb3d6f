//! `healthcheck`: for containers, which have no curl.

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use url::Url;

use super::{client::Client, output};
use crate::{app::config::HttpConfig, client::ClientRequest};

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// Print what the service answers, JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    http: HttpConfig,
}

/// Asks `/healthz` of the service that these settings describe.
pub(super) async fn run(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let HttpConfig { host, port } = &args.http;
    // A service that listens on all addresses is asked on the loopback one.
    let host = match host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" => "[::1]",
        host => host,
    };
    let base = Url::parse(&format!("http://{host}:{port}"))
        .with_context(|| format!("APP_HOST {host} is no host name"))?;
    let mut client = Client::without_key(base);
    client.whence = "APP_HOST and APP_PORT say";
    let answer: Value = client.ask(ClientRequest::get("/healthz")).await?;
    if args.json { output::print_json(&answer) } else { Ok(()) }
}
