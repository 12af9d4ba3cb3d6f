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

/// Prints a result as it is. A reader that has left (`| head`) is no error.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Says on stderr what went wrong, in one line.
pub(super) fn failed(error: &anyhow::Error) -> ExitCode {
    complain(&format!("{error:#}"));
    ExitCode::FAILURE
}

/// One line on stderr; nothing can be done if even that fails.
pub(super) fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "order-tracker: {line}"));
}
