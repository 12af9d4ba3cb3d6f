//! The service that a test asks: the router on a real database, with the real writers behind the queues.

use std::sync::{Arc, Mutex};

use rand::{SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Api, clock, declared::Declared};
use crate::{
    http::{AppState, BatchPlaces, HttpSettings, Observers, RequestLog, TrustedProxies, router},
    keys::{ApiKey, Auth, KeyId, KeyRing, StoredKey},
    ops::{Operations, overview::Overview},
    order::{Progression, Role, Rules, StageDelays},
    pipeline::{BatchWriter, ReportWriter},
    store::{
        PgDatabase, Portion, Resilient, SqliteStore, Store,
        memory::{self, MemoryStore},
    },
    telemetry::{
        health::{Health, HealthRegistry, Part},
        metrics::Metrics,
    },
    time::{Alarm, ManualClock},
    tracker::{self, EventReader, Feed, Notifier, OrderLoader, Places, Search, Tracker, Transitions},
};

/// Makes tests of cases, which take a [`Service`]: of `case` there are `sqlite::case` and `postgres::case`, and of one that
/// stands behind `in both modes:` the same for orders that people move, `sqlite_reported::case` and `postgres_reported::case`.
macro_rules! on_both_databases {
    (in both modes: $($each:ident),+ $(,)?) => { on_both_databases!(; in both modes: $($each),+); };
    ($($case:ident),+ $(,)?) => { on_both_databases!($($case),+; in both modes:); };
    ($($case:ident),*; in both modes: $($each:ident),* $(,)?) => {
        on_both_databases!(sqlite: Sqlite, Timer, cfg(test); $($case,)* $($each,)*);
        on_both_databases!(sqlite_reported: Sqlite, Reported, cfg(test); $($each,)*);
        on_both_databases!(postgres: Postgres, Timer,
            cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN"); $($case,)* $($each,)*);
        on_both_databases!(postgres_reported: Postgres, Reported,
            cfg_attr(not(with_postgres), ignore = "left out: needs PG_DSN"); $($each,)*);
    };
    ($name:ident: $database:ident, $mode:ident, $attribute:meta; ) => {};
    ($name:ident: $database:ident, $mode:ident, $attribute:meta; $($case:ident,)+) => {
        mod $name {
            use crate::{http::tests::service::{Database, Service}, order::Progression};

            $(#[tokio::test]
            #[$attribute]
            async fn $case() {
                super::$case(Service::on(Database::$database).mode(Progression::$mode)).await;
            })+
        }
    };
}
pub(super) use on_both_databases;

/// Where orders are kept.
#[derive(Debug, Clone, Copy)]
pub(super) enum Database {
    Sqlite,
    Postgres,
}

/// How a service is set; opened as often as a test likes, each time on a database of its own.
#[derive(Clone)]
pub(super) struct Service {
    database: Database,
    /// What moves its orders.
    pub(super) mode: Progression,
    rules: Rules,
    demo: bool,
    reads: Option<Arc<dyn Store>>,
    auth: Auth,
    public_url: Option<Url>,
    exposed: bool,
    metrics_elsewhere: bool,
    cors_origins: Vec<String>,
}

/// A key of each role, all of them good.
pub(super) struct Keys {
    pub(super) ring: Arc<KeyRing>,
    keys: Vec<(ApiKey, StoredKey)>,
}

impl Keys {
    pub(super) fn of_all_roles() -> Self {
        let random = &mut StdRng::seed_from_u64(11);
        let mut draw = |role: Role| {
            let (key, id) = (ApiKey::random(random), KeyId::random(random));
            let stored = StoredKey { id, name: format!("the {role}"), role, hash: key.hash() };
            (key, stored)
        };
        let keys = Self { ring: Arc::default(), keys: Role::ALL.map(&mut draw).into() };
        keys.restore();
        keys
    }

    /// As before they were read for the first time.
    pub(super) fn unread() -> Self {
        Self { ring: Arc::default(), keys: Vec::new() }
    }

    /// All are good.
    pub(super) fn restore(&self) {
        self.ring.replace(self.keys.iter().map(|(_, stored)| stored.clone()).collect());
    }

    /// All are good but that of this role.
    pub(super) fn revoke(&self, revoked: Role) {
        let good = self.keys.iter().map(|(_, stored)| stored.clone());
        self.ring.replace(good.filter(|stored| stored.role != revoked).collect());
    }

    /// What the holder of this key sends.
    pub(super) fn bearer(&self, role: Role) -> String {
        format!("Bearer {}", self.key(role).reveal())
    }

    pub(super) fn key(&self, role: Role) -> &ApiKey {
        let found = self.keys.iter().find(|(_, stored)| stored.role == role);
        &found.expect("there is one of each role").0
    }
}

impl Service {
    /// With the defaults.
    pub(super) fn on(database: Database) -> Self {
        Self {
            database,
            mode: Progression::Timer,
            rules: Rules::default(),
            demo: true,
            reads: None,
            auth: Auth::Open,
            public_url: None,
            exposed: false,
            metrics_elsewhere: false,
            cors_origins: Vec::new(),
        }
    }

    /// Who asks must have one of these keys.
    pub(super) fn asking_for(&self, keys: &Keys) -> Self {
        Self { auth: Auth::Keys(Arc::clone(&keys.ring)), ..self.clone() }
    }

    /// Clients reach it there.
    pub(super) fn public_url(&self, url: &str) -> Self {
        Self { public_url: Some(url.parse().expect("a URL")), ..self.clone() }
    }

    /// `/metrics` is somewhere else.
    pub(super) fn metrics_elsewhere(&self) -> Self {
        Self { metrics_elsewhere: true, ..self.clone() }
    }

    /// Pages of these sites may use the API.
    pub(super) fn cors_origins(&self, origins: &[&'static str]) -> Self {
        let cors_origins = origins.iter().copied().map(str::to_owned).collect();
        Self { cors_origins, ..self.clone() }
    }

    /// As where others than this machine's reach it.
    pub(super) fn exposed(&self) -> Self {
        Self { exposed: true, ..self.clone() }
    }

    /// What moves the orders that it takes.
    pub(super) fn mode(&self, mode: Progression) -> Self {
        Self { mode, ..self.clone() }
    }

    /// With other rules for what is reported.
    pub(super) fn rules(&self, rules: Rules) -> Self {
        Self { rules, ..self.clone() }
    }

    /// With other delays in force than those that the store writes.
    pub(super) fn delays(&self, delays: StageDelays) -> Self {
        self.rules(Rules { delays, ..self.rules })
    }

    /// As where real orders are kept.
    pub(super) fn without_demo(&self) -> Self {
        Self { demo: false, ..self.clone() }
    }

    /// With another store where orders are read.
    pub(super) fn reading(&self, other: Arc<dyn Store>) -> Self {
        Self { reads: Some(other), ..self.clone() }
    }

    pub(super) async fn open(&self) -> Api {
        self.open_around(|store| store).await
    }

    /// With something around the store where figures are read.
    pub(super) async fn open_around(&self, figures: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Api {
        let (folder, clock) = (TempDir::new().expect("a folder"), clock());
        match self.database {
            Database::Sqlite => {
                let store = SqliteStore::open(folder.path(), clock.clone()).await.expect("opens");
                self.over(Arc::new(store), (clock, folder, None), figures)
            }
            Database::Postgres => {
                let database = PgDatabase::create().await;
                let store = database.replica(&clock).await;
                self.over(store, (clock, folder, Some(database)), figures)
            }
        }
    }

    /// On the model of a database, for virtual time.
    pub(super) fn in_memory(&self) -> (Api, Arc<Mutex<memory::Database>>) {
        let (database, clock) = (Arc::default(), clock());
        let store = MemoryStore::new(Arc::clone(&database), clock.clone(), 1);
        let place = (clock, TempDir::new().expect("a folder"), None);
        (self.over(Arc::new(store), place, |store| store), database)
    }

    pub(super) fn over(
        &self,
        store: Arc<dyn Store>,
        (clock, folder, database): (Arc<ManualClock>, TempDir, Option<PgDatabase>),
        figures: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Api {
        let metrics = Arc::new(Metrics::new());
        let store: Arc<dyn Store> = Arc::new(Resilient::new(store, Arc::clone(&metrics)));
        let (queue, requests) = tracker::place_queue();
        let (fresh, _) = mpsc::channel(1);
        let loader = OrderLoader::new(self.reads.clone().unwrap_or_else(|| Arc::clone(&store)));
        let stop = CancellationToken::new();
        let places = Places::new(2, stop.clone());
        let notifier = Notifier::new(loader.clone(), Arc::clone(&places));
        let feed = Feed::new(store.clone(), places);
        let reader = EventReader {
            log: store.clone(),
            notifier: Arc::clone(&notifier),
            feed: Arc::clone(&feed),
            metrics: Arc::clone(&metrics),
        };
        tokio::spawn(reader.run(stop.clone()));
        let alarm = Arc::new(Alarm::default());
        let transitions = Transitions::new(Arc::clone(&notifier), Arc::clone(&metrics), alarm);
        let mint = Arc::default();
        let start = Rules { delays: StageDelays::default(), ..self.rules }.start(self.mode);
        let writer = |requests, seed| BatchWriter {
            requests,
            store: store.clone(),
            fresh: fresh.clone(),
            transitions: Arc::clone(&transitions),
            start,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            mint: Arc::clone(&mint),
            // The same ids at each run.
            random: StdRng::seed_from_u64(seed),
            hurry: CancellationToken::new(),
            portion: Portion::new(512),
        };
        tokio::spawn(writer(requests.keyless, 7).run());
        tokio::spawn(writer(requests.keyed, 8).run());
        let (report_queue, batches) = tracker::report_queue();
        let reports = ReportWriter::new(
            batches,
            store.clone(),
            self.rules,
            transitions,
            Arc::clone(&metrics),
            CancellationToken::new(),
        );
        tokio::spawn(reports.run());
        let parts = HealthRegistry::default();
        parts.reporter(Part::Consumer).send_replace(Health::Up);
        let (dead_letter_backlog, backlog_watcher) = watch::channel(None);
        let (overview, leaving) = (Overview::new(figures(Arc::clone(&store))), CancellationToken::new());
        let log = RequestLog::new();
        let search = Search::new(store.clone());
        let tracker = Tracker::new(queue, report_queue, loader, Arc::clone(&notifier), feed, search);
        let state = AppState {
            tracker: tracker.clone(),
            operations: Operations {
                overview: Arc::clone(&overview),
                parts: parts.clone(),
                dead_letter_backlog: backlog_watcher,
                leaving: leaving.clone(),
            },
            observers: Arc::new(Observers { metrics: Arc::clone(&metrics), log: Arc::clone(&log) }),
            settings: HttpSettings {
                proxies: TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a network")]),
                rules: self.rules,
                clock: clock.clone(),
                auth: self.auth.clone(),
                public_url: self.public_url.clone(),
                exposed: self.exposed,
                demo: self.demo,
                metrics_elsewhere: self.metrics_elsewhere,
                cors_origins: self.cors_origins.clone(),
            },
            batches: BatchPlaces::default(),
        };
        Api {
            router: router(state),
            _declared: Declared::on(metrics),
            tracker,
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
            _database: database,
        }
    }
}
