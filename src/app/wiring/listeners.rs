//! Where requests come in: the service's own port, and that of the metrics where they have one.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tracing::{info, warn};

use super::Wiring;
use crate::{
    app::config::HttpConfig,
    http::{self, AppState, BatchPlaces, HttpSettings, Observers, RequestLog, Server, TrustedProxies},
    keys::Auth,
    ops::Operations,
    time::SystemClock,
    tracker::Tracker,
};

/// Most connections at once where only metrics are.
const MAX_SCRAPES: usize = 32;

impl Wiring<'_> {
    /// Takes the port, so that whoever starts the service learns at once that it is taken.
    pub(super) async fn serve(
        &mut self,
        tracker: Tracker,
        operations: Operations,
        max_connections: usize,
    ) -> anyhow::Result<SocketAddr> {
        let log = RequestLog::new();
        let observers = Arc::new(Observers { metrics: Arc::clone(&self.metrics), log: Arc::clone(&log) });
        self.serve_metrics(tracker.clone(), &observers).await?;
        let addresses = &self.config.addresses;
        let exposed = matches!(self.auth, Auth::Open) && self.config.http.is_reached_by_others();
        let state = AppState {
            tracker,
            operations,
            observers,
            settings: HttpSettings {
                proxies: TrustedProxies::new(self.config.clients.trusted_proxies.clone()),
                rules: self.config.pipeline.rules(),
                clock: Arc::new(SystemClock),
                auth: self.auth.clone(),
                public_url: addresses.public_url.clone(),
                exposed,
                demo: self.config.store.is_embedded(),
                metrics_elsewhere: addresses.metrics_addr.is_some(),
                cors_origins: addresses.cors_origins.clone(),
            },
            batches: BatchPlaces::default(),
        };
        let HttpConfig { host, port } = &self.config.http;
        let server = Server::bind((host.as_str(), *port), http::router(state), max_connections, log).await;
        let server = server.with_context(|| format!("can't listen on {host}:{port} (APP_HOST, APP_PORT)"))?;
        let address = server.address()?;
        if exposed {
            warn!(
                "everybody who reaches {address} sees names and addresses and may change orders: AUTH=keys asks who they are"
            );
        }
        self.tasks.spawn("http server", server.run(self.shutdown.soft(), self.shutdown.hard()));
        Ok(address)
    }

    /// Where the metrics have an address of their own.
    async fn serve_metrics(&mut self, tracker: Tracker, observers: &Arc<Observers>) -> anyhow::Result<()> {
        let Some(address) = &self.config.addresses.metrics_addr else { return Ok(()) };
        let router = http::metrics_router(Arc::clone(observers), tracker);
        let log = Arc::clone(&observers.log);
        let server = Server::bind((address.host.as_str(), address.port), router, MAX_SCRAPES, log).await;
        let server = server.with_context(|| format!("can't listen on {address} (METRICS_ADDR)"))?;
        info!(address = %server.address()?, "metrics are served");
        self.tasks.spawn("metrics server", server.run(self.shutdown.soft(), self.shutdown.hard()));
        Ok(())
    }
}
