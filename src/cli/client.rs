//! Talks to a running service.

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::sleep;
use url::Url;

use super::{
    output::{self, Refused},
    report::may_follow,
    retry::Retry,
};
use crate::client::{Answer, ClientError, ClientRequest, Connection, Stream, Target, header, shown};

/// How long a command asks again that was told to come back later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which service to ask, and how to answer.
#[derive(Debug, Clone, Args)]
pub(super) struct ClientArgs {
    /// Where the service listens, http:// or https://; `SSL_CERT_FILE` names certificates to trust in place of the system's
    #[arg(long, env = "ORDER_TRACKER_URL", default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = service, hide_env_values = true)]
    pub(super) url: Url,
    /// Print JSON, complaints on stderr too
    #[arg(long)]
    pub(super) json: bool,
}

fn service(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let plain = url.filter(|url| url.query().is_none() && url.fragment().is_none());
    plain.ok_or_else(|| "must be the service's address, such as http://127.0.0.1:8080".to_owned())
}

/// Which setting of most commands is the address.
pub(super) const WHENCE: &str = "--url or ORDER_TRACKER_URL says";

/// A service that is asked.
pub(super) struct Client {
    pub(super) base: Url,
    target: Target,
    /// Which settings are the address.
    pub(super) whence: &'static str,
    /// How long to ask again whom it tells to come back later.
    patience: Duration,
}

/// What is read of a problem: a newer service may say more than is known here.
#[derive(Deserialize)]
struct Told {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<WrongField>,
    /// What may be reported in place of what was.
    allowed: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct WrongField {
    field: String,
    message: String,
}

impl Client {
    pub(super) fn new(base: Url) -> Self {
        Self { target: Target::new(&base), base, whence: WHENCE, patience: PATIENCE }
    }

    /// The same for who asks again by themselves, or not at all.
    pub(super) fn impatient(base: Url) -> Self {
        Self { patience: Duration::ZERO, ..Self::new(base) }
    }

    /// Sends a request and reads the answer's JSON.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: ClientRequest) -> anyhow::Result<T> {
        self.read(&self.send(request).await?)
    }

    /// The JSON of an answer.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &Answer) -> anyhow::Result<T> {
        serde_json::from_slice(&answer.body)
            .map_err(|_| anyhow!("{} answered something else: is this an order-tracker?", shown(&self.base)))
    }

    /// Sends a request, again if need be and if twice is as good as once; a problem becomes an error that says what to do.
    pub(super) async fn send(&self, request: ClientRequest) -> anyhow::Result<Answer> {
        let patience = if request.is_repeatable() { self.patience } else { Duration::ZERO };
        let mut retry = Retry::new(patience);
        loop {
            let outcome = self.once(request.clone()).await;
            let Some(pause) = retry.pause(&outcome) else { return self.checked(outcome) };
            if retry.is_first() {
                output::note(&format!("{}; trying again", self.state(&outcome)));
            }
            sleep(pause).await;
        }
    }

    async fn once(&self, request: ClientRequest) -> Result<Answer, ClientError> {
        Connection::open(&self.target).await?.ask(request).await
    }

    /// An answer that comes in parts.
    pub(super) async fn stream(&self, request: ClientRequest) -> Result<Stream, ClientError> {
        Connection::open(&self.target).await?.stream(request).await
    }

    /// Why it is asked again, in a few words.
    pub(super) fn state(&self, outcome: &Result<Answer, ClientError>) -> String {
        match outcome {
            Ok(answer) => format!("{} answers {}", shown(&self.base), answer.status),
            Err(error) => format!("{}: {error}", shown(&self.base)),
        }
    }

    /// An answer that is well; all else becomes an error that says what to do.
    pub(super) fn checked(&self, outcome: Result<Answer, ClientError>) -> anyhow::Result<Answer> {
        let answer = outcome.map_err(|error| no_answer(&self.base, &error, self.whence))?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        if answer.status.is_redirection() {
            return Err(self.redirected(&answer));
        }
        let (told, problem) = (serde_json::from_slice(&answer.body), serde_json::from_slice(&answer.body));
        let (Ok(told), Ok(problem)) = (told, problem) else {
            bail!("{} answered {}: is this an order-tracker?", shown(&self.base), answer.status)
        };
        Err(refused(&told, problem).into())
    }

    /// Whoever redirects may be anybody, and what is sent are names, addresses and keys.
    fn redirected(&self, answer: &Answer) -> anyhow::Error {
        let location = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.and_then(|location| self.base.join(location).ok());
        let to = location
            .filter(Url::has_host)
            .map_or_else(String::new, |url| format!(" to {}", url.origin().ascii_serialization()));
        let (url, status, whence) = (shown(&self.base), answer.status, self.whence);
        anyhow!(
            "{url} answered {status}, a redirect{to}, which is not followed: {whence} where the service listens"
        )
    }
}

fn refused(told: &Told, problem: Value) -> Refused {
    let fields = told.errors.iter().map(|error| format!("{} {}", error.field, error.message));
    // Where fields are named, the detail only points to them.
    let detail = if told.errors.is_empty() { Some(told.detail.clone()) } else { None };
    let allowed = told.allowed.as_ref().map(|allowed| may_follow(allowed));
    let sentences = detail.into_iter().chain(fields).chain(allowed).collect::<Vec<_>>().join("; ");
    // What the service finds invalid was typed here.
    Refused { sentences, problem, typed: told.code == "validation-error" }
}

/// Nobody answers: where, why in a few words, and what to do.
pub(super) fn no_answer(url: &Url, error: &ClientError, whence: &str) -> anyhow::Error {
    let url = shown(url);
    match error {
        ClientError::Tls(why) => anyhow!("no trust in {url}: {why}"),
        ClientError::NotHttp => anyhow!("{url} answered something else: is this an order-tracker?"),
        why => anyhow!("no answer from {url} ({why}): is the service running? {whence} where it listens"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_a_service() {
        for good in ["http://127.0.0.1:8080", "https://food.example/api/", "http://tom:secret@[::1]"] {
            assert!(service(good).is_ok(), "{good}");
        }
        for bad in ["food.example", "ftp://food.example", "http://", "http://x/?a=b", "http://x/#a", "no"] {
            assert!(service(bad).is_err(), "{bad}");
        }
    }
}
