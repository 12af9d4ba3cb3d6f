//! Text of others on its way to a terminal or a log for people: what a service, a broker, a database or a customer wrote must not
//! colour, move, hide or rename anything there, begin a line of its own or turn the words around it.
//!
//! Invariant: whatever is printed or logged as text has gone through here; only what we wrote ourselves has colours.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

/// What is made harmless: characters that command a terminal (ESC and the rest of C0, DEL, C1), that end a line anywhere, and
/// that embed, override, isolate or mark directions. All else stays, as do joiners within words and pictures.
fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of others within a line of ours.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    rewritten(text, |_| false, |out, char| write!(out, "{}", char.escape_default()))
}

/// Lines of others, or lines of ours with texts of others in them.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    rewritten(text, |char| char == '\n', |out, char| write!(out, "{}", char.escape_default()))
}

/// JSON that says the same: such characters stand only in its strings, which can escape them.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    rewritten(text, |char| char == '\n', |out, char| write!(out, "\\u{:04x}", u32::from(char)))
}

fn rewritten(
    text: &str,
    stays: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char) -> fmt::Result,
) -> Cow<'_, str> {
    let bad = |char| is_harmful(char) && !stays(char);
    let Some(first) = text.find(bad) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for char in text[first..].chars() {
        if bad(char) {
            // Writing to a string never fails.
            let _ = escape(&mut out, char);
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}

/// Anything that is shown, cleaned as it is written.
pub(super) struct Clean<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Clean<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Cleaning(f), "{}", self.0)
    }
}

impl<T: fmt::Debug> fmt::Debug for Clean<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Cleaning(f), "{:?}", self.0)
    }
}

struct Cleaning<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Cleaning<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&line(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn commands_are_shown_and_other_scripts_stay() {
        assert_eq!(
            line("\u{1b}]0;mine\u{7}\u{9b}2J\r\nok\t\u{7f}"),
            "\\u{1b}]0;mine\\u{7}\\u{9b}2J\\r\\nok\\t\\u{7f}"
        );
        assert_eq!(line("a\u{202e}b\u{2066}c\u{200f}\u{2028}"), "a\\u{202e}b\\u{2066}c\\u{200f}\\u{2028}");
        assert_eq!(lines("a\nb\u{1b}c"), "a\nb\\u{1b}c");
        assert_eq!(json("{\n\"a\":\"\u{9b}\u{202e}\"}"), "{\n\"a\":\"\\u009b\\u202e\"}");
        for text in ["Ada", "مها", "東京都", "می\u{200c}خواهم", "👩\u{200d}🍳", "C:\\new"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    /// Any text, with more of what harms than chance would bring.
    fn hostile() -> impl Strategy<Value = String> {
        let harm = prop::sample::select(vec![
            "\u{1b}[31m",
            "\u{1b}]8;;http://x\u{1b}\\",
            "\u{9b}0m",
            "\n",
            "\r",
            "\0",
            "\u{202e}",
            "\u{2066}",
            "\u{2029}",
            "\u{7}",
        ]);
        let part = prop_oneof![harm.prop_map(str::to_owned), any::<String>()];
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        /// Nothing that harms comes out, in whatever way it goes in; only the lines of ours end.
        #[test]
        fn nothing_harmful_comes_out(text in hostile()) {
            let shown = [line(&text).into_owned(), Clean(&text).to_string(), format!("{:?}", Clean(&text)), Clean(format_args!("{text}")).to_string()];
            for shown in shown {
                prop_assert!(!shown.contains(is_harmful), "{}", shown.escape_debug());
            }
            for shown in [lines(&text), json(&text)] {
                prop_assert!(!shown.contains(|char| is_harmful(char) && char != '\n'), "{}", shown.escape_debug());
            }
        }

        /// JSON stays what it was.
        #[test]
        fn json_says_the_same(text in hostile()) {
            let value = Value::from(vec![text]);
            let shown = json(&serde_json::to_string_pretty(&value).expect("JSON")).into_owned();
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), value);
        }
    }
}
