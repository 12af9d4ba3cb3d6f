//! What a test's thread logs.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use serde_json::Value;
use tracing::{
    Dispatch,
    subscriber::{DefaultGuard, NoSubscriber},
};
use tracing_subscriber::{EnvFilter, fmt::SubscriberBuilder};

use super::WithRequestId;

/// Where there is only one subscriber, `tracing` asks the thread that first comes by a line whether anybody wants it. Beside
/// a second one it asks all subscribers, so that no other test's thread switches off what this one's wants.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));

/// The lines so far.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    /// Begins; ends with the guard.
    pub(crate) fn start() -> (Self, DefaultGuard) {
        Self::start_filtered("info")
    }

    /// The same with what this filter lets through.
    pub(crate) fn start_filtered(filter: &str) -> (Self, DefaultGuard) {
        LazyLock::force(&ANOTHER);
        let captured = Self::default();
        let lines = captured.builder().json().flatten_event(true).map_event_format(WithRequestId::json);
        let lines = lines.with_env_filter(EnvFilter::try_new(filter).expect("a filter"));
        (captured, tracing::subscriber::set_default(lines.finish()))
    }

    /// For other forms of lines.
    pub(super) fn builder(
        &self,
    ) -> SubscriberBuilder<
        tracing_subscriber::fmt::format::DefaultFields,
        tracing_subscriber::fmt::format::Format,
        tracing_subscriber::filter::LevelFilter,
        impl Fn() -> Self + use<>,
    > {
        let captured = self.clone();
        tracing_subscriber::fmt().with_writer(move || captured.clone())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The lines that say this.
    pub(crate) fn saying(&self, message: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["message"] == message).collect()
    }
}
