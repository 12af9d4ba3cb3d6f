//! One line of the log for each request, and one for why it failed, at most so many a second: failures first, and how
//! many were left out.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use tokio::time::{Instant, sleep};
use tracing::{Level, enabled, error, info};

use super::{
    super::Problem,
    observe::{OTHER, UNMATCHED},
};
use crate::telemetry::RequestId;

/// Most lines a second.
const MOST: u32 = 500;
/// So many of them are kept for failures even where there were none.
const KEPT: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);
/// What machines ask for again and again. Their lines have a target of their own, so that they can be switched off
/// alone: `RUST_LOG=info,order_tracker::http::probes=warn`.
pub(in crate::http) const PROBED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
const PROBES: &str = "order_tracker::http::probes";
/// The target of all other lines, whatever this file is called.
const LINES: &str = "order_tracker::http::request_log";

/// A request as its line tells it.
pub(in crate::http) struct Answered<'a> {
    pub(in crate::http) id: &'a RequestId,
    pub(in crate::http) method: &'a str,
    pub(in crate::http) route: &'a str,
    pub(in crate::http) status: StatusCode,
    pub(in crate::http) took: Duration,
    /// The name of the key that it came with.
    pub(in crate::http) key: Option<&'a str>,
}

/// Writes the lines.
#[derive(Debug)]
pub struct RequestLog {
    started: Instant,
    window: Mutex<Window>,
    /// The second in which no more lines are written; of requests that were served, and of failures.
    full: [AtomicU64; 2],
    /// How many were left out, of each kind.
    left_out: [AtomicU64; 2],
    /// Whether somebody is about to tell.
    telling: AtomicBool,
}

/// The lines of one second.
#[derive(Debug, Default)]
struct Window {
    /// Counted from 1.
    second: u64,
    served: u32,
    failed: u32,
    /// How many are for failures only.
    kept: u32,
    /// Whether even a failure found no room.
    crowded: bool,
}

impl Window {
    /// The window of this second. As many may fail in it as in the one before.
    fn after(before: &Self, second: u64) -> Self {
        let kept = match before {
            Self { second: last, .. } if last + 1 < second => KEPT,
            Self { crowded: true, .. } => MOST,
            Self { failed, .. } => (*failed).max(KEPT),
        };
        Self { second, kept, ..Self::default() }
    }

    /// Whether there is room for one more line.
    fn admit(&mut self, failed: bool) -> bool {
        let others = if failed { self.failed } else { self.failed.max(self.kept) };
        let admitted = self.served + others < MOST;
        match (admitted, failed) {
            (true, true) => self.failed += 1,
            (true, false) => self.served += 1,
            (false, _) => self.crowded |= failed,
        }
        admitted
    }
}

impl RequestLog {
    /// Nothing written yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            window: Mutex::default(),
            full: Default::default(),
            left_out: Default::default(),
            telling: AtomicBool::new(false),
        })
    }

    /// Writes a request's line, if it is to have one. What is left out costs next to nothing.
    pub(in crate::http) fn write(self: &Arc<Self>, answered: &Answered<'_>) {
        let Answered { id, method, route, status, took, key } = *answered;
        let (failed, probe) = (status.is_server_error(), PROBED.contains(&route));
        let wanted = if probe && !failed {
            enabled!(target: PROBES, Level::INFO)
        } else {
            enabled!(target: LINES, Level::INFO)
        };
        if !wanted || !self.admits(failed) {
            return;
        }
        let (id, status) = (id.as_str(), status.as_u16());
        let ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        if probe && !failed {
            info!(target: PROBES, request_id = id, key, method, route, status, ms, "answered");
        } else {
            info!(target: LINES, request_id = id, key, method, route, status, ms, "answered");
        }
    }

    /// Writes why the request that the running code works for failed, if there is room for one more line.
    pub(in crate::http) fn fail(self: &Arc<Self>, error: &str, what: &str) {
        if enabled!(target: LINES, Level::ERROR) && self.admits(true) {
            error!(target: LINES, error, "{what}");
        }
    }

    /// Writes the line of a request that could not be read, and makes its answer.
    pub(in crate::http) fn refuse(self: &Arc<Self>, problem: &Problem) -> Vec<u8> {
        let (id, took) = (RequestId::random(), Duration::ZERO);
        let status = problem.status;
        self.write(&Answered { id: &id, method: OTHER, route: UNMATCHED, status, took, key: None });
        problem.raw_response(&id)
    }

    fn admits(self: &Arc<Self>, failed: bool) -> bool {
        let second = 1 + self.started.elapsed().as_secs();
        let kind = usize::from(failed);
        if self.full[kind].load(Ordering::Relaxed) != second && self.admit_in(second, failed) {
            return true;
        }
        self.left_out[kind].fetch_add(1, Ordering::Relaxed);
        if !self.telling.load(Ordering::Relaxed) && !self.telling.swap(true, Ordering::Relaxed) {
            let log = Arc::clone(self);
            tokio::spawn(async move {
                sleep(SECOND).await;
                log.tell();
            });
        }
        false
    }

    fn admit_in(&self, second: u64, failed: bool) -> bool {
        let mut window = self.window.lock().expect("no holder panics");
        if window.second < second {
            *window = Window::after(&window, second);
        }
        let admitted = window.admit(failed);
        if !admitted {
            self.full[usize::from(failed)].store(second, Ordering::Relaxed);
        }
        admitted
    }

    fn tell(&self) {
        self.telling.store(false, Ordering::Relaxed);
        let [served, failed] = self.left_out.each_ref().map(|count| count.swap(0, Ordering::Relaxed));
        if served + failed > 0 {
            info!(target: LINES, left_out = served + failed, failed, "lines of requests are left out");
        }
    }
}
