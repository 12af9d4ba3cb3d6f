//! Tells how far a long command is: a line that redraws itself on a terminal, now and then a plain one elsewhere.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

use super::output;

/// Pause between two drawings.
const REDRAW: Duration = Duration::from_millis(100);
/// Pause between two plain lines.
const PLAIN: Duration = Duration::from_secs(5);
/// Cells of the bar.
const CELLS: usize = 24;

/// The line.
pub(super) struct Progress {
    terminal: bool,
    next: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = stderr().is_terminal() && !dumb;
        let wait = if terminal { Duration::ZERO } else { PLAIN };
        Self { terminal, next: Instant::now() + wait }
    }

    /// How often it is worth to ask for news.
    pub(super) fn pause(&self) -> Duration {
        if self.terminal { REDRAW } else { PLAIN }
    }

    /// Tells the news, if it is time; `share` is from 0 to 1 where the end is known.
    pub(super) fn tell(&mut self, share: Option<f64>, news: impl FnOnce() -> String) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + self.pause();
        if self.terminal {
            let bar = share.map(|share| format!("{} ", bar(share))).unwrap_or_default();
            drop(write!(stderr().lock(), "\r\x1b[2K{bar}{}", news()));
        } else {
            let share = share.map(|share| format!("{:.0} %, ", share * 100.0)).unwrap_or_default();
            output::note(&format!("{share}{}", news()));
        }
    }

    /// Takes the line away: results follow.
    pub(super) fn end(self) {
        if self.terminal {
            drop(write!(stderr().lock(), "\r\x1b[2K"));
        }
    }
}

/// What leaves a terminal as it was: colours reset, the cursor shown, a line begun.
pub(super) const LEAVE: &str = "\x1b[0m\x1b[?25h\n";

/// Leaves the line as it is: the process ends at once.
pub(super) fn leave() {
    if stderr().is_terminal() {
        drop(write!(stderr().lock(), "{LEAVE}"));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of a few cells"
)]
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * CELLS as f64) as usize;
    format!("[{}{}] {:3.0} %", "#".repeat(full), ".".repeat(CELLS - full), share.clamp(0.0, 1.0) * 100.0)
}

/// A number with commas between its thousands.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_from_the_left() {
        assert_eq!(bar(0.0), format!("[{}]   0 %", ".".repeat(24)));
        assert_eq!(bar(0.5), format!("[{}{}]  50 %", "#".repeat(12), ".".repeat(12)));
        assert_eq!(bar(1.7), format!("[{}] 100 %", "#".repeat(24)));
    }

    #[test]
    fn thousands_are_set_apart() {
        let told = [0, 999, 1_000, 1_234_567].map(thousands);
        assert_eq!(told, ["0", "999", "1,000", "1,234,567"]);
    }
}
