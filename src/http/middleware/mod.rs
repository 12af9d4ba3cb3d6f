//! The layers around the routes: who asks, other sites' pages, request id, metrics and log, compression.

pub(in crate::http) mod access;
pub(in crate::http) mod cors;
pub(in crate::http) mod gzip;
pub(in crate::http) mod observe;
pub(in crate::http) mod request_log;
