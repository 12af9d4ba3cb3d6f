//! `order create|get|list|watch|report|cancel|explain`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    clean,
    client::{Client, ClientArgs},
    event_line::line,
    explain::{self, ExplainArgs},
    list::{self, ListArgs},
    output,
    report::{self, CancelArgs, ReportArgs},
    values::{idempotency_key, order_id, sizes},
    watch::{self, WatchArgs},
};
use crate::{
    client::{ClientRequest, header::HeaderName, header::HeaderValue},
    order::{OrderId, Shown, Size, Timestamp, TrackedOrder},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[derive(Debug, Subcommand)]
pub(super) enum OrderCommand {
    /// Place an order and print its id
    Create(CreateArgs),
    /// Show an order and its timeline
    Get(GetArgs),
    /// List the newest orders
    List(ListArgs),
    /// Follow an order until it is delivered or cancelled; exit code 1 if that can't be seen
    Watch(WatchArgs),
    /// Report what happened to an order
    Report(Box<ReportArgs>),
    /// Cancel an order
    Cancel(CancelArgs),
    /// Say why an order stands where it stands, and what may be done
    Explain(ExplainArgs),
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
    /// How large
    #[arg(long, default_value_t = Size::Medium, value_parser = sizes(), ignore_case = true)]
    size: Size,
    /// Sent as Idempotency-Key: the same key never places a second order
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    idempotency_key: Option<HeaderValue>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The order's id, ORD-...
    #[arg(value_parser = order_id)]
    order_id: OrderId,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(command: OrderCommand) -> anyhow::Result<()> {
    match command {
        OrderCommand::Create(args) => create(args).await,
        OrderCommand::Get(args) => get(args).await,
        OrderCommand::List(args) => list::run(args).await,
        OrderCommand::Watch(args) => watch::run(args).await,
        OrderCommand::Report(args) => report::report(*args).await,
        OrderCommand::Cancel(args) => report::cancel(args).await,
        OrderCommand::Explain(args) => explain::run(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let body = json!({
        "customer_name": args.customer_name, "address": args.address, "item": args.item, "size": args.size,
    });
    let mut request = ClientRequest::post("/orders", body.to_string());
    if let Some(key) = args.idempotency_key {
        request = request.with(IDEMPOTENCY_KEY, key);
    }
    let placed: Value = Client::new(args.client.url)?.ask(request).await?;
    if args.client.json {
        return output::print_json(&placed);
    }
    output::print(&clean::line(placed["order_id"].as_str().unwrap_or_default()))
}

async fn get(args: GetArgs) -> anyhow::Result<()> {
    let client = Client::new(args.client.url)?;
    let tracked: TrackedOrder = client.ask(ClientRequest::get(format!("/orders/{}", args.order_id))).await?;
    if args.client.json {
        output::print_json(&Shown::new(&tracked, tracked.order.told()))
    } else {
        output::print(timeline(&tracked).trim_end())
    }
}

/// What is kept from who asks is not there.
pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn timeline(tracked: &TrackedOrder) -> String {
    let TrackedOrder { order, events } = tracked;
    let details = &order.details;
    let [item, name, address] =
        [&details.item, &details.customer_name, &details.address].map(|text| clean::line(or_dash(text)));
    let mut text =
        format!("{}  {}\n{} {item} for {name}, {address}\n\n", order.order_id, order.status, details.size);
    let mut previous: Option<Timestamp> = None;
    for event in events {
        let _ = writeln!(text, "{}", line(event, previous));
        previous = Some(event.timestamp);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_from_who_asks_is_a_dash() {
        let answer = |name: Value, address: Value| {
            let at = "2026-01-02T03:04:05.678Z";
            let order = json!({"order_id": "ORD-01ARZ3NDEK0000000000000000", "customer_name": name, "address": address,
                "item": "pizza", "size": "large", "status": "PLACED", "created_at": at, "updated_at": at});
            let tracked = serde_json::from_value(json!({"order": order, "events": []})).expect("an order");
            timeline(&tracked)
        };
        assert!(answer(Value::Null, Value::Null).contains("large pizza for -, -\n"));
        assert!(answer("Ada".into(), Value::Null).contains("large pizza for Ada, -\n"));
        assert!(answer("Ada".into(), "1 High St".into()).contains("large pizza for Ada, 1 High St\n"));
    }
}
