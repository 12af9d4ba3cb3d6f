//! The command line as a whole: it is consistent, and says what is wrong with a value.

use std::time::Duration;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    app::Shutdown,
    order::Status,
    pipeline::simulator,
    time::{Clock as _, SystemClock},
};

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// What stands for a number, a duration or a moment in `--help`.
const NUMBERS: [&str; 6] = ["N", "PORT", "RATE", "DURATION", "DURATION,...", "TIME"];

/// Every flag that takes one, with the words before it.
fn numbers(command: &clap::Command, before: &[String]) -> Vec<(Vec<String>, String)> {
    let takes = |arg: &clap::Arg| {
        arg.get_value_names().is_some_and(|names| names.iter().any(|name| NUMBERS.contains(&name.as_str())))
    };
    let own = command.get_arguments().filter(|arg| takes(arg)).filter_map(|arg| arg.get_long());
    let mut found: Vec<_> = own.map(|flag| (before.to_vec(), flag.to_owned())).collect();
    for command in command.get_subcommands() {
        found.extend(numbers(command, &[before, &[command.get_name().to_owned()]].concat()));
    }
    found
}

/// Values at the edges of what numbers, durations and moments can be.
const EXTREMES: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1e-20",
    "1e-310",
    "1e308",
    "1e309",
    "NaN",
    "inf",
    "-inf",
    "18446744073709551615",
    "18446744073709551615s",
    "18446744073709551616s",
    "584942417355y",
    "0s",
    "1ns",
    "365days",
    "366days",
    "30days 1ns",
    "9999-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z",
    "-9999-01-01T00:00:00Z",
    "100years",
    "2147483648",
    "4294967296",
    "65535",
    "65536",
    "0.0001",
    "0.00009",
    "1s,1s,1s,1s",
    "1y,1y,1y,1y",
    " ",
];

/// Text that may be a number, or nearly.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        select(EXTREMES).prop_map(str::to_owned),
        "-?[0-9]{0,21}(\\.[0-9]{0,6})?(e-?[0-9]{1,3})?(ns|us|ms|s|m|h|d|w|y|days)?",
        "\\PC{0,12}",
    ]
}

/// Does with the settings what a start does with them.
fn make_use_of(cli: &Cli) {
    let serve = match &cli.command {
        None => &cli.serve,
        Some(Command::Serve(args)) => args,
        _ => return,
    };
    let settings = &serve.config.pipeline;
    assert!(simulator::distance(settings.simulate_rate) > Duration::ZERO);
    drop(Shutdown::new(settings.shutdown_timeout, settings.shutdown_delay));
    for status in Status::ALL {
        settings.stage_delays.due_after(status, SystemClock.now());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Promise 6: it says what is wrong. Whatever is given for a number, a duration or a moment is taken, or
    /// refused in one line that names the setting and what is allowed.
    #[test]
    fn a_number_is_taken_or_refused_in_one_line(text in number()) {
        let command = Cli::command();
        let flags = numbers(&command, &["order-tracker".to_owned()]);
        prop_assert!(flags.len() > 15, "{flags:?}");
        for (words, flag) in flags {
            let words = words.into_iter().chain([format!("--{flag}={text}")]);
            match Cli::try_parse_from(words) {
                Ok(cli) => make_use_of(&cli),
                Err(error) => {
                    let Some(line) = settings::one_line(&error, &command) else { continue };
                    prop_assert!(line.contains(&format!("--{flag}")) && line.contains("must be "), "{line}");
                    prop_assert!(line.lines().count() == 1, "{line}");
                }
            }
        }
    }
}
