//! Puts the id of the request that a line of the log is about at its end.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    registry::LookupSpan,
};

use super::RequestId;

/// A form of lines, with the id of the request.
pub struct WithRequestId<F> {
    lines: F,
    json: bool,
}

impl<F, T> WithRequestId<Format<F, T>> {
    /// Lines for people, in colour or not.
    pub fn text(lines: Format<F, T>, ansi: bool) -> Self {
        // It must know itself, since what it writes passes through a buffer.
        Self { lines: lines.with_ansi(ansi), json: false }
    }
}

impl<T> WithRequestId<Format<Json, T>> {
    /// Lines for programs.
    pub fn json(lines: Format<Json, T>) -> Self {
        Self { lines, json: true }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithRequestId<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(request) = RequestId::current() else {
            return self.lines.format_event(context, out, event);
        };
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(fields) => writeln!(out, "{fields},\"request_id\":\"{request}\"}}"),
            None => writeln!(out, "{line} request_id={request}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, subscriber::with_default};

    use super::{super::captured::Captured, *};

    fn log_both() {
        info!("before");
        RequestId::given(b"my-req-42").expect("valid").within(|| info!(left = 1, "inside {{}}"));
    }

    #[test]
    fn a_line_of_json_stays_json() {
        let (captured, _guard) = Captured::start();
        log_both();
        let lines = captured.lines();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].get("request_id").is_none(), "{}", lines[0]);
        assert_eq!((&lines[1]["request_id"], &lines[1]["left"]), (&"my-req-42".into(), &1.into()));
        assert_eq!(lines[1]["message"], "inside {}");
    }

    #[test]
    fn a_line_of_text_ends_with_the_id_and_keeps_its_colours() {
        for ansi in [false, true] {
            let captured = Captured::default();
            let lines = captured.builder().with_ansi(ansi);
            let lines = lines.map_event_format(|lines| WithRequestId::text(lines, ansi));
            with_default(lines.finish(), log_both);
            let text = captured.text();
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() == 2 && lines[0].ends_with("before"), "{text:?}");
            assert!(lines[1].ends_with(" request_id=my-req-42"), "{text:?}");
            assert!(lines.iter().all(|line| line.contains('\u{1b}') == ansi), "{text:?}");
        }
    }
}
