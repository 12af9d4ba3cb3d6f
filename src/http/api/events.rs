//! `GET /orders/{id}/events`: an order's timeline as server-sent events, so far and as it grows.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{AppState, Problem, RequestLog},
    orders,
    parameters::Parameters,
    stream::{Client, HEARTBEAT, LIFETIME, answer, first_frame, last_event_id, until_revoked},
};
use crate::{
    keys::Caller,
    order::{Event, EventKind, FieldCode, FieldError, OrderId, Shown, Sight, TrackedOrder, schema::Position},
    tracker::Subscriber,
};

/// Greatest position that is understood, far beyond any there is.
const MAX_POSITION: u32 = 999_999_999;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct FollowQuery {
    /// The same for those who can't set a header, which goes before it.
    #[param(required = false, inline, value_type = Position)]
    after: Option<String>,
}

/// Follows an order
///
/// Server-sent events: a `status` for each event of the timeline, so far and as it grows, with its position as `id` and a
/// `TimelineEvent` as `data`; then, once the order is delivered or cancelled, `end`. If that was taken back the stream of
/// who asks again with the last `id` goes on. An idle stream sends a `beat` every 15 s, without `id`. A stream lasts 15 minutes at most; connect again with the last `id`.
#[utoipa::path(
    get, path = "/orders/{id}/events", operation_id = "follow_order", tag = "orders",
    params(
        ("id" = OrderId, Path, description = "The id that the order was given"),
        ("Last-Event-ID" = inline(Position), Header, description = "The last `id` that was seen; browsers send it"),
        FollowQuery,
    ),
    responses(
        (status = 200, description = "What was not seen yet", content(("text/event-stream"))),
        (status = 204, description = "All was seen and no more will come"),
        (status = 400, description = "The position is not valid"),
        (status = 404, description = "No order has this id"),
        (status = 429, description = "This client's address has half of the places for streams already"),
    )
)]
pub(in crate::http) async fn follow(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    client: Client,
    order_id: Result<Path<String>, PathRejection>,
    Parameters(query): Parameters<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stream(&state, (client, caller), (order_id, query, headers), frame).await
}

/// The same for the customer's page, which only has to know that something has happened: without what was said, and notes
/// are for those who work on the order.
pub(in crate::http) async fn follow_positions(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    client: Client,
    order_id: Result<Path<String>, PathRejection>,
    Parameters(query): Parameters<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stream(&state, (client, caller), (order_id, query, headers), position).await
}

/// What is asked: of which order, from where on.
type Asked = (Result<Path<String>, PathRejection>, FollowQuery, HeaderMap);

async fn stream(
    state: &AppState,
    (client, caller): (Client, Caller),
    (order_id, query, headers): Asked,
    frame: fn(&Event, Sight) -> sse::Event,
) -> Result<Response, Problem> {
    let seen = seen(&headers, query.after.as_deref())?;
    let order_id = orders::order_id(order_id)?;
    // First the subscription, then the timeline: a step between the two is told of.
    let subscriber = state.tracker.subscribe(order_id, client.holder);
    let found = state.tracker.find(order_id).await?;
    let TrackedOrder { order, events } = &Option::as_ref(&found).ok_or_else(orders::unknown)?.tracked;
    // Nobody can have seen more than there is.
    let last = events.last().map_or(0, |last| last.seq);
    let seen = seen.min(last);
    if seen == last && order.status.is_final() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let subscriber = subscriber.map_err(Problem::from)?;
    let reader = Reader {
        subscriber,
        frame,
        sight: caller.sight(),
        seen,
        over: false,
        ready: events.iter().filter(|event| event.seq > seen).cloned().collect(),
        until: Instant::now() + LIFETIME,
        told: Told::Nothing,
        log: Arc::clone(&state.observers.log),
    };
    let frames = futures::stream::unfold((reader, caller), async |(mut reader, caller)| {
        let frame = until_revoked(&caller, reader.next()).await??;
        Some((Ok::<_, Infallible>(frame), (reader, caller)))
    });
    // An event, since browsers hide comments from pages, which have to notice a dead connection.
    let beat = sse::Event::default().event("beat").data("{}");
    Ok(answer(Sse::new(frames).keep_alive(KeepAlive::new().interval(HEARTBEAT).event(beat)), client))
}

