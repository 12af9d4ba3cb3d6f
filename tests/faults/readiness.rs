//! What `/readyz` says: whether requests can be served here, and what else is wrong.

use anyhow::Result;
use reqwest::Client;
use serde::Deserialize;

/// One answer of `/readyz`.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    pub(crate) status: u16,
    /// Parts that can't do all of their work, with the reasons.
    pub(crate) degraded: Vec<Degraded>,
    /// As it came.
    pub(crate) body: String,
}

/// A part and what is wrong with it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Degraded {
    pub(crate) part: String,
    pub(crate) reason: String,
}

/// The body; a build that answers in plain text has none.
#[derive(Debug, Default, Deserialize)]
struct Body {
    degraded: Vec<Degraded>,
}

impl Readiness {
    /// Asks the replica at `url`.
    pub(crate) async fn ask(http: &Client, url: &str) -> Result<Self> {
        let answer = http.get(format!("{url}/readyz")).send().await?;
        let (status, body) = (answer.status().as_u16(), answer.text().await?);
        let Body { degraded } = serde_json::from_str(&body).unwrap_or_default();
        Ok(Self { status, degraded, body })
    }

    /// Whether requests are served here and nothing is wrong but what is in `lasting`.
    pub(crate) fn is_whole(&self, lasting: &[&str]) -> bool {
        self.status == 200 && self.degraded.iter().all(|degraded| lasting.contains(&degraded.part.as_str()))
    }

    /// Why one of these parts is degraded, if the reason holds all these words.
    pub(crate) fn reason(&self, parts: &[&str], words: &[&str]) -> Option<&str> {
        let named = |degraded: &&Degraded| {
            parts.contains(&degraded.part.as_str()) && has_words(&degraded.reason, words)
        };
        self.degraded.iter().find(named).map(|degraded| degraded.reason.as_str())
    }
}

/// Whether each of the words stands in the text, and not as a part of a longer one.
pub(crate) fn has_words(text: &str, words: &[&str]) -> bool {
    let ends = |char: Option<char>| char.is_none_or(|char| !char.is_alphanumeric() && char != '_');
    let stands = |word: &str| {
        let mut found = text.match_indices(word);
        found.any(|(at, _)| {
            ends(text[..at].chars().next_back()) && ends(text[at + word.len()..].chars().next())
        })
    };
    words.iter().all(|word| stands(word))
}
