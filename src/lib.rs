#![doc = include_str!("../ARCHITECTURE.md")]

pub mod app;
pub mod broker;
pub mod cli;
pub mod client;
pub mod http;
pub mod keys;
pub mod ops;
pub mod order;
pub mod pipeline;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod tracker;
