//! Talks to a running service.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use reqwest::{RequestBuilder, Response, Url};

use crate::http::ProblemBody;

/// How long any one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which service to ask, and how to answer.
#[derive(Debug, Clone, Args)]
pub(super) struct ClientArgs {
    /// Where the service listens
    #[arg(long, env = "ORDER_TRACKER_URL", default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = http_url)]
    pub(super) url: Url,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
    url.ok_or_else(|| "must be the service's address, such as http://127.0.0.1:8080".to_owned())
}

/// A connection to the service.
pub(super) struct Client {
    pub(super) base: Url,
    pub(super) http: reqwest::Client,
}

impl Client {
    pub(super) fn new(base: Url) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { base, http })
    }

    /// The address of a path given in segments, each encoded.
    pub(super) fn at(&self, segments: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} can't be the address of a service", self.base))?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    /// Sends a request; a problem becomes an error that says what to do.
    pub(super) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.with_context(|| {
            format!("no answer from {}: is the service running? (--url says where)", self.base)
        })?;
        self.checked(response).await
    }

    /// An answer that is well; a problem becomes an error that says what to do.
    pub(super) async fn checked(&self, response: Response) -> anyhow::Result<Response> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let Ok(problem) = response.json::<ProblemBody>().await else {
            bail!("{} answered {status}: is this an order-tracker?", self.base)
        };
        let fields = problem.errors.iter().map(|error| format!("{} {}", error.field, error.message));
        // Where fields are named, the detail only points to them.
        let detail = if problem.errors.is_empty() { Some(problem.detail.clone()) } else { None };
        let sentences: Vec<String> = detail.into_iter().chain(fields).collect();
        bail!("{}", sentences.join("; "))
    }
}
