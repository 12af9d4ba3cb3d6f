//! Talks to a running service.

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::sleep;
use url::Url;

use super::{
    output::{self, Refused, Wrong},
    report::may_follow,
    retry::Retry,
};
use crate::{
    client::{Answer, ClientError, ClientRequest, Connection, Stream, Target, header, shown},
    keys::ApiKey,
};

/// How long a command asks again that was told to come back later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which service to ask, and how to answer.
#[derive(Debug, Clone, Args)]
pub(super) struct ClientArgs {
    /// Where the service listens, http:// or https://; `SSL_CERT_FILE` names certificates to trust in place of the system's,
    /// and `ORDER_TRACKER_KEY` holds the key if it asks for one
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

/// Holds the key that commands show; a flag would stand in the list of processes.
const KEY: &str = "ORDER_TRACKER_KEY";

/// The key that is set; empty is none.
fn key() -> Result<Option<ApiKey>, Wrong> {
    let Some(text) = std::env::var_os(KEY).filter(|text| !text.is_empty()) else { return Ok(None) };
    let key = text.to_str().and_then(|text| text.trim().parse().ok());
    // Not what it holds: it may be a key with a letter gone.
    key.map(Some).ok_or_else(|| Wrong(format!("{KEY} holds no key, or one that is mistyped or cut off")))
}

/// Which setting of most commands is the address.
pub(super) const WHENCE: &str = "--url or ORDER_TRACKER_URL says";

/// A service that is asked.
pub(super) struct Client {
    pub(super) base: Url,
    target: Target,
    /// Whether it shows a key.
    has_key: bool,
    /// Which settings are the address.
    pub(super) whence: &'static str,
    /// How long to ask again whom it tells to come back later.
    patience: Duration,
}

/// What is read of a problem: a newer service may say more than is known here.
#[derive(Deserialize)]
struct Problem {
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
    /// For who shows the key that is set.
    pub(super) fn new(base: Url) -> anyhow::Result<Self> {
        let client = Self { patience: PATIENCE, ..Self::without_key(base) };
        let Some(key) = key()? else { return Ok(client) };
        if !client.base.username().is_empty() || client.base.password().is_some() {
            return Err(
                Wrong(format!("the address names a user and {KEY} a key: a request takes one")).into()
            );
        }
        Ok(Self { target: client.target.with_key(key.reveal()), has_key: true, ..client })
    }

    /// For who shows no key, and asks again by themselves or not at all.
    pub(super) fn without_key(base: Url) -> Self {
        let target = Target::new(&base);
        Self { base, target, has_key: false, whence: WHENCE, patience: Duration::ZERO }
    }

    /// Where it is, and what is shown there.
    pub(super) fn target(&self) -> &Target {
        &self.target
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

    /// Sends a request once; whatever comes is an answer.
    pub(super) async fn once(&self, request: ClientRequest) -> Result<Answer, ClientError> {
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
        Err(self.refused(&told, problem).into())
    }

    fn refused(&self, told: &Problem, problem: Value) -> Refused {
        let sentences = match (told.code.as_str(), self.has_key) {
            // A user and a password are no key either.
            ("key-required", _) | ("key-not-valid", false) => {
                format!("the service asks for a key: set {KEY} (order-tracker keys create)")
            }
            ("key-not-valid", true) => format!("{} ({KEY})", told.detail),
            _ => sentences(told),
        };
        // What the service finds invalid was typed here.
        Refused { sentences, problem, typed: told.code == "validation-error" }
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

fn sentences(told: &Problem) -> String {
    let fields = told.errors.iter().map(|error| format!("{} {}", error.field, error.message));
    // Where fields are named, the detail only points to them.
    let detail = if told.errors.is_empty() { Some(told.detail.clone()) } else { None };
    let allowed = told.allowed.as_ref().map(|allowed| may_follow(allowed));
    detail.into_iter().chain(fields).chain(allowed).collect::<Vec<_>>().join("; ")
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
