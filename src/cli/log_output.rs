//! Where the lines of the log go. Nothing that answers requests waits for who reads them: a pipe whose reader has stopped
//! takes nothing more once it is full, and then lines are left out and counted.

use std::{
    borrow::Cow,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use tokio::time::Instant;

use super::clean;
use crate::{
    app::config::LogFormat,
    time::{Clock as _, SystemClock},
};

/// A pipe that has room takes so many bytes without waiting.
const AT_ONCE: usize = 4_096;
/// How long a reader may be waited for in all...
const PATIENCE: Duration = Duration::from_millis(200);
/// ... within so much time.
const RENEWED: Duration = Duration::from_secs(10);

/// Writes whole lines to `O`. Cheap to clone.
pub(super) struct LogOutput<O> {
    format: LogFormat,
    out: Arc<Mutex<Out<O>>>,
}

impl<O> Clone for LogOutput<O> {
    fn clone(&self) -> Self {
        Self { format: self.format, out: Arc::clone(&self.out) }
    }
}

struct Out<O> {
    to: O,
    /// How many lines are missing after the last one.
    missing: u64,
    /// Whether a line ends in its middle.
    torn: bool,
    patience: Duration,
    renewed: Instant,
}

impl<O: Write + AsFd> LogOutput<O> {
    /// Nothing written yet.
    pub(super) fn new(to: O, format: LogFormat) -> Self {
        let (missing, torn, patience, renewed) = (0, false, PATIENCE, Instant::now());
        Self { format, out: Arc::new(Mutex::new(Out { to, missing, torn, patience, renewed })) }
    }

    /// JSON escapes what a terminal would obey, but not all of it.
    fn cleaned<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        match (self.format, str::from_utf8(line).map(clean::json)) {
            (LogFormat::Json, Ok(Cow::Owned(line))) => line.into_bytes().into(),
            _ => line.into(),
        }
    }
}

impl<O: Write + AsFd> Write for LogOutput<O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let cleaned = self.cleaned(line);
        self.out.lock().expect("no holder panics").put(&cleaned, self.format);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<O: Write + AsFd> Out<O> {
    /// A log that nobody can read any more (a closed pipe, a full disk) is no reason to stop taking orders either, so what
    /// can't be written is dropped.
    fn put(&mut self, line: &[u8], format: LogFormat) {
        if self.missing > 0 {
            if !self.has_room() {
                self.missing += 1;
                return;
            }
            let note = note(self.missing, self.torn, format);
            drop(self.to.write_all(note.as_bytes()));
            (self.missing, self.torn) = (0, false);
        }
        for (at, part) in line.chunks(AT_ONCE).enumerate() {
            if !self.has_room() {
                (self.missing, self.torn) = (1, at > 0);
                return;
            }
            drop(self.to.write_all(part));
        }
    }

    /// Whether a part of a line can be written at once or soon.
    fn has_room(&mut self) -> bool {
        if self.has_room_within(Duration::ZERO) {
            return true;
        }
        let now = Instant::now();
        if now - self.renewed > RENEWED {
            (self.patience, self.renewed) = (PATIENCE, now);
        }
        let room = self.has_room_within(self.patience);
        self.patience = self.patience.saturating_sub(now.elapsed());
        room
    }

    fn has_room_within(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).unwrap_or_default();
        poll(&mut [PollFd::new(&self.to, PollFlags::OUT)], Some(&time)).is_ok_and(|ready| ready > 0)
    }
}

/// A line in the place of those that are missing.
fn note(missing: u64, torn: bool, format: LogFormat) -> String {
    let (break_off, now) = (if torn { "\n" } else { "" }, SystemClock.now());
    let now = now.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let words = "lines of the log are missing here: nobody has read it";
    match format {
        LogFormat::Text => format!("{break_off}{now}  WARN {words} missing={missing}\n"),
        LogFormat::Json => {
            let note = json!({"timestamp": now, "level": "WARN", "message": words, "missing": missing});
            format!("{break_off}{note}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _, pipe};

    use serde_json::Value;

    use super::*;

    /// Writes so many lines; answers how long it took.
    fn overfill(output: &mut LogOutput<io::PipeWriter>, line: &str, lines: usize) -> Duration {
        let begun = Instant::now();
        for _ in 0..lines {
            output.write_all(line.as_bytes()).expect("never fails");
        }
        begun.elapsed()
    }

    /// All that is in the pipe once nobody writes to it.
    fn read(mut reader: PipeReader, output: LogOutput<io::PipeWriter>) -> String {
        drop(output);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    }

    /// Reads so many bytes.
    fn take(reader: &mut PipeReader, bytes: usize) -> String {
        let mut taken = vec![0; bytes];
        reader.read_exact(&mut taken).expect("they are there");
        String::from_utf8(taken).expect("text")
    }

    /// Promise 5: memory, queues and time are bounded. A service whose log nobody reads goes on.
    #[test]
    fn a_log_that_nobody_reads_is_not_waited_for() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (mut reader, writer) = pipe().expect("a pipe");
            let mut output = LogOutput::new(writer, format);
            let line = format!("{{\"message\":\"{}\"}}\n", "x".repeat(1_000));
            let took = overfill(&mut output, &line, 1_000);
            assert!(took < Duration::from_secs(5), "{took:?}");
            let missing = output.out.lock().expect("no panic").missing;
            assert!(missing > 100, "{missing}");

            let early = take(&mut reader, 20 * line.len());
            assert_eq!(early, line.repeat(20));
            output.write_all(line.as_bytes()).expect("never fails");
            let rest = read(reader, output);
            let lines: Vec<&str> = rest.lines().collect();
            let note = lines[lines.len() - 2];
            assert_eq!(lines.len() + 20 + usize::try_from(missing).expect("small") - 2, 1_000);
            assert_eq!(lines.last().copied(), Some(line.trim_end()));
            match format {
                LogFormat::Text => assert!(note.ends_with(&format!("missing={missing}")), "{note}"),
                LogFormat::Json => {
                    let note: Value = serde_json::from_str(note).expect("JSON");
                    assert_eq!((&note["missing"], &note["level"]), (&missing.into(), &"WARN".into()));
                }
            }
        }
    }

    /// A line that is longer than what fits at once never waits in its middle, and what follows begins anew.
    #[test]
    fn a_line_that_was_cut_off_is_ended() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut output = LogOutput::new(writer, LogFormat::Text);
        let line = format!("{}\n", "long ".repeat(20_000));
        overfill(&mut output, &line, 2);
        assert!(output.out.lock().expect("no panic").torn);
        let begun = take(&mut reader, 40_000);
        assert!(line.starts_with(&begun));
        output.write_all(b"next\n").expect("never fails");
        let rest = read(reader, output);
        let lines: Vec<&str> = rest.lines().collect();
        assert_eq!(lines.len(), 3, "{rest}");
        assert!(lines[1].ends_with("missing=2") && lines[2] == "next", "{rest}");
    }

    #[test]
    fn a_log_that_can_not_be_read_any_more_is_dropped() {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut output = LogOutput::new(writer, LogFormat::Json);
        output.write_all(b"{}\n").expect("never fails");
        output.flush().expect("never fails");
    }
}
