//! Talks to a running service.

use std::{error::Error, io, time::Duration};

use anyhow::{anyhow, bail};
use clap::Args;
use reqwest::{RequestBuilder, Response, Url};
use serde::{Deserialize, de::DeserializeOwned};

use super::output::Wrong;

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

/// Which setting of most commands is the address.
pub(super) const WHENCE: &str = "--url or ORDER_TRACKER_URL says";

/// A connection to the service.
pub(super) struct Client {
    pub(super) base: Url,
    pub(super) http: reqwest::Client,
    /// Which settings are the address.
    pub(super) whence: &'static str,
}

/// What is read of a problem: a newer service may say more than is known here.
#[derive(Deserialize)]
struct Told {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<WrongField>,
}

#[derive(Deserialize)]
struct WrongField {
    field: String,
    message: String,
}

impl Client {
    pub(super) fn new(base: Url) -> anyhow::Result<Self> {
        Ok(Self::over(reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?, base))
    }

    /// One with limits of its own.
    pub(super) fn over(http: reqwest::Client, base: Url) -> Self {
        Self { base, http, whence: WHENCE }
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

    /// Sends a request and reads the answer's JSON.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let answer = self.send(request).await?.json().await;
        answer.map_err(|error| {
            if error.is_decode() {
                anyhow!("{} answered something else: is this an order-tracker?", shown(&self.base))
            } else {
                no_answer(&self.base, &error, self.whence)
            }
        })
    }

    /// Sends a request; a problem becomes an error that says what to do.
    pub(super) async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| no_answer(&self.base, &error, self.whence))?;
        self.checked(response).await
    }

    /// An answer that is well; a problem becomes an error that says what to do.
    pub(super) async fn checked(&self, response: Response) -> anyhow::Result<Response> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let Ok(problem) = response.json::<Told>().await else {
            bail!("{} answered {status}: is this an order-tracker?", shown(&self.base))
        };
        let fields = problem.errors.iter().map(|error| format!("{} {}", error.field, error.message));
        // Where fields are named, the detail only points to them.
        let detail = if problem.errors.is_empty() { Some(problem.detail.clone()) } else { None };
        let sentences = detail.into_iter().chain(fields).collect::<Vec<_>>().join("; ");
        // What the service finds invalid was typed here.
        if problem.code == "validation-error" { Err(Wrong(sentences).into()) } else { bail!("{sentences}") }
    }
}

/// Nobody answers: where, why in a few words, and what to do.
pub(super) fn no_answer(url: &Url, error: &(dyn Error + 'static), whence: &str) -> anyhow::Error {
    let (url, why) = (shown(url), cause(error));
    anyhow!("no answer from {url} ({why}): is the service running? {whence} where it listens")
}

/// The last of a chain of errors in a few words: the others only say that something failed.
pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    match root.downcast_ref::<io::Error>() {
        Some(error) if error.raw_os_error().is_some() => error.kind().to_string(),
        _ => root.to_string(),
    }
}

/// An address as people write it.
pub(super) fn shown(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}
