//! One phase after the other; each leaves the database fuller than it was.

use std::{
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use order_tracker::{
    client::load::{Latency, NewOrders, Plan, Run, Scenario, histogram, record},
    order::OrderId,
};

use crate::{
    Options, feed,
    report::{Figure, Kind, Report, Row},
    reporters::{Reporters, Way},
    scenarios::{Mixed, Reads, Same, Timed},
    server::Server,
    stack::Stack,
    topic::Reader,
};

/// Nothing moves while something else is measured.
const NEVER: &str = "1h";
/// How often the service is started to tell how long that takes.
const STARTS: usize = 5;
/// Orders a second while their way to the topic is timed.
const TOPIC_RATE: f64 = 500.0;
/// Orders, at least, on which something is reported.
const REPORTED: u64 = 600;
/// Connections where only the number of orders counts.
const CROWD: usize = 256;

/// A run under way.
pub(crate) struct Measurement {
    options: Options,
    report: Report,
    ids: Vec<OrderId>,
}

/// Processor seconds so far, of the service and of the database.
type Spent = (Option<f64>, Option<f64>);

fn spent(server: &Server, stack: &Stack) -> Spent {
    (server.cpu(), stack.database_cpu())
}

/// For a thousand of `count`.
fn per_thousand(before: Option<f64>, after: Option<f64>, count: u64) -> Option<f64> {
    Some((after? - before?) / count.max(1) as f64 * 1e3)
}

impl Measurement {
    pub(crate) async fn run(options: Options) -> Result<Report> {
        let stack = Stack::make().await?;
        let report = Report {
            stack: stack.words(),
            processors: available_parallelism().map_or(0, Into::into),
            seconds_per_row: options.seconds,
            figures: Vec::new(),
            rows: Vec::new(),
        };
        let mut run = Self { options, report, ids: Vec::new() };
        let server = run.starts(&stack).await?;
        run.requests(&server, &stack).await?;
        run.topic(&server, &stack).await?;
        run.feed(&server, &stack).await?;
        let name = format!("memory after {} orders", run.ids.len());
        run.figure(name, server.rss(), "MiB");
        run.loops(server, &stack).await?;
        stack.clean_up().await?;

        let stack = Stack::make().await?;
        run.reports(&stack).await?;
        stack.clean_up().await?;

        let stack = Stack::make().await?;
        run.growth(&stack).await?;
        stack.clean_up().await?;
        Ok(run.report)
    }

    fn figure(&mut self, name: impl Into<String>, value: Option<f64>, unit: &'static str) {
        let name = name.into();
        self.report.figures.extend(value.map(|value| Figure { name, value, unit }));
    }

    /// How long a start takes, and what the service needs when it does nothing.
    async fn starts(&mut self, stack: &Stack) -> Result<Server> {
        let mut server = Server::start(stack, NEVER).await?;
        let millis = |server: &Server| server.started_in.as_secs_f64() * 1e3;
        self.figure("start, nothing there yet", Some(millis(&server)), "ms");
        let mut times = Vec::new();
        for _ in 0..STARTS {
            server.stop().await?;
            server = Server::start(stack, NEVER).await?;
            times.push(millis(&server));
        }
        times.sort_by(f64::total_cmp);
        self.figure("start, schema there", times.get(STARTS / 2).copied(), "ms");
        self.figure("memory at rest", server.rss(), "MiB");
        Ok(server)
    }

    /// Requests of each kind, in a closed loop and at rates.
    async fn requests(&mut self, server: &Server, stack: &Stack) -> Result<()> {
        for connections in [1, 16, 64, 256] {
            let orders = Arc::new(NewOrders::kept());
            let name = format!("POST c={connections}");
            self.row(server, stack, name, Kind::Closed, connections, orders.clone()).await?;
            self.ids.extend(orders.ids());
        }
        ensure!(!self.ids.is_empty(), "no order was placed: {:?}", self.report.rows);
        let reads = || Reads(self.ids.clone());
        let scenarios: [(&str, Arc<dyn Scenario>); 4] = [
            ("GET order c=64", Arc::new(reads())),
            ("list c=64", Arc::new(Same("/orders"))),
            ("list by status c=64", Arc::new(Same("/orders?status=PLACED"))),
            ("POST/GET/list 20/70/10 c=64", Arc::new(Mixed(reads()))),
        ];
        for (name, scenario) in scenarios {
            self.row(server, stack, name.to_owned(), Kind::Closed, 64, scenario).await?;
        }
        for rate in self.options.rates.clone() {
            let name = format!("POST at {rate} a second");
            self.row(server, stack, name, Kind::Open(rate), CROWD, Arc::new(NewOrders::default())).await?;
        }
        Ok(())
    }

    async fn row(
        &mut self,
        server: &Server,
        stack: &Stack,
        name: String,
        kind: Kind,
        connections: usize,
        scenario: Arc<dyn Scenario>,
    ) -> Result<()> {
        let plan = Plan {
            target: server.target.clone(),
            rate: if let Kind::Open(rate) = kind { Some(rate) } else { None },
            connections,
            count: None,
            duration: Some(self.options.row()),
        };
        let before = spent(server, stack);
        let summary = Run::start(&plan, scenario).await?.end().await;
        let after = spent(server, stack);
        self.report.rows.push(Row {
            name,
            kind,
            rate: summary.rate,
            latency_ms: Some(summary.latency_ms),
            service_cpu: per_thousand(before.0, after.0, summary.good),
            database_cpu: per_thousand(before.1, after.1, summary.good),
            failed: summary.failed,
        });
        Ok(())
    }

    /// From the moment an order is due to be sent until a reader of the topic has it.
    async fn topic(&mut self, server: &Server, stack: &Stack) -> Result<()> {
        let reader = Reader::new(&server.brokers, stack)?;
        // The embedded broker lets a new reader wait for seconds.
        server
            .until("the reader reads", async || {
                place(server, 1, 1).await?;
                Ok(reader.count() > 0)
            })
            .await?;
        self.timed("topic", server, stack, |id| reader.seen(id)).await
    }

    /// How long orders take to a reader, from when each was due to be sent.
    async fn timed(
        &mut self,
        way: &str,
        server: &Server,
        stack: &Stack,
        seen: impl Fn(OrderId) -> Option<Instant>,
    ) -> Result<()> {
        let rate = if self.options.quick { 50.0 } else { TOPIC_RATE };
        let orders = Arc::new(Timed::default());
        let plan = Plan {
            target: server.target.clone(),
            rate: Some(rate),
            connections: CROWD,
            count: None,
            duration: Some(self.options.row()),
        };
        let before = spent(server, stack);
        let summary = Run::start(&plan, orders.clone()).await?.end().await;
        let placed = orders.placed();
        let all = async || Ok(placed.iter().all(|(id, _)| seen(*id).is_some()));
        server.until("all orders are seen", all).await?;
        let after = spent(server, stack);
        let mut times = histogram();
        for (id, due) in &placed {
            record(&mut times, seen(*id).map_or(Duration::MAX, |seen| seen - *due));
        }
        self.report.rows.push(Row {
            name: format!("POST to {way}, {rate:.0} a second"),
            kind: Kind::Loops,
            rate: summary.rate,
            latency_ms: Some(Latency::of(&times)),
            service_cpu: per_thousand(before.0, after.0, summary.good),
            database_cpu: per_thousand(before.1, after.1, summary.good),
            failed: summary.failed,
        });
        Ok(())
    }

    /// All events so far, page after page; then the way of an order to a reader at the end.
    async fn feed(&mut self, server: &Server, stack: &Stack) -> Result<()> {
        let (before, begun) = (spent(server, stack), Instant::now());
        let events = feed::read_all(&server.target).await? as u64;
        let (took, after) = (begun.elapsed().as_secs_f64(), spent(server, stack));
        self.report.rows.push(Row {
            name: format!("feed, {events} events by pages of 1,000"),
            kind: Kind::Loops,
            rate: events as f64 / took,
            latency_ms: None,
            service_cpu: per_thousand(before.0, after.0, events),
            database_cpu: per_thousand(before.1, after.1, events),
            failed: 0,
        });
        let reader = feed::Reader::start(&server.target).await?;
        self.timed("feed", server, stack, |id| reader.seen(id)).await
    }

    /// Many orders due at once, then whole lives without delays.
    async fn loops(&mut self, server: Server, stack: &Stack) -> Result<()> {
        let due = self.options.burst;
        let missing = due.saturating_sub(self.ids.len() as u64);
        place(&server, missing, CROWD).await?;
        server.stop().await?;
        stack.make_due(due).await?;

        let before = (Some(0.0), stack.database_cpu());
        let begun = Instant::now();
        let server = Server::start(stack, "0s").await?;
        server.until("the burst is delivered", async || Ok(server.delivered().await? >= due)).await?;
        let (took, after) = (begun.elapsed().as_secs_f64(), spent(&server, stack));
        let steps = due * 4;
        self.report.rows.push(Row {
            name: format!("steps, {due} orders due at once"),
            kind: Kind::Loops,
            rate: steps as f64 / took,
            latency_ms: None,
            service_cpu: per_thousand(before.0, after.0, steps),
            database_cpu: per_thousand(before.1, after.1, steps),
            failed: 0,
        });

        let plan = Plan {
            target: server.target.clone(),
            rate: None,
            connections: 64,
            count: None,
            duration: Some(self.options.row()),
        };
        let (before, begun) = (spent(&server, stack), Instant::now());
        let summary = Run::start(&plan, Arc::new(NewOrders::default())).await?.end().await;
        let all = due + summary.good;
        server.until("all are delivered", async || Ok(server.delivered().await? >= all)).await?;
        let (took, after) = (begun.elapsed().as_secs_f64(), spent(&server, stack));
        self.report.rows.push(Row {
            name: "whole lives, no delays, c=64".to_owned(),
            kind: Kind::Loops,
            rate: summary.good as f64 / took,
            latency_ms: None,
            service_cpu: per_thousand(before.0, after.0, summary.good),
            database_cpu: per_thousand(before.1, after.1, summary.good),
            failed: summary.failed,
        });
        server.stop().await
    }

    /// Reports on orders that were placed just before and that no timer moves meanwhile, beside placing them.
    async fn reports(&mut self, stack: &Stack) -> Result<()> {
        let server = Server::start(stack, NEVER).await?;
        let orders = Arc::new(NewOrders::kept());
        self.row(&server, stack, "POST c=64, then reports".to_owned(), Kind::Loops, 64, orders.clone())
            .await?;
        let mut ids = orders.ids();
        let missing = REPORTED.saturating_sub(ids.len() as u64);
        ids.extend(place(&server, missing, CROWD).await?);
        // Each row has orders of its own, all of them at their beginning.
        let mut parts = ids.chunks(ids.len().div_ceil(3)).map(<[OrderId]>::to_vec);
        let mut reached = Vec::new();
        for (way, said, connections) in [
            (Way::Single, "report c=64", 64),
            (Way::WithId, "report with an id c=64", 64),
            (Way::Batch, "reports, 100 at once, c=8", 8),
            (Way::Known, "report of what is known c=64", 64),
        ] {
            let ids = if way == Way::Known { reached.clone() } else { parts.next().unwrap_or_default() };
            let reporters = Arc::new(Reporters::new(way, ids.clone()));
            self.row(&server, stack, said.to_owned(), Kind::Loops, connections, reporters.clone()).await?;
            if let Some(row) = self.report.rows.last_mut() {
                reporters.settle(row, self.options.quick)?;
            }
            if way == Way::Single {
                reached = ids[..reporters.reached()].to_vec();
            }
        }
        server.stop().await
    }

    /// The same requests with more and more orders stored.
    async fn growth(&mut self, stack: &Stack) -> Result<()> {
        let server = Server::start(stack, NEVER).await?;
        let (mut stored, mut ids) = (0, Vec::new());
        for size in self.options.sizes.clone() {
            let more = place(&server, size.saturating_sub(stored), CROWD).await?;
            stored += more.len() as u64;
            ids.extend(more);
            let new = Arc::new(NewOrders::kept());
            let scenarios: [(&str, Arc<dyn Scenario>); 3] = [
                ("GET", Arc::new(Reads(ids.clone()))),
                ("list by status", Arc::new(Same("/orders?status=PLACED"))),
                ("POST", new.clone()),
            ];
            for (name, scenario) in scenarios {
                let name = format!("{name} at {size} stored, c=64");
                self.row(&server, stack, name, Kind::Stored(size), 64, scenario).await?;
            }
            let placed = new.ids();
            stored += placed.len() as u64;
            ids.extend(placed);
        }
        server.stop().await
    }
}

/// Places so many orders as fast as it goes.
async fn place(server: &Server, count: u64, connections: usize) -> Result<Vec<OrderId>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let connections = connections.min(usize::try_from(count)?);
    let plan =
        Plan { target: server.target.clone(), rate: None, connections, count: Some(count), duration: None };
    let orders = Arc::new(NewOrders::kept());
    let summary = Run::start(&plan, orders.clone()).await?.end().await;
    ensure!(summary.failed == 0, "{:?}", summary.errors);
    Ok(orders.ids())
}
