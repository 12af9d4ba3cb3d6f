//! Takes food orders, walks each one to its delivery, and can prove that none was lost.
//!
//! The rooms, from the inside out; each names only those before it. `ARCHITECTURE.md` tells the story.
//!
//! - [`order`]: what an order is and may become. Pure.
//! - [`time`]: clock, alarm, pauses between tries.
//! - [`telemetry`]: metrics, health of the parts, and which requests a line of the log is about.
//! - [`store`]: remembers. SQL lives here.
//! - [`broker`]: carries messages. Kafka lives here.
//! - [`tracker`]: the one door to orders, and what follows a commit that moved some.
//! - [`ops`]: what operators ask: what waits, what is wrong, whether every promise was kept.
//! - [`pipeline`]: the loops.
//! - [`http`]: what clients see.
//! - [`client`]: one connection to a running service.
//! - [`load`]: clients that send orders as fast as is asked.
//! - [`app`]: settings and wiring.
//! - [`cli`]: what people type.

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
