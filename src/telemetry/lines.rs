//! Puts the ids of the requests that a line of the log is about at its end.

use std::fmt::{self, Write as _};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    registry::LookupSpan,
};

use super::request_id::{RequestId, Requests};

/// Of those that share a line so many are named; a batch can be of hundreds.
const NAMED: usize = 64;

/// A form of lines, with the ids of requests.
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
        let Some(requests) = Requests::current() else {
            return self.lines.format_event(context, out, event);
        };
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(fields) => writeln!(out, "{fields},{}}}", json(&requests)),
            None => writeln!(out, "{line} {}", text(&requests)),
        }
    }
}

fn json(requests: &Requests) -> String {
    match requests {
        Requests::One(id) => format!("\"request_id\":\"{id}\""),
        Requests::Shared(ids) => {
            let (named, more) = named(ids, "\",\"");
            let more = if more > 0 { format!(",\"more_requests\":{more}") } else { String::new() };
            format!("\"request_ids\":[\"{named}\"]{more}")
        }
    }
}

fn text(requests: &Requests) -> String {
    match requests {
        Requests::One(id) => format!("request_id={id}"),
        Requests::Shared(ids) => {
            let (named, more) = named(ids, ",");
            let more = if more > 0 { format!(" more_requests={more}") } else { String::new() };
            format!("request_ids={named}{more}")
        }
    }
}

/// The first of them, and how many more there are.
fn named(ids: &[RequestId], between: &str) -> (String, usize) {
    let mut named = String::new();
    for (place, id) in ids.iter().take(NAMED).enumerate() {
        // Writing to a string never fails.
        let _ = write!(named, "{}{id}", if place > 0 { between } else { "" });
    }
    (named, ids.len().saturating_sub(NAMED))
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures::FutureExt as _;
    use serde_json::Value;
    use tracing::{info, subscriber::with_default};

    use super::{super::captured::Captured, *};

    fn id(text: &str) -> RequestId {
        RequestId::given(text.as_bytes()).expect("valid")
    }

    fn log_both() {
        info!("before");
        id("my-req-42").within(|| info!(left = 1, "inside {{}}"));
    }

    /// Logs a line that is about so many requests.
    fn log_for(count: usize) {
        let ids = (0..count).map(|n| id(&format!("req-{n}"))).collect();
        RequestId::during_all(ids, ready(()).map(|()| info!("shared"))).now_or_never().expect("ready");
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

    #[test]
    fn a_line_for_many_names_them_and_stays_short() {
        let (captured, _guard) = Captured::start();
        log_for(2);
        log_for(100);
        let lines = captured.lines();
        assert_eq!(lines[0]["request_ids"], serde_json::json!(["req-0", "req-1"]));
        assert_eq!(lines[0].get("more_requests"), None);
        assert_eq!(lines[1]["request_ids"].as_array().map(Vec::len), Some(NAMED));
        assert_eq!(
            (&lines[1]["request_ids"][NAMED - 1], &lines[1]["more_requests"]),
            (&Value::from("req-63"), &36.into())
        );

        let captured = Captured::default();
        let lines = captured.builder().map_event_format(|lines| WithRequestId::text(lines, false));
        with_default(lines.finish(), || {
            log_for(2);
            log_for(100);
        });
        let text = captured.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("shared request_ids=req-0,req-1"), "{text}");
        assert!(lines[1].ends_with(",req-63 more_requests=36"), "{text}");
    }
}
