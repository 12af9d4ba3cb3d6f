//! `GET /events`: everything that happened to all orders, page by page or as server-sent events.

use std::{convert::Infallible, str::FromStr, sync::Arc, time::Duration, vec};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, header},
    response::{
        IntoResponse as _, Response,
        sse::{self, Sse},
    },
};
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{AppState, Problem, RequestLog, middleware::observe::HeldBackFor},
    orders::given,
    parameters::Parameters,
    stream::{Client, HEARTBEAT, LIFETIME, answer, first_frame, last_event_id, until_revoked},
};
use crate::{
    keys::Caller,
    order::{Cursor, EventKind, FeedEvent, FieldCode, FieldError, schema},
    tracker::{FeedError, Follower, Settled},
};

/// The route, whose answers may be held back longer than others take.
pub(in crate::http) const ROUTE: &str = "/events";
/// Events of an answer that asks for no number.
pub(in crate::http) const DEFAULT_LIMIT: usize = 100;
/// Most events of an answer.
pub(in crate::http) const MAX_LIMIT: usize = 1_000;
/// How long an answer may be held back.
pub(in crate::http) const MAX_WAIT: Duration = Duration::from_secs(20);
/// Most events that a stream reads at once.
const BATCH: usize = 256;
/// Pause after a read that failed.
const READ_AGAIN: Duration = Duration::from_millis(500);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct EventsQuery {
    /// Only what comes behind this cursor; `now` means from here on. Without it: from the beginning. `Last-Event-ID` goes before it.
    #[param(inline, required = false, value_type = schema::After)]
    after: Option<String>,
    /// Most events in the answer; a stream has no such number.
    #[param(required = false, value_type = u64, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// Only events of this kind.
    #[param(inline, required = false, value_type = EventKind)]
    event: Option<String>,
    /// Holds the answer back until there is something, for so long at most: up to 20 s, written `5s` or `500ms`. A stream waits anyway.
    #[param(inline, required = false, value_type = schema::Wait)]
    wait: Option<String>,
}

/// A page of the feed.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct EventPage {
    /// Oldest first.
    events: Vec<FeedEvent>,
    /// Where the next page begins: the last cursor that was looked at, be its event in here or not.
    next: Cursor,
    /// Whether there was nothing more. If not, ask for the next page at once.
    caught_up: bool,
}

/// Reads what happened
///
/// Everything that happened to all orders, by one cursor: whoever asks with the `next` of the page before misses nothing
/// and is told nothing twice. An event appears once everything before it is there, which an open transaction in the database
/// can delay. With `event` one answer looks through 10,000 events at most, so it may hold none and still not be caught up.
///
/// With `Accept: text/event-stream` it is followed for 15 minutes at most: an `event` for each, with its cursor as `id`, and every
/// 15 s a `beat` whose `id` is the cursor so far. Connect again with the last `id`.
#[utoipa::path(
    get, path = "/events", operation_id = "read_feed", tag = "orders",
    params(
        ("Last-Event-ID" = inline(schema::Seen), Header, description = "The last `id` that was seen; browsers send it"),
        EventsQuery,
    ),
    responses(
        (status = 200, description = "What comes behind the cursor",
            content((EventPage = "application/json"), ("text/event-stream"))),
        (status = 400, description = "A parameter is not valid, or no event has this cursor yet"),
        (status = 429, description = "This client's address has half of the places for streams already"),
    )
)]
pub(in crate::http) async fn read(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    client: Client,
    Parameters(query): Parameters<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = FeedRequest::new(&query, &headers)?;
    if is_stream_wanted(&headers) {
        return follow(&state, (client, caller), &request).await;
    }
    let until = Instant::now() + request.wait;
    let first = request.first_page(&state, request.limit).await?;
    if !first.events.is_empty() || request.wait.is_zero() {
        return Ok(page(first));
    }
    let begun = Instant::now();
    let held_back = until_revoked(&caller, request.held_back(&state, &client, first, until)).await;
    let mut response = page(held_back.ok_or_else(Problem::key_not_valid)??);
    response.extensions_mut().insert(HeldBackFor(begun.elapsed()));
    Ok(response)
}

