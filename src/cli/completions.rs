//! `completions`: teaches a shell the commands and their values.

use clap::Command;
use clap_complete::Shell;

use super::output;

/// The name that is typed.
const NAME: &str = "order-tracker";

/// Prints the script.
pub(super) fn run(mut command: Command, shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    let script = String::from_utf8(script)?;
    output::print_raw(if shell == Shell::Bash { mended(&script) } else { script }.as_bytes())
}

/// `clap_complete` (4.6) spells a command whose name has a hyphen in two ways, where it finds out which command is typed and where it
/// says what comes next, so that nothing ever comes next (clap-rs/clap#6421). One spelling is as good as the other.
fn mended(script: &str) -> String {
    let (found, told) = (NAME.replace('-', "__"), NAME.replace('-', "__subcmd__"));
    script.replace(&told, &found)
}
