//! `order create|get|list|watch`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    client::{Client, ClientArgs},
    output,
    watch::{self, WatchArgs},
};
use crate::order::{Event, Order, OrderId, Size, Status, Timestamp, TrackedOrder};

#[derive(Debug, Subcommand)]
pub(super) enum OrderCommand {
    /// Place an order and print its id
    Create(CreateArgs),
    /// Show an order and its timeline
    Get(GetArgs),
    /// List the newest orders
    List(ListArgs),
    /// Follow an order until it is delivered; exit code 1 if that can't be seen
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Who orders
    #[arg(long)]
    customer_name: String,
    /// Where it goes
    #[arg(long)]
    address: String,
    /// What is ordered
    #[arg(long)]
    item: String,
    /// small, medium or large
    #[arg(long, default_value_t = Size::Medium)]
    size: Size,
    /// Sent as Idempotency-Key: the same key never places a second order
    #[arg(long)]
    idempotency_key: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The order's id, ORD-...
    order_id: OrderId,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only orders in this status
    #[arg(long)]
    status: Option<Status>,
    /// How many at most, up to 200
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = limit)]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

fn limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| "must be a whole number from 1".to_owned())
}

pub(super) async fn run(command: OrderCommand) -> anyhow::Result<()> {
    match command {
        OrderCommand::Create(args) => create(args).await,
        OrderCommand::Get(args) => get(args).await,
        OrderCommand::List(args) => list(args).await,
        OrderCommand::Watch(args) => watch::run(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let client = Client::new(args.client.url)?;
    let mut request = client.http.post(client.at(&["orders"])?).json(&json!({
        "customer_name": args.customer_name, "address": args.address, "item": args.item, "size": args.size,
    }));
    if let Some(key) = args.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let placed: Value = client.ask(request).await?;
    if args.client.json {
        return output::print_json(&placed);
    }
    output::print(placed["order_id"].as_str().unwrap_or_default())
}

async fn get(args: GetArgs) -> anyhow::Result<()> {
    let client = Client::new(args.client.url)?;
    let url = client.at(&["orders", &args.order_id.to_string()])?;
    let tracked: TrackedOrder = client.ask(client.http.get(url)).await?;
    if args.client.json { output::print_json(&tracked) } else { output::print(story(&tracked).trim_end()) }
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let client = Client::new(args.client.url)?;
    let mut request = client.http.get(client.at(&["orders"])?).query(&[("limit", args.limit)]);
    if let Some(status) = args.status {
        request = request.query(&[("status", status.as_str())]);
    }
    let orders: Vec<Order> = client.ask(request).await?;
    if args.client.json {
        output::print_json(&orders)
    } else {
        output::print_bytes(table(&orders).as_bytes())
    }
}

fn story(tracked: &TrackedOrder) -> String {
    let TrackedOrder { order, events } = tracked;
    let draft = &order.draft;
    let mut text = format!(
        "{}  {}\n{} {} for {}, {}\n\n",
        order.order_id, order.status, draft.size, draft.item, draft.customer_name, draft.address
    );
    let mut previous: Option<Timestamp> = None;
    for event in events {
        let _ = writeln!(text, "{}", line(event, previous));
        previous = Some(event.timestamp);
    }
    text
}

/// An event, when it happened, and how long after the one before.
pub(super) fn line(event: &Event, previous: Option<Timestamp>) -> String {
    let after = previous.map_or_else(String::new, |previous| {
        let millis = (event.timestamp - previous).num_milliseconds();
        format!("  +{}.{:03} s", millis / 1000, millis % 1000)
    });
    let at = event.timestamp.format("%Y-%m-%d %H:%M:%S%.3f UTC");
    format!("{at}  {:16}{after}", event.event.as_str())
}

fn table(orders: &[Order]) -> String {
    let mut text = String::new();
    for order in orders {
        let at = order.created_at.format("%Y-%m-%d %H:%M:%S UTC");
        let Order { order_id, draft, status, .. } = order;
        let _ = writeln!(
            text,
            "{order_id}  {at}  {:16}  {} {} for {}",
            status.as_str(),
            draft.size,
            draft.item,
            draft.customer_name
        );
    }
    text
}
