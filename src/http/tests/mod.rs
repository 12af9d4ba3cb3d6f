//! Handlers through the router in the process: status codes, headers and whole bodies.

mod board;
mod board_finds;
mod board_reports;
mod compressed;
mod events;
mod events_reported;
mod explain;
mod feed;
mod feed_stream;
mod included;
mod lifecycle;
mod limits;
mod log;
mod openapi;
mod openapi_examples;
mod ops;
mod orders;
mod pages;
mod pages_cancel;
mod pages_reports;
mod parameters;
mod reports;
mod reports_batch;
mod reports_refused;
mod reports_undone;
mod server;
mod streams;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode},
    response::Response,
};
use http_body_util::BodyExt as _;
use rand::SeedableRng as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{AppState, BatchPlaces, HttpSettings, Observers, RequestLog, TrustedProxies, router};
use crate::{
    ops::{Operations, overview::Overview},
    order::{
        Rules, StageDelays, Start,
        dead_letter::{self, DeadLetterBacklog},
    },
    pipeline::{BatchWriter, ReportWriter},
    store::{
        Portion, Resilient, SqliteStore, Store,
        memory::{Database, MemoryStore},
    },
    telemetry::{
        health::{Health, HealthRegistry, Part},
        metrics::Metrics,
    },
    time::{Alarm, ManualClock},
    tracker::{self, EventReader, Feed, Notifier, OrderLoader, Places, Search, Tracker, Transitions},
};

/// The router on a real store, with the real writer behind the queue.
struct Api {
    router: Router,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    notifier: Arc<Notifier>,
    stop: CancellationToken,
    overview: Arc<Overview>,
    leaving: CancellationToken,
    parts: HealthRegistry,
    dead_letter_backlog: watch::Sender<Option<DeadLetterBacklog>>,
    log: Arc<RequestLog>,
    folder: TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// All of it.
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("json")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ascii"))
    }

    /// Checks that this is a whole problem and answers its code and wrong fields.
    fn problem(&self, status: u16) -> (String, Vec<String>) {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], format!("/problems/{}", body["code"].as_str().expect("a code")));
        assert_eq!(body["request_id"], self.header("x-request-id"));
        for field in ["title", "detail", "instance"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {body}");
        }
        let fields = body["errors"].as_array().map(|errors| {
            errors.iter().map(|error| error["field"].as_str().expect("a field").to_owned()).collect()
        });
        (body["code"].as_str().expect("a code").to_owned(), fields.unwrap_or_default())
    }
}

impl Api {
    async fn open() -> Self {
        Self::open_with(StageDelays::default()).await
    }

    /// With other delays in force than those that the store writes.
    async fn open_with(delays: StageDelays) -> Self {
        Self::open_reading(delays, None).await
    }

    /// As on a database where real orders are kept.
    async fn open_without_demo() -> Self {
        Self::open_on(StageDelays::default(), None, false, |store| store).await
    }

    /// With another store where orders are read.
    async fn open_reading(delays: StageDelays, other: Option<Arc<dyn Store>>) -> Self {
        Self::open_on(delays, other, true, |store| store).await
    }

