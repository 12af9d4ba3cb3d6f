//! `order explain`: why an order stands where it stands.

use std::fmt::Write as _;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{
    clean,
    client::{Client, ClientArgs},
    output,
    report::may_follow,
    values::order_id,
};
use crate::{
    client::ClientRequest,
    order::{OrderId, Timestamp},
};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The order's id, ORD-...
    #[arg(value_parser = order_id)]
    order_id: OrderId,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is shown of an answer: a newer service may say more, with words that are not known here.
#[derive(Deserialize)]
struct Explanation {
    status: String,
    since: Timestamp,
    waits_for: Option<String>,
    causes: Vec<ExplainedCause>,
    #[serde(default)]
    allowed: Vec<String>,
}

#[derive(Deserialize)]
struct ExplainedCause {
    text: String,
}

pub(super) async fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let client = Client::new(args.client.url)?;
    let answer = client.send(ClientRequest::get(format!("/orders/{}/explain", args.order_id))).await?;
    if args.client.json {
        return output::print_json(&client.read::<Value>(&answer)?);
    }
    let explanation: Explanation = client.read(&answer)?;
    output::print(lines(args.order_id, &explanation).trim_end())
}

/// Where it is and what it waits for, then a cause a line.
fn lines(order_id: OrderId, explanation: &Explanation) -> String {
    let Explanation { status, since, waits_for, causes, allowed } = explanation;
    let mut text =
        format!("{order_id}  {}  since {}", clean::line(status), since.format("%Y-%m-%d %H:%M:%S%.3f UTC"));
    if let Some(waits_for) = waits_for {
        let _ = write!(text, "  waits for {}", clean::line(waits_for));
    }
    text.push('\n');
    for cause in causes {
        let _ = writeln!(text, "- {}", clean::line(&cause.text));
    }
    if !allowed.is_empty() {
        let _ = writeln!(text, "{}", may_follow(allowed));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_a_line_and_a_newer_service_is_understood() {
        let explanation: Explanation = serde_json::from_value(serde_json::json!({
            "status": "BURNT", "since": "2026-01-02T03:04:05.678Z", "waits_for": "REPAIR", "mood": "bad",
            "causes": [{"code": "new", "text": "the oven\nis cold\u{202e}."}, {"code": "x", "text": "no gas."}],
            "allowed": ["CANCELLED", "READY"],
        }))
        .expect("it is read");
        let id: OrderId = "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id");
        let text = lines(id, &explanation);
        let shown: Vec<&str> = text.lines().collect();
        assert_eq!(
            shown[0],
            "ORD-01ARZ3NDEK0000000000000000  BURNT  since 2026-01-02 03:04:05.678 UTC  waits for REPAIR"
        );
        assert!(shown[1].starts_with("- the oven") && !shown[1].contains('\u{202e}'), "{text}");
        assert_eq!(shown[2..], ["- no gas.", "may be reported: CANCELLED, READY"]);
    }
}
