//! The ladder of deadlines: whoever waits for another has more patience than that one may take, so that what failed says
//! why before its caller gives up. Pauses that nobody else waits for stay where they are used.

use std::time::Duration;

use crate::order::promises::OVERDUE_AFTER;

/// How long a session of the database may take to begin; as long as a call waits for one.
pub const SESSION: Duration = Duration::from_millis(1_500);
/// How long the database's server works at one statement.
pub const STATEMENT: Duration = Duration::from_millis(1_800);
/// How long a call may take before its connections are given up: nothing else notices a server that has gone silent.
pub const CALL: Duration = Duration::from_millis(1_900);
/// How long any verb of a store may take; no driver setting covers a database that just goes silent.
pub const GUARD: Duration = Duration::from_secs(2);
/// How long a batch of new orders is tried again before its callers are told that the database is away.
pub const RETRY: Duration = Duration::from_millis(1_500);
/// How long an order may wait for its commit, and a question for its answer, all that is before it included.
pub const QUEUE: Duration = Duration::from_secs(2);
/// How long a body may take to arrive.
pub const BODY: Duration = Duration::from_secs(5);
/// Longest time between a request's head and its answer.
pub const REQUEST: Duration = Duration::from_secs(8);
/// How long a client of ours waits for a whole answer, and for a connection.
pub const CLIENT: Duration = Duration::from_secs(10);

/// How often a replica says that it lives; that keeps its outbox rows its own.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Without a sign of life for so long others may have taken us for gone.
pub const SILENT: Duration = Duration::from_secs(2);
/// How long a replica that gives no sign of life keeps its outbox rows.
pub const CLAIM: Duration = Duration::from_secs(3);
/// How old an own outbox row must be to count as lost: older than any write may still be under way.
pub const LOST: Duration = Duration::from_secs(10);

/// How long one try may take to put an event on its topic.
pub const EVENT_TRY: Duration = Duration::from_secs(2);
/// How long the place of the one who writes events stays its own without a sign of life.
pub const WRITER_LEASE: Duration = Duration::from_secs(3);
/// How often it says that it lives.
pub const WRITER_RENEWS: Duration = Duration::from_millis(500);

/// How often an idle stream of events shows that it lives.
pub const STREAM_BEAT: Duration = Duration::from_secs(15);
/// How long a client believes in a stream that is silent: two of its beats and a bit.
pub const STREAM_SILENCE: Duration = Duration::from_secs(35);

/// Whether the first is shorter than the second.
const fn shorter(one: Duration, other: Duration) -> bool {
    one.as_millis() < other.as_millis()
}

const _: () =
    assert!(shorter(SESSION, CALL), "a session that can't begin is told before its call is given up");
const _: () =
    assert!(shorter(STATEMENT, CALL), "the server cancels a statement before its connection is given up");
const _: () =
    assert!(shorter(CALL, GUARD), "the adapter says why before the guard says only that it took too long");
const _: () = assert!(!shorter(QUEUE, GUARD), "who waits in a queue hears of one call that failed");
const _: () = assert!(shorter(RETRY, QUEUE), "who waits for a commit hears why it was given up");
const _: () = assert!(shorter(QUEUE, REQUEST), "a request outlives its place in a queue");
const _: () = assert!(
    BODY.as_millis() + QUEUE.as_millis() < REQUEST.as_millis(),
    "a body that arrives at the last moment can still be stored"
);
const _: () = assert!(shorter(REQUEST, CLIENT), "the service answers before its client hangs up");
const _: () = assert!(shorter(SIGN_OF_LIFE, SILENT), "one sign of life may be late");
const _: () = assert!(shorter(SILENT, CLAIM), "who is silent stops before others take its rows");
const _: () = assert!(shorter(EVENT_TRY, WRITER_LEASE), "a message is given up before its writer's place is");
const _: () = assert!(
    WRITER_RENEWS.as_millis() + GUARD.as_millis() < WRITER_LEASE.as_millis(),
    "a sign of life that takes as long as it may leaves time for another"
);
const _: () = assert!(shorter(GUARD, LOST), "no write is still under way when its rows count as lost");
const _: () = assert!(
    2 * STREAM_BEAT.as_millis() < STREAM_SILENCE.as_millis(),
    "one beat may be lost before a stream counts as dead"
);
const _: () = assert!(!shorter(OVERDUE_AFTER, SIGN_OF_LIFE), "a loop looks again before a step is overdue");
