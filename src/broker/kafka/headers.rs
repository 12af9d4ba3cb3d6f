//! Headers of dead letters: those of the message, kept as they came, and ours before them.

use chrono::{DateTime, SecondsFormat};
use rdkafka::message::{Header, OwnedHeaders};

use super::reader::{DeadLetter, REQUEUED};
use crate::{
    broker::Record,
    order::{MAX_MESSAGE_BYTES, Reject},
};

/// When the message was written, if it says so.
const TIME: &str = "dlq_time";
/// How many bytes of headers are left out, if they are.
pub(super) const LEFT_OUT: &str = "dlq_headers_left_out";
/// Where a message was requeued from.
const REQUEUED_FROM: &str = "requeued_from";
/// All that we write.
const OURS: [&str; 9] = [
    "dlq_reason",
    "dlq_detail",
    "dlq_topic",
    "dlq_partition",
    "dlq_offset",
    TIME,
    LEFT_OUT,
    REQUEUED,
    REQUEUED_FROM,
];

/// These headers.
pub(super) fn headers(pairs: &[(&str, &str)]) -> OwnedHeaders {
    pairs.iter().fold(OwnedHeaders::new_with_capacity(pairs.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    })
}

/// The message's own; whoever puts ours on his message can't pass for us.
fn theirs(record: &Record) -> impl Iterator<Item = &(String, Option<Vec<u8>>)> {
    record.headers.iter().filter(|(key, _)| !OURS.contains(&key.as_str()))
}

fn with_theirs(ours: OwnedHeaders, record: &Record) -> OwnedHeaders {
    theirs(record).fold(ours, |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() }))
}

/// Why and where from; `whole` says whether the message's own come along, if they are not too large.
pub(super) fn of_dead_letter(record: &Record, reject: &Reject, whole: bool) -> OwnedHeaders {
    let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
    let time = record.written.and_then(DateTime::from_timestamp_millis);
    let time = time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    let size: usize = theirs(record).map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
    let left_out = (size > 0 && (!whole || size > MAX_MESSAGE_BYTES)).then(|| size.to_string());
    let mut pairs = vec![
        ("dlq_reason", reject.reason.as_str()),
        ("dlq_detail", &reject.detail),
        ("dlq_topic", &record.topic),
        ("dlq_partition", &partition),
        ("dlq_offset", &offset),
    ];
    pairs.extend(time.as_deref().map(|time| (TIME, time)));
    pairs.extend(left_out.as_deref().map(|size| (LEFT_OUT, size)));
    let ours = headers(&pairs);
    if left_out.is_some() { ours } else { with_theirs(ours, record) }
}

/// The message's own, and where it was requeued from.
pub(super) fn of_requeued(dead_letter: &DeadLetter) -> OwnedHeaders {
    with_theirs(headers(&[(REQUEUED_FROM, &dead_letter.place())]), &dead_letter.record)
}

/// When the message of a dead letter was written first, in milliseconds since 1970.
pub(super) fn first_written(dead_letter: &DeadLetter) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(dead_letter.header(TIME)?).ok()?;
    Some(time.timestamp_millis())
}