/// The last position that the client has seen; the header, which a browser sends by itself, goes before the query.
fn seen(headers: &HeaderMap, after: Option<&str>) -> Result<u32, Problem> {
    let mut errors = Vec::new();
    let mut parse = |field: &str, text: Option<&str>| {
        let text = text.filter(|text| !text.is_empty())?;
        let written = |seen: &u32| *seen <= MAX_POSITION && seen.to_string() == text;
        let position = text.parse().ok().filter(written);
        if position.is_none() {
            let message = format!("must be the id of an event, 0 to {MAX_POSITION}");
            errors.push(FieldError::new(field, FieldCode::Range, message));
        }
        position
    };
    let (header, after) = (parse("Last-Event-ID", last_event_id(headers)), parse("after", after));
    if errors.is_empty() { Ok(header.or(after).unwrap_or(0)) } else { Err(Problem::invalid(errors)) }
}

/// What a stream has said beside events.
#[derive(PartialEq, Eq)]
enum Told {
    Nothing,
    Retry,
    End,
}

/// One client's way through a timeline.
struct Reader {
    subscriber: Subscriber,
    /// How an event is sent.
    frame: fn(&Event, Sight) -> sse::Event,
    /// How much of it.
    sight: Sight,
    /// The position of the last event that was sent.
    seen: u32,
    /// That event was the last that there will be.
    over: bool,
    /// Read and not yet sent.
    ready: VecDeque<Event>,
    until: Instant,
    told: Told,
    log: Arc<RequestLog>,
}

impl Reader {
    /// The next frame; `None` at the end of the stream.
    async fn next(&mut self) -> Option<sse::Event> {
        if self.told == Told::Nothing {
            self.told = Told::Retry;
            return Some(first_frame());
        }
        if self.ready.is_empty() && !self.over {
            match timeout_at(self.until, self.subscriber.news(self.seen)).await.ok()?? {
                Ok(news) => self.ready = news.into(),
                Err(error) => {
                    self.log.fail(&error.to_string(), "a follower can't read its order");
                    return None;
                }
            }
        }
        if let Some(event) = self.ready.pop_front() {
            self.seen = event.seq;
            self.over = match event.event {
                EventKind::Reached(status) => status.is_final(),
                EventKind::Reverted => false,
                _ => self.over,
            };
            return Some((self.frame)(&event, self.sight));
        }
        if self.told == Told::End {
            return None;
        }
        self.told = Told::End;
        Some(sse::Event::default().event("end").data("{}"))
    }
}

/// An event as in the timeline, with its position.
#[derive(Serialize, ToSchema)]
pub(super) struct TimelineEvent<E = Shown<Event>> {
    #[serde(flatten)]
    event: E,
    /// Its position in the timeline, from 1.
    #[schema(minimum = 1)]
    seq: u32,
}

impl TimelineEvent {
    /// What this sight reaches of it.
    pub(super) fn new(event: Event, sight: Sight) -> Self {
        Self { seq: event.seq, event: Shown::new(event, sight) }
    }
}

fn frame(event: &Event, sight: Sight) -> sse::Event {
    let told = TimelineEvent { seq: event.seq, event: Shown::new(event, sight) };
    let (seq, json) = (event.seq, serde_json::to_string(&told).expect("names, moments and JSON serialise"));
    sse::Event::default().id(seq.to_string()).event("status").data(json)
}

/// That there is an event at this position, and nothing else.
fn position(event: &Event, _: Sight) -> sse::Event {
    sse::Event::default().id(event.seq.to_string()).event("status").data("{}")
}
