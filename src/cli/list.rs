//! `order list`: the newest orders, or all of them, page by page.

use std::fmt::Write as _;

use clap::Args;
use url::Url;

use super::{
    clean,
    client::{Client, ClientArgs},
    order::or_dash,
    output,
    values::{order_id, statuses},
};
use crate::{
    client::{Answer, ClientRequest, header},
    order::{Order, OrderId, Shown, Status},
};

/// The longest page that the service gives.
const PAGE: u64 = 200;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only orders in this status
    #[arg(long, value_parser = statuses(), ignore_case = true)]
    status: Option<Status>,
    /// How many at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = limit)]
    limit: u64,
    /// As many as there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Only orders older than this one: the last of the list before
    #[arg(long, value_name = "ORDER_ID", value_parser = order_id)]
    cursor: Option<OrderId>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn limit(text: &str) -> Result<u64, String> {
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| "must be a whole number from 1".to_owned())
}

pub(super) async fn run(args: ListArgs) -> anyhow::Result<()> {
    let client = Client::new(args.client.url)?;
    let mut left = if args.all { u64::MAX } else { args.limit };
    let (mut before, mut printed) = (args.cursor, Printed { json: args.client.json, orders: 0 });
    loop {
        let answer = client.send(ClientRequest::get(path(left.min(PAGE), args.status, before))).await?;
        let orders: Vec<Order> = client.read(&answer)?;
        printed.page(&orders)?;
        left = left.saturating_sub(orders.len() as u64);
        let next = next(&answer, &client.base);
        // A page that leads to itself, or nowhere, is the last one.
        if left == 0 || orders.is_empty() || next.is_none() || next == before {
            return printed.end();
        }
        before = next;
    }
}

fn path(limit: u64, status: Option<Status>, before: Option<OrderId>) -> String {
    let status = status.map(|status| format!("&status={status}")).unwrap_or_default();
    let cursor = before.map(|id| format!("&cursor={}", id.to_string().trim_start_matches("ORD-")));
    format!("/orders?limit={limit}{status}{}", cursor.unwrap_or_default())
}

/// Where the next page begins. Only the place is taken from the answer: who is asked is what was typed.
fn next(answer: &Answer, base: &Url) -> Option<OrderId> {
    let links = answer.headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
    let mut links = links.flat_map(|links| links.split(','));
    let link = links.find(|link| link.contains("rel=\"next\"") || link.ends_with("rel=next"))?;
    let target = link.split_once('<')?.1.split_once('>')?.0;
    let target = base.join(target).ok()?;
    let (_, cursor) = target.query_pairs().find(|(name, _)| name == "cursor")?;
    OrderId::typed(&cursor).ok()
}

/// What was printed so far: a page is not kept until the last one has come.
struct Printed {
    json: bool,
    orders: u64,
}

impl Printed {
    fn page(&mut self, orders: &[Order]) -> anyhow::Result<()> {
        let mut text = String::new();
        for order in orders {
            if self.json {
                text.push_str(if self.orders == 0 { "[\n" } else { ",\n" });
                text.push_str(&clean::json(&serde_json::to_string(&Shown::new(order, order.told()))?));
            } else {
                text.push_str(&row(order));
            }
            self.orders += 1;
        }
        output::print_raw(text.as_bytes())
    }

    fn end(&self) -> anyhow::Result<()> {
        match (self.json, self.orders) {
            (true, 0) => output::print("[]"),
            (true, _) => output::print("\n]"),
            (false, _) => Ok(()),
        }
    }
}

fn row(order: &Order) -> String {
    let at = order.created_at.format("%Y-%m-%d %H:%M:%S UTC");
    let Order { order_id, details, status, .. } = order;
    let (item, name) = (clean::line(&details.item), clean::line(or_dash(&details.customer_name)));
    let mut text = format!("{order_id}  {at}  {:16}  {} ", status.as_str(), details.size);
    let _ = writeln!(text, "{item} for {name}");
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::client::{HeaderMap, StatusCode};

    #[test]
    fn the_next_page_is_where_the_link_says_and_nowhere_else() {
        let of = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, link.parse().expect("a value"));
            let answer = Answer { status: StatusCode::OK, headers, body: Bytes::new() };
            next(&answer, &"http://food.example/api/".parse().expect("an address")).map(|id| id.to_string())
        };
        let id = Some("ORD-01ARZ3NDEK0000000000000000".to_owned());
        assert_eq!(of("</orders?limit=1&cursor=01ARZ3NDEK0000000000000000>; rel=\"next\""), id);
        let two =
            "</x>; rel=\"prev\", <http://evil.example/?cursor=01ARZ3NDEK0000000000000000>; rel=\"next\"";
        assert_eq!(of(two), id, "whoever it names, only the place is taken");
        for none in [
            "</orders?cursor=01ARZ3NDEK0000000000000000>; rel=\"prev\"",
            "</orders>; rel=\"next\"",
            "rel=\"next\"",
            "</orders?cursor=7>; rel=\"next\"",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
