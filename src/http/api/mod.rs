//! What programs ask: orders, their events, reports, the feed of all events, how the service is, and the document that says all this.

pub(in crate::http) mod body;
pub(in crate::http) mod events;
pub(in crate::http) mod explain;
pub(in crate::http) mod feed;
pub(in crate::http) mod health;
mod included;
pub(in crate::http) mod openapi;
mod openapi_keys;
pub(in crate::http) mod orders;
mod parameters;
pub(in crate::http) mod report_batch;
pub(in crate::http) mod reports;
mod stream;
mod tags;
