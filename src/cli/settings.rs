//! How settings are read from the environment and the command line, and what is said when one is wrong.

use std::{ffi::OsString, process::ExitCode};

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};

use super::{clean, output};

/// Options that mean something only if they hold something: nothing is no key.
const NEVER_EMPTY: [&str; 1] = ["idempotency-key"];

/// An empty variable is an unset one: compose files write `PG_DSN=${PG_DSN:-}`.
pub(super) fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let empty =
            arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        if empty { arg.env(None::<&str>) } else { arg }
    });
    command.mut_subcommands(without_empty_variables)
}

/// An empty option is as good as none too, unless it is one that must be given: scripts write `--status "$STATUS"`.
pub(super) fn without_empty_options(
    mut arguments: impl Iterator<Item = OsString>,
    command: &Command,
) -> Vec<OsString> {
    let mut kept: Vec<OsString> = Vec::new();
    for argument in arguments.by_ref() {
        if argument == "--" {
            kept.push(argument);
            break;
        }
        let flag = kept.last().and_then(|last| last.to_str()).and_then(|last| last.strip_prefix("--"));
        if argument.is_empty() && flag.is_some_and(|flag| may_be_left_out(command, flag)) {
            kept.pop();
            continue;
        }
        let empty = argument.to_str().and_then(|text| text.strip_prefix("--")?.strip_suffix('='));
        if !empty.is_some_and(|flag| may_be_left_out(command, flag)) {
            kept.push(argument);
        }
    }
    kept.extend(arguments);
    kept
}

fn may_be_left_out(command: &Command, flag: &str) -> bool {
    let optional = |arg: &Arg| arg.get_action().takes_values() && !arg.is_required_set();
    let known = command.get_arguments().find(|arg| arg.get_long() == Some(flag));
    known.is_some_and(|arg| optional(arg) && !NEVER_EMPTY.contains(&flag))
        || command.get_subcommands().any(|command| may_be_left_out(command, flag))
}

/// Whether results, and so complaints, shall be JSON, said of arguments that may not even be valid.
pub(super) fn ask_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// One line that names the setting, what was typed and what is allowed; help as clap prints it.
pub(super) fn explain(error: Error, command: &Command) -> ExitCode {
    if !error.use_stderr() {
        // Help and version are our own words.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    let error = harmless(error);
    match one_line(&error, command) {
        Some(line) => output::complain(&line),
        None if output::speaks_json() => output::complain(&first_line(&error)),
        None => drop(error.print()),
    }
    ExitCode::from(2)
}

/// The same for settings that are wrong together.
pub(super) fn refuse(complaint: &str) -> ExitCode {
    output::complain(complaint);
    ExitCode::from(2)
}

/// The error without what only its author may have on a terminal, and without passwords of addresses.
fn harmless(mut error: Error) -> Error {
    let clean = |text: &String| clean::line(&without_password(text)).into_owned();
    let texts: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(clean(text)))),
            ContextValue::Strings(texts) => {
                Some((kind, ContextValue::Strings(texts.iter().map(clean).collect())))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in texts {
        error.insert(kind, value);
    }
    error
}

/// How a password is named where it is a parameter.
const PASSWORD: &str = "password";

/// A text without the user and password of an address in it, wherever that stands, and without a password that is a
/// parameter. Who writes a password as an address does not allow writes any character, so more than a password may
/// be left out.
fn without_password(text: &str) -> String {
    let text = without_parameter(text);
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (host, whole) = (rest.find(['/', ' ', '?', '#']).unwrap_or(rest.len()), rest.rfind('@'));
    match whole {
        Some(at) if at < host || rest[..at].contains(':') => format!("{scheme}://***{}", &rest[at..]),
        _ => text,
    }
}

fn without_parameter(text: &str) -> String {
    let named = text.to_ascii_lowercase().find(PASSWORD).map(|at| at + PASSWORD.len());
    match named.filter(|end| text[*end..].trim_start().starts_with('=')) {
        Some(end) => format!("{}=***", &text[..end]),
        None => text.to_owned(),
    }
}

fn first_line(error: &Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The line, if a value is wrong.
pub(super) fn one_line(error: &Error, command: &Command) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
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
    let variable = variable(command, flag);
    let given = text(ContextKind::InvalidValue);
    // Never what was given for a secret: a mistyped one is still mostly right. A variable may hold one that
    // belongs into another, and be one of a list; what was typed stands on the terminal already.
    let set =
        variable.as_ref().is_some_and(|name| std::env::var(name).is_ok_and(|value| value.contains(&given)));
    let secret = set
        || matches!(flag, "--pg-dsn" | "--kafka-properties" | "--kafka-brokers")
        || flag == "--url" && given.contains('@');
    let name = match variable {
        Some(variable) => format!("{variable} ({flag})"),
        None => flag.to_owned(),
    };
    let given = if secret { "what was given".to_owned() } else { format!("\"{given}\"") };
    Some(format!("{name}: {given} is not valid: {allowed}"))
}

/// The variable that stands for a flag, if there is one.
fn variable(command: &Command, flag: &str) -> Option<String> {
    let long = flag.strip_prefix("--")?;
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(long)).and_then(Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    own.or_else(|| command.get_subcommands().find_map(|command| variable(command, flag)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{super::Cli, *};

    #[test]
    fn empty_options_are_left_out_and_nothing_else() {
        let kept = |text: &str| {
            let arguments = text.split(' ').map(|word| OsString::from(word.replace("''", "")));
            let kept = without_empty_options(arguments, &Cli::command());
            kept.join(" ".as_ref()).into_string().expect("text")
        };
        assert_eq!(kept("ot order list --status '' --limit= --url ''"), "ot order list");
        assert_eq!(kept("ot order list --status= --json"), "ot order list --json");
        assert_eq!(kept("ot order create --address '' --item="), "ot order create --address  --item=");
        assert_eq!(kept("ot order create --idempotency-key ''"), "ot order create --idempotency-key ");
        assert_eq!(kept("ot order list --json '' -- --limit ''"), "ot order list --json  -- --limit ");
        assert_eq!(kept("ot --stage-delays '' serve --app-port="), "ot serve");
    }

    #[test]
    fn passwords_of_addresses_are_left_out() {
        for (text, shown) in [
            ("http://tom:secret@food.example/x", "http://***@food.example/x"),
            // All of it might be the password.
            ("http://tom:secret@food.example/x@y", "http://***@y"),
            ("ftp://tom:a@b@food.example", "ftp://***@food.example"),
            ("http://food.example/x@y", "http://food.example/x@y"),
            // Not written as an address must be, but by the same people.
            ("postgres://u:pa/ss@h/db", "postgres://***@h/db"),
            ("postgres://u:pa?s#s@h/db", "postgres://***@h/db"),
            ("postgres://u:pa ss@h/db", "postgres://***@h/db"),
            ("postgres://u:p://s@h/db", "postgres://***@h/db"),
            ("--to=postgres://u:a@b/c@h/db", "--to=postgres://***@h/db"),
            ("postgres://h/db?user=u&password=secret&x=y", "postgres://h/db?user=u&password=***"),
            ("host=h Password = secret", "host=h Password=***"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
