//! Where words go: results to stdout, everything else to stderr. Nothing leaves here uncleaned but what we wrote ourselves.

use std::{
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::clean;

/// Whether stderr is for programs too: a JSON object a line.
static JSON: AtomicBool = AtomicBool::new(false);

/// From here on whatever goes to stderr is JSON: `--json` was given.
pub(super) fn speak_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Whether it is.
pub(super) fn speaks_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Prints a result: one line or several.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_raw(format!("{}\n", clean::lines(text)).as_bytes())
}

/// Prints a result for programs.
pub(super) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print_raw(format!("{}\n", clean::json(&serde_json::to_string_pretty(value)?)).as_bytes())
}

/// The same in one line.
pub(super) fn print_json_line<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print_raw(format!("{}\n", clean::json(&serde_json::to_string(value)?)).as_bytes())
}

/// Prints what we wrote ourselves as it is: a script, a page of the manual, a bar.
pub(super) fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderLeft.into()),
        outcome => Ok(outcome?),
    }
}

/// Whoever read our results has left, as `head` does: there is nobody to go on for.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the results any more")]
pub(super) struct ReaderLeft;

/// What was typed or set is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Wrong(pub(super) String);

/// The service said no, and why.
#[derive(Debug, thiserror::Error)]
#[error("{sentences}")]
pub(super) struct Refused {
    pub(super) sentences: String,
    /// All that it said.
    pub(super) problem: Value,
    /// Whether what was typed is what it did not like.
    pub(super) typed: bool,
}

/// A signal ended it: with which exit code.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub(super) struct Stopped(pub(super) u8);

/// Exit code of who was stopped by Ctrl-C, as shells count it.
pub(super) const INTERRUPTED: u8 = 130;
/// The same for SIGTERM.
pub(super) const TERMINATED: u8 = 143;

/// How a command ends; what went wrong is said on stderr, in one line.
pub(super) fn end(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.is::<ReaderLeft>() {
        return ExitCode::SUCCESS;
    }
    if let Some(Stopped(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let refused = error.downcast_ref::<Refused>();
    match refused {
        Some(refused) if speaks_json() => say(&refused.problem.to_string()),
        _ => complain(&format!("{error:#}")),
    }
    let typed = error.is::<Wrong>() || refused.is_some_and(|refused| refused.typed);
    if typed { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// What went wrong.
pub(super) fn complain(line: &str) {
    tell("error", line);
}

/// What else there is to know.
pub(super) fn note(line: &str) {
    tell("note", line);
}

fn tell(kind: &str, line: &str) {
    if speaks_json() {
        say(&json!({ kind: line }).to_string());
    } else {
        say(&format!("order-tracker: {}", clean::line(line)));
    }
}

/// One line on stderr; nothing can be done if even that fails.
fn say(line: &str) {
    drop(writeln!(io::stderr().lock(), "{}", clean::json(line)));
}
