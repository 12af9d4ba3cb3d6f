//! How settings are read from the environment, and what is said when one is wrong.

use std::process::ExitCode;

use clap::{
    Arg, Command,
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
pub(super) fn explain(error: &Error, command: &Command) -> ExitCode {
    let code = if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => output::complain(&one_line(error, command)),
        _ => drop(error.print()),
    }
    code
}

/// The same for settings that are wrong together.
pub(super) fn refuse(complaint: &str) -> ExitCode {
    output::complain(complaint);
    ExitCode::from(2)
}

fn one_line(error: &Error, command: &Command) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let argument = text(ContextKind::InvalidArg);
    let flag = argument.split_whitespace().next().unwrap_or_default();
    let allowed = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => format!("must be one of {}", text(ContextKind::ValidValue)),
    };
    let name = match variable(command, flag) {
        Some(variable) => format!("{variable} ({flag})"),
        None => flag.to_owned(),
    };
    // Never what was given for a secret: a mistyped one is still mostly right.
    let given = match flag {
        "--pg-dsn" | "--kafka-properties" => "what was given".to_owned(),
        _ => format!("{:?}", text(ContextKind::InvalidValue)),
    };
    format!("{name}: {given} is not valid: {allowed}")
}

/// The variable that stands for a flag, if there is one.
fn variable(command: &Command, flag: &str) -> Option<String> {
    let long = flag.strip_prefix("--")?;
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(long)).and_then(Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.or_else(|| command.get_subcommands().find_map(|command| variable(command, flag)))
}