fn page(Settled { events, next, caught_up }: Settled) -> Response {
    Json(EventPage { events, next, caught_up }).into_response()
}

/// Whether a client would rather have a stream than JSON, RFC 9110 section 12.5.1.
fn is_stream_wanted(headers: &HeaderMap) -> bool {
    let (mut stream, mut json) = (0.0, 0.0);
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|list| list.to_str().ok());
    for range in lists.flat_map(|list| list.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('='));
        let weight: f32 = weight.map_or(Some(1.0), |text| text.trim().parse().ok()).unwrap_or_default();
        match kind.as_str() {
            "text/event-stream" => stream = weight,
            "application/json" => json = weight,
            _ => {}
        }
    }
    stream > json
}

/// Where to begin.
#[derive(Clone, Copy)]
enum After {
    Now,
    Cursor(Cursor),
}

impl FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Now);
        }
        text.parse().map(Self::Cursor).map_err(|_| "must be a cursor of the feed, or now".to_owned())
    }
}

/// What was asked for.
struct FeedRequest {
    after: After,
    /// What told where to begin.
    told_by: &'static str,
    limit: usize,
    event: Option<EventKind>,
    wait: Duration,
}

impl FeedRequest {
    /// Reads all fields, so that whoever sent several wrong ones hears of all.
    fn new(query: &EventsQuery, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut errors = Errors::default();
        let seen = errors.read(LAST_EVENT_ID, FieldCode::Cursor, last_event_id(headers), |text| {
            text.parse().map(After::Cursor).map_err(|_| "must be a cursor of the feed, given once".to_owned())
        });
        let after = errors.read(AFTER, FieldCode::Cursor, query.after.as_deref(), str::parse);
        let limit = errors.read("limit", FieldCode::Range, given(query.limit.as_ref()), limit);
        let event = errors.read("event", FieldCode::Choice, given(query.event.as_ref()), event);
        let wait = errors.read("wait", FieldCode::Range, given(query.wait.as_ref()), wait);
        if !errors.0.is_empty() {
            return Err(Problem::invalid(errors.0));
        }
        Ok(Self {
            after: seen.or(after).unwrap_or(After::Cursor(Cursor::START)),
            told_by: if seen.is_some() { LAST_EVENT_ID } else { AFTER },
            limit: limit.unwrap_or(DEFAULT_LIMIT),
            event,
            wait: wait.unwrap_or_default(),
        })
    }

    /// What is there already.
    async fn first_page(&self, state: &AppState, limit: usize) -> Result<Settled, Problem> {
        let feed = state.tracker.feed();
        let page = match self.after {
            After::Cursor(after) => feed.page(after, self.event, limit).await,
            After::Now => feed.now().await.map(|next| Settled { events: Vec::new(), next, caught_up: true }),
        };
        page.map_err(|error| refused(error, self.told_by))
    }

    /// Waits for something behind an empty page.
    async fn held_back(
        &self,
        state: &AppState,
        client: &Client,
        first: Settled,
        until: Instant,
    ) -> Result<Settled, Problem> {
        let mut follower = state.tracker.feed().follow(first.next, self.event, client.holder)?;
        let (stop, _held_back) = (follower.stop(), client.held_back());
        let news = async {
            loop {
                // It hands out none where there are many of other kinds.
                let events = follower.news(self.limit).await?;
                if !events.is_empty() {
                    return Ok(events);
                }
            }
        };
        let news = stop.run_until_cancelled(timeout_at(until, news)).await;
        let events = match news {
            Some(Ok(events)) => events.map_err(FeedError::Store).map_err(|error| refused(error, AFTER))?,
            // The time is over, or the service stops.
            Some(Err(_)) | None => Vec::new(),
        };
        let caught_up = follower.caught_up().unwrap_or(first.caught_up);
        Ok(Settled { events, next: follower.cursor(), caught_up })
    }
}

const AFTER: &str = "after";
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// What is wrong with fields.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    /// The value of a field that was given and is right.
    fn read<T>(
        &mut self,
        field: &str,
        code: FieldCode,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let parsed = parse(text?);
        parsed.map_err(|message| self.0.push(FieldError::new(field, code, message))).ok()
    }
}

