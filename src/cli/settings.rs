//! How settings are read from the environment, and what is said when one is wrong.

use std::process::ExitCode;

use clap::{
    Command,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};

use super::output;

/// An empty variable is an unset one: compose files write `PG_DSN=${PG_DSN:-}`.
pub(super) fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let empty =
            arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        if empty { arg.env(None::<&str>) } else { arg }
    });
    command.mut_subcommands(without_empty_variables)
}

/// One line that names the setting, what was given and what is allowed; help as clap prints it.
pub(super) fn explain(error: &Error) -> ExitCode {
    let code = if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => output::complain(&one_line(error)),
        _ => drop(error.print()),
    }
    code
}

/// The same for settings that are wrong together.
pub(super) fn refuse(complaint: &str) -> ExitCode {
    output::complain(complaint);
    ExitCode::from(2)
}

fn one_line(error: &Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let argument = text(ContextKind::InvalidArg);
    let flag = argument.split_whitespace().next().unwrap_or_default();
    // A flag is its variable in another spelling, but for the client's own.
    let variable = match flag {
        "--url" => "ORDER_TRACKER_URL".to_owned(),
        flag => flag.trim_start_matches('-').replace('-', "_").to_uppercase(),
    };
    let allowed = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => format!("must be one of {}", text(ContextKind::ValidValue)),
    };
    let name = if flag.starts_with('-') { format!("{variable} ({flag})") } else { flag.to_owned() };
    // Never what was given for a secret: a mistyped one is still mostly right.
    let given = match variable.as_str() {
        "PG_DSN" | "KAFKA_PROPERTIES" => "what was given".to_owned(),
        _ => format!("{:?}", text(ContextKind::InvalidValue)),
    };
    format!("{name}: {given} is not valid: {allowed}")
}
