//! What is promised, in numbers: each stands here once, and code, alerts and documents are held to it.
//!
//! How long the parts of one request may take is the ladder in `time/deadlines.rs`.

use std::time::Duration;

/// An overdue step is made within so long of a replica being back; a step that is later is overdue.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(2);

/// An order is on the topic within so long while the broker is there.
pub const PUBLISHED_WITHIN: Duration = Duration::from_secs(10);

/// Who follows an order sees a step within so long of its commit.
pub const LIVE_WITHIN: Duration = Duration::from_millis(300);

/// An idempotency key is honoured for so long, at least.
pub const IDEMPOTENCY_KEY_LIFETIME: Duration = Duration::from_hours(24);

/// So many orders may wait for a writer; further ones are answered "busy" at once.
pub const PLACE_QUEUE: usize = 4_096;

/// So many senders of reports may wait for the writer; further ones are answered "busy" at once.
pub const REPORT_QUEUE: usize = 4_096;

/// So many orders may wait between writer and relay; further ones go by way of the outbox.
pub const RELAY_QUEUE: usize = 4_096;

/// So many orders may wait for the broker's acknowledgement.
pub const IN_FLIGHT: usize = 10_000;

/// Longest head of a request, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Longest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

/// Longest body of a batch of reports, in bytes.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Most reports in a batch.
pub const MAX_BATCH: usize = 100;

/// So many batches of reports may be under way; further ones are answered "busy" at once.
pub const BATCHES_AT_ONCE: usize = 16;

/// So many batches may be read at once, which is what their memory comes to; further ones are answered "busy" at once.
pub const BATCHES_READ_AT_ONCE: usize = 128;
