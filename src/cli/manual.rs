//! `man`: the manual pages, made from the same declarations as `--help`.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::{Command, builder::Resettable};
use clap_mangen::Man;

use super::output;

/// What the last lines of `--help` say.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0    well
  1    failed: nobody answered, a promise is broken, an order was not placed
  2    a setting or an argument is wrong
  130  stopped by Ctrl-C; a service and a load, which end in order, by the second one";

/// Prints the main page, or writes all into a folder.
pub(super) fn run(command: Command, folder: Option<&Path>) -> anyhow::Result<()> {
    // Without the generated `help` commands, which would be a page each.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let Some(folder) = folder else { return output::print_raw(&page(command)?) };
    fs::create_dir_all(folder)
        .and_then(|()| write_all(command, folder))
        .with_context(|| format!("can't write to {}", folder.display()))
}

fn write_all(command: Command, folder: &Path) -> std::io::Result<()> {
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        write_all(part.clone(), folder)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    fs::write(folder.join(format!("{name}.1")), page(command)?)
}

/// One page; its last section is the exit codes, under the heading where people look for them.
fn page(command: Command) -> std::io::Result<Vec<u8>> {
    let page = Man::new(command.after_help(Resettable::Reset));
    let mut roff = Vec::new();
    page.render(&mut roff)?;
    roff.extend_from_slice(b".SH \"EXIT STATUS\"\n");
    for line in EXIT_CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once(' ').unwrap_or_default();
        roff.extend_from_slice(format!(".TP\n.B {code}\n{}\n", meaning.trim()).as_bytes());
    }
    Ok(roff)
}
