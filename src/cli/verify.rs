//! `verify`: the proof, for people and for programs.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::{output, probe};
use crate::{
    app::{
        self,
        config::{KafkaConfig, StoreConfig},
    },
    ops::verify::{Verification, VerifyError, verify},
};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) store: StoreConfig,
    #[command(flatten)]
    kafka: KafkaConfig,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    if let Some(brokers) = &args.kafka.brokers {
        probe::broker(brokers).await?;
    }
    let store = app::open_for_audit(&args.store).await.context("can't read the database")?;
    let kafka = args.kafka.brokers.clone().map(|brokers| app::open_kafka(&args.kafka, brokers));
    let (topic, event_topic) = (&args.kafka.topic, args.kafka.events_topic().map(String::as_str));
    let report = verify(&*store, kafka, topic, event_topic).await.map_err(|error| match error {
        VerifyError::Broker(_) => {
            let brokers = args.kafka.brokers.as_deref().unwrap_or_default();
            anyhow!("the broker at {brokers} (KAFKA_BROKERS): {error}")
        }
        error => error.into(),
    })?;
    let told = if args.json { output::print_json(&report) } else { output::print(table(&report).trim_end()) };
    // Whoever reads only the beginning still gets the exit code.
    match report.violations() {
        0 => told,
        count => bail!("{count} violations"),
    }
}

fn table(report: &Verification) -> String {
    let wide = report.rules.iter().map(|rule| rule.rule.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name:<wide$}  {value}");
    };
    line("orders", &report.orders);
    line("events", &report.events);
    line("orders in progress", &report.in_progress);
    line("orders unsent", &report.unsent);
    match &report.topic {
        None => line("topic", &"not read: KAFKA_BROKERS says where (the embedded broker prints its address)"),
        Some(topic) => {
            line("messages on the topic", &topic.messages);
            line("messages that are duplicates", &topic.duplicates);
            line("messages about no order here", &topic.others);
            if topic.truncated {
                line(
                    "every order that was sent is on the topic",
                    &"can't be told: retention has deleted messages",
                );
            }
        }
    }
    match &report.event_topic {
        None if report.topic.is_none() => {}
        None => line("event topic", &"not read: KAFKA_EVENTS_TOPIC is off"),
        Some(topic) => {
            line("events written up to", &topic.written);
            line("messages on the event topic", &topic.messages);
            line("messages that are events again", &topic.duplicates);
            line("messages about events of no order here", &topic.others);
            if topic.truncated {
                line(
                    "the event topic agrees with the table",
                    &"can't be told: retention has deleted messages",
                );
            }
        }
    }
    for rule in &report.rules {
        match rule.violations {
            0 => line(&rule.rule, &"ok"),
            count => line(&rule.rule, &format!("BROKEN by {count}: {}", rule.examples.join(", "))),
        }
    }
    text
}