    /// With something around the store where figures are read.
    async fn open_on(
        delays: StageDelays,
        other: Option<Arc<dyn Store>>,
        demo: bool,
        figures: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Self {
        let folder = TempDir::new().expect("a folder");
        let clock = clock();
        let store = SqliteStore::open(folder.path(), clock.clone()).await.expect("opens");
        Self::over(Arc::new(store), (clock, folder), delays, other, demo, figures)
    }

    /// On the model of a database, for virtual time.
    fn in_memory() -> (Self, Arc<Mutex<Database>>) {
        let (database, clock) = (Arc::default(), clock());
        let store = MemoryStore::new(Arc::clone(&database), clock.clone(), 1);
        let place = (clock, TempDir::new().expect("a folder"));
        (Self::over(Arc::new(store), place, StageDelays::default(), None, true, |store| store), database)
    }

    fn over(
        store: Arc<dyn Store>,
        (clock, folder): (Arc<ManualClock>, TempDir),
        delays: StageDelays,
        other: Option<Arc<dyn Store>>,
        demo: bool,
        figures: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let store: Arc<dyn Store> = Arc::new(Resilient::new(store, Arc::clone(&metrics)));
        let (queue, requests) = tracker::place_queue();
        let (fresh, _) = mpsc::channel(1);
        let loader = OrderLoader::new(other.unwrap_or_else(|| Arc::clone(&store)));
        let stop = CancellationToken::new();
        let (places, wake) = (Places::new(2), Arc::<Notify>::default());
        let notifier = Notifier::new(loader.clone(), Arc::clone(&places), Arc::clone(&wake), stop.clone());
        let feed = Feed::new(Arc::clone(&store), places, Arc::clone(&wake));
        let reader = EventReader {
            log: Arc::clone(&store),
            notifier: Arc::clone(&notifier),
            feed: Arc::clone(&feed),
            wake: Arc::clone(&wake),
            metrics: Arc::clone(&metrics),
        };
        tokio::spawn(reader.run(stop.clone()));
        let to = (Arc::clone(&notifier), Arc::clone(&metrics), Arc::new(Alarm::default()));
        let transitions = Transitions::new(to.0, to.1, to.2, wake);
        let mint = Arc::default();
        let writer = |requests, seed| BatchWriter {
            requests,
            store: Arc::clone(&store),
            fresh: fresh.clone(),
            transitions: Arc::clone(&transitions),
            start: Start::timer(Duration::from_secs(3)),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            mint: Arc::clone(&mint),
            // The same ids at each run.
            random: rand::rngs::StdRng::seed_from_u64(seed),
            hurry: CancellationToken::new(),
            portion: Portion::new(512),
        };
        tokio::spawn(writer(requests.keyless, 7).run());
        tokio::spawn(writer(requests.keyed, 8).run());
        let (report_queue, batches) = tracker::report_queue();
        let rules = Rules { delays, ..Rules::default() };
        let reports = ReportWriter::new(
            batches,
            Arc::clone(&store),
            rules,
            transitions,
            Arc::clone(&metrics),
            CancellationToken::new(),
        );
        tokio::spawn(reports.run());
        let parts = HealthRegistry::default();
        parts.reporter(Part::Consumer).send_replace(Health::Up);
        let (dead_letter_backlog, backlog_watcher) = dead_letter::channel();
        let (overview, leaving) = (Overview::new(figures(Arc::clone(&store))), CancellationToken::new());
        let log = RequestLog::new();
        let search = Search::new(Arc::clone(&store));
        let state = AppState {
            tracker: Tracker::new(queue, report_queue, loader, Arc::clone(&notifier), feed, search),
            operations: Operations {
                overview: Arc::clone(&overview),
                parts: parts.clone(),
                dead_letter_backlog: backlog_watcher,
                leaving: leaving.clone(),
            },
            observers: Arc::new(Observers { metrics, log: Arc::clone(&log) }),
            settings: HttpSettings {
                proxies: TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a network")]),
                rules,
                clock: clock.clone(),
                demo,
            },
            batches: BatchPlaces::default(),
            stop: stop.clone(),
        };
        Self {
            router: router(state),
            notifier,
            stop,
            overview,
            leaving,
            store,
            clock,
            parts,
            dead_letter_backlog,
            log,
            folder,
        }
    }

    /// A part says how it is.
    fn report(&self, part: Part, health: Health) {
        self.parts.reporter(part).send_replace(health);
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("never fails");
        Answer::of(response).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("valid")).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post("/orders");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).expect("valid")).await
    }

    async fn post_json(&self, body: Value) -> Answer {
        self.post(&[("content-type", "application/json")], body.to_string()).await
    }

    /// Reports something of an order.
    async fn report_of(&self, order_id: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.send_json(&format!("/orders/{order_id}/events"), headers, body).await
    }

    async fn send_json(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.to_string().into()).expect("valid")).await
    }

    async fn place(&self, name: &str) -> String {
        let answer = self.post_json(order(name)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.json()["order_id"].as_str().expect("an id").to_owned()
    }

    async fn metric(&self, series: &str) -> bool {
        self.get("/metrics").await.text().lines().any(|line| line == series)
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-01-02T03:04:05.678Z".parse().expect("a moment")))
}

fn order(name: &str) -> Value {
    json!({"customer_name": name, "address": "1 High St", "item": "pizza", "size": "large"})
}
