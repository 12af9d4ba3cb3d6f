//! Takes food orders, walks each one to its delivery, and can prove that none was lost.
//!
//! The map, from the inside out; `ARCHITECTURE.md` tells the story.
//!
//! - [`order`]: what an order is and may become. Pure.
//! - [`clock`], [`alarm`], [`metrics`]: time, wake-ups, and what is measured.
//! - [`health`], [`dead letters`]: what is known of parts and of dead letters.
//! - [`telemetry`]: which requests a line of the log is about.
//! - [`store`]: remembers. SQL lives here.
//! - [`broker`]: carries messages. Kafka lives here.
//! - [`notifier`]: who follows which order, and what wakes them.
//! - [`overview`]: what waits, read once for all who ask.
//! - [`queue`]: where orders are handed in.
//! - [`loader`]: where questions about orders wait for a shared answer.
//! - [`search`]: finds orders by what people remember of them.
//! - [`pipeline`]: the loops.
//! - [`http`]: what clients see.
//! - [`client`]: one connection to a running service.
//! - [`sample`], [`load`]: made-up orders, and clients that send them as fast as is asked.
//! - [`verify`]: checks every promise against database and topic.
//! - [`config`], [`app`], [`cli`]: settings, wiring, and what people type.

pub mod app;
pub mod broker;
pub mod cli;
pub mod client;
pub mod http;
pub mod load;
pub mod ops;
pub mod order;
pub mod pipeline;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod tracker;