fn limit(text: &str) -> Result<usize, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse().ok().filter(|limit| digits && (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| format!("must be a whole number from 1 to {MAX_LIMIT}"))
}

fn event(text: &str) -> Result<EventKind, String> {
    text.parse().map_err(|_| format!("must be one of {}", EventKind::ALL.map(EventKind::as_str).join(", ")))
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).ok().filter(|wait| *wait <= MAX_WAIT);
    wait.ok_or_else(|| format!("must be a time up to {}s, such as 5s or 500ms", MAX_WAIT.as_secs()))
}

fn refused(error: FeedError, told_by: &str) -> Problem {
    match error {
        FeedError::Ahead(last) => {
            let message = format!("must be a cursor that was given out: the last one is {last}");
            Problem::invalid_value(told_by, FieldCode::Cursor, message)
        }
        FeedError::Unsettled => Problem::unavailable(format!("{error}; try again shortly")),
        FeedError::Store(error) => error.into(),
    }
}

async fn follow(
    state: &AppState,
    (client, caller): (Client, Caller),
    request: &FeedRequest,
) -> Result<Response, Problem> {
    let Settled { events, next, .. } = request.first_page(state, BATCH).await?;
    let begun_at = match request.after {
        After::Cursor(after) => after,
        After::Now => next,
    };
    let now = Instant::now();
    let follower = state.tracker.feed().follow(next, request.event, client.holder)?;
    let reader = Reader {
        stop: follower.stop(),
        follower,
        begun_at: Some(begun_at),
        ready: events.into_iter(),
        beat: now + HEARTBEAT,
        until: now + LIFETIME,
        log: Arc::clone(&state.observers.log),
    };
    let frames = stream::unfold((reader, caller), async |(mut reader, caller)| {
        let frame = until_revoked(&caller, reader.next()).await??;
        Some((Ok::<_, Infallible>(frame), (reader, caller)))
    });
    Ok(answer(Sse::new(frames), client))
}

/// One client's way through everything.
struct Reader {
    follower: Follower,
    /// The cursor that it came with, until it was told how the stream begins.
    begun_at: Option<Cursor>,
    /// Read and not yet sent.
    ready: vec::IntoIter<FeedEvent>,
    /// When the next beat is due.
    beat: Instant,
    until: Instant,
    stop: CancellationToken,
    log: Arc<RequestLog>,
}

impl Reader {
    /// The next frame; `None` at the end of the stream.
    async fn next(&mut self) -> Option<sse::Event> {
        // From its first moment on a client has a cursor to come back with, even one that asked for `now`.
        if let Some(cursor) = self.begun_at.take() {
            return Some(first_frame().id(cursor.to_string()));
        }
        loop {
            let now = Instant::now();
            if let Some(event) = self.ready.next() {
                self.beat = now + HEARTBEAT;
                return Some(frame(&event));
            }
            if now >= self.until {
                return None;
            }
            if now >= self.beat {
                self.beat = now + HEARTBEAT;
                return Some(beat(self.follower.cursor()));
            }
            let news = timeout_at(self.beat.min(self.until), self.follower.news(BATCH));
            match self.stop.run_until_cancelled(news).await? {
                Ok(Ok(events)) => self.ready = events.into_iter(),
                // Its client would be refused where it asked again.
                Ok(Err(error)) if error.is_transient() => {
                    self.stop.run_until_cancelled(sleep(READ_AGAIN)).await?;
                }
                Ok(Err(error)) => {
                    self.log.fail(&error.to_string(), "a follower can't read the feed");
                    return None;
                }
                Err(_) => {}
            }
        }
    }
}

fn frame(event: &FeedEvent) -> sse::Event {
    let frame = sse::Event::default().id(event.cursor.to_string()).event("event");
    frame.json_data(event).expect("names, moments and numbers serialise")
}

/// Everything up to this cursor was told, or is of a kind that was not asked for.
fn beat(cursor: Cursor) -> sse::Event {
    sse::Event::default().id(cursor.to_string()).event("beat").data("{}")
}
