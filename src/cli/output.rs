//! Where words go: results to stdout, complaints to stderr.

use std::{
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
};

use serde::Serialize;

/// Prints a result.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(format!("{text}\n").as_bytes())
}

/// Prints a result for programs.
pub(super) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Prints a result as it is.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
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

/// How a command ends; what went wrong is said on stderr, in one line.
pub(super) fn end(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderLeft>() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            if error.is::<Wrong>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// One line on stderr; nothing can be done if even that fails.
pub(super) fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "order-tracker: {line}"));
}
