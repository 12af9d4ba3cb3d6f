//! Fields of a log line for people. tracing-subscriber keeps escape sequences out of values, but neither newlines nor direction marks.

use std::fmt::{self, Debug};

use tracing::field::Field;
use tracing_subscriber::{
    field::MakeExt as _,
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
};

use super::clean::Clean;

/// As usual: the message, then `name=value`.
pub(super) fn cleaned() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(field).delimited(" ")
}

fn field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = Clean(value);
    match field.name() {
        "message" => write!(out, "{value:?}"),
        // Where a line of the `log` crate came from; its level and target are shown already.
        name if name.starts_with("log.") => Ok(()),
        name if out.has_ansi_escapes() => write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value:?}"),
        name => write!(out, "{name}={value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(ansi: bool, text: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(ansi)
            .without_time()
            .fmt_fields(cleaned());
        tracing::subscriber::with_default(lines.finish(), || {
            let error = io::Error::other(text.to_owned());
            let span = tracing::info_span!("request", id = %text);
            span.in_scope(|| {
                tracing::info!(%error, text, plain = ?text, source = &error as &dyn std::error::Error, "{text}");
            });
        });
        let bytes = written.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_line_looks_as_it_always_did() {
        let line = logged(false, "a b");
        let fields = "error=a b text=\"a b\" plain=\"a b\" source=a b";
        assert_eq!(
            line,
            format!(" INFO request{{id=a b}}: order_tracker::cli::log_fields::tests: a b {fields}\n")
        );
        assert!(logged(true, "a").contains("\x1b[3merror\x1b[0m\x1b[2m=\x1b[0ma"));
    }

    proptest! {
        /// One line comes out whatever goes in, and no colours but ours.
        #[test]
        fn no_text_commands_a_terminal(text in "(\\PC|\\pC|\\n|\\x1b\\[31m|\\x1b\\]0;x\\x07|\u{202e}|\u{9b}){0,12}") {
            let line = logged(false, &text);
            let harmful = |char: char| char.is_control() || "\u{202e}\u{2066}\u{2028}".contains(char);
            prop_assert_eq!(line.find(harmful), Some(line.len() - 1), "{}", line.escape_debug());
            let painted = logged(true, &text);
            let ours = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[3m", "\x1b[32m"];
            let bare = ours.into_iter().fold(painted, |text, paint| text.replace(paint, ""));
            prop_assert_eq!(bare.find(harmful), Some(bare.len() - 1), "{}", bare.escape_debug());
        }
    }
}
