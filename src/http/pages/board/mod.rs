//! `GET /`: the kitchen's board, and the forms on it: `POST /demo-orders` and `POST /report`.

mod attention;
mod buttons;
mod report;
mod sheet;
mod view;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use futures::future::{join_all, try_join_all};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

pub(in crate::http) use report::report;

use super::{
    super::AppState,
    Frame, Problem, Refresh, assets, error_page,
    form::{from_here, with_origin},
    page,
    said::cancelled,
    typed,
};
use crate::{
    keys::{Auth, Caller},
    ops::{diagnosis::Explanation, overview::Reading},
    order::{
        Action, Order, OrderId, Reason, Rules, Sight, Status, Timestamp, TrackedOrder,
        dead_letter::DeadLetterBacklog, sample::plausible_order,
    },
    telemetry::health::PartsHealth,
    tracker::{CurrentOrder, Page, StoreError},
};

/// Orders in the table.
const ROWS: usize = 30;
/// How long the board waits for why an order stands where it stands.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(1);
/// Most characters of a search that are kept; an id has 30.
const LONGEST_SEARCH: usize = 64;
/// What stands in an address only as a code.
const OUTSIDE_A_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What the address says; what it says wrongly is as if it said nothing.
#[derive(Default, Deserialize)]
pub(in crate::http) struct BoardQuery {
    status: Option<String>,
    id: Option<String>,
    before: Option<String>,
    /// An event that somebody has just reported: `ORD-…:7`.
    did: Option<String>,
    /// One that somebody has just reported in vain, since it was there.
    already: Option<String>,
}

/// Which orders a board shows.
struct Choice {
    status: Option<Status>,
    before: Option<OrderId>,
    /// What was searched for, as it was typed.
    search: String,
    /// What became of the last button that was pressed.
    answer: Option<Answer>,
}

/// What became of a report: the event that it is, or that was there before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    order_id: OrderId,
    seq: u32,
    /// It was there before.
    already: bool,
}

impl Answer {
    fn read(text: &str, already: bool) -> Option<Self> {
        let (order_id, seq) = text.split_once(':')?;
        Some(Self { order_id: order_id.parse().ok()?, seq: seq.parse().ok()?, already })
    }

    fn parameter(self) -> String {
        let name = if self.already { "already" } else { "did" };
        format!("{name}={}:{}", self.order_id, self.seq)
    }
}

impl From<BoardQuery> for Choice {
    fn from(query: BoardQuery) -> Self {
        let status = query.status.and_then(|status| status.parse().ok());
        let before = query.before.and_then(|before| before.parse().ok());
        let search = query.id.unwrap_or_default().trim().chars().take(LONGEST_SEARCH).collect();
        let did = query.did.and_then(|text| Answer::read(&text, false));
        let answer = did.or_else(|| query.already.and_then(|text| Answer::read(&text, true)));
        Self { status, before, search, answer }
    }
}

impl Choice {
    fn order_id(&self) -> Option<OrderId> {
        typed(&self.search)
    }

    /// The address of the same board with this status.
    fn with_status(&self, status: Option<Status>) -> String {
        Self::address(status, None, &self.search)
    }

    /// The address of the same board with this order open.
    fn with_order(&self, order_id: OrderId) -> String {
        Self::address(self.status, self.before, &order_id.to_string())
    }

    /// The address of the orders before this one.
    fn older(&self, before: OrderId) -> String {
        Self::address(self.status, Some(before), &self.search)
    }

    fn address(status: Option<Status>, before: Option<OrderId>, search: &str) -> String {
        let mut parts = Vec::new();
        parts.extend(status.map(|status| format!("status={status}")));
        parts.extend(before.map(|before| format!("before={before}")));
        if !search.is_empty() {
            parts.push(format!("id={}", utf8_percent_encode(search, OUTSIDE_A_QUERY)));
        }
        if parts.is_empty() { "/".to_owned() } else { format!("/?{}", parts.join("&")) }
    }
}

/// What a search brought.
enum Found {
    /// Nothing was searched for.
    Unasked,
    /// A whole number was: the order, if there is such an order.
    Order(Option<TrackedOrder>),
    /// Words were: how many orders have them, and the newest.
    Orders(usize, Vec<TrackedOrder>),
}

/// Everything that a board shows.
struct Board {
    /// Whether orders may be placed that nobody wants.
    demo: bool,
    /// Who looks.
    caller: Caller,
    /// Whether he had to say who he is.
    signed_in: bool,
    /// Whether others than this machine's see it, and nobody asks who they are.
    exposed: bool,
    choice: Choice,
    now: Timestamp,
    reading: Arc<Reading>,
    orders: Result<Vec<Order>, StoreError>,
    /// Why those of them that are cancelled are, as far as that could be read.
    reasons: HashMap<OrderId, Reason>,
    rules: Rules,
    /// Where the next page of orders begins.
    older: Option<OrderId>,
    found: Result<Found, StoreError>,
    /// Why the one order that is shown stands where it stands, if that could be read.
    explanation: Option<Explanation>,
    parts: PartsHealth,
    /// `None` if nobody could read them yet.
    dead_letter_backlog: Option<DeadLetterBacklog>,
}

impl Board {
    /// What of people is shown.
    fn sight(&self) -> Sight {
        self.caller.sight()
    }

    /// Whether he who looks runs the service: what is wrong with it is for him.
    fn operates(&self) -> bool {
        self.caller.may(Action::Operate)
    }

    /// The one order that is shown whole.
    fn sheet(&self) -> Option<&TrackedOrder> {
        match &self.found {
            Ok(Found::Order(Some(tracked))) => Some(tracked),
            Ok(Found::Orders(1, orders)) => orders.first(),
            Ok(Found::Unasked | Found::Order(None) | Found::Orders(..)) | Err(_) => None,
        }
    }
}

/// The board.
pub(in crate::http) async fn board(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<BoardQuery>, QueryRejection>,
) -> Response {
    let choice = Choice::from(query.map(|Query(query)| query).unwrap_or_default());
    let board = read(&state, caller, choice).await;
    let away = board.reading.away.is_some();
    let status = if away { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let title = view::title(&board);
    let icon = assets::path("board.svg");
    let frame = Frame {
        title: &title,
        icon,
        style: "board.css",
        script: Some("board.js"),
        // A page that loads itself anew would forget what was chosen in a form.
        refresh: if board.sheet().is_some() { Refresh::Never } else { Refresh::WithoutScript },
        preview: None,
    };
    with_origin(page(status, &frame, &view::board(&board)))
}

async fn read(state: &AppState, caller: Caller, choice: Choice) -> Board {
    let reading = state.operations.overview.read().await;
    let (mut orders, mut found) = (Ok(Vec::new()), Ok((Found::Unasked, None)));
    // With the database away one wait is enough.
    if reading.away.is_none() {
        (orders, found) = tokio::join!(listed(state, &choice), searched(state, &choice, caller.sight()));
    }
    let (found, read_at) = found.map_or_else(|error| (Err(error), None), |(found, at)| (Ok(found), at));
    let older = orders.as_mut().ok().and_then(cut);
    let parts = state.operations.parts.read();
    let explained = async { if caller.may(Action::Explain) { explained(state, &found).await } else { None } };
    let (explanation, reasons) = tokio::join!(explained, reasons(state, &orders, &found));
    Board {
        rules: state.settings.rules,
        reasons,
        demo: state.settings.demo && caller.may(Action::PlaceOrders),
        signed_in: matches!(state.settings.auth, Auth::Keys(_)),
        exposed: state.settings.exposed,
        caller,
        older,
        explanation,
        parts,
        dead_letter_backlog: state.operations.dead_letter_backlog.borrow().clone(),
        now: read_at.unwrap_or_else(|| state.settings.clock.now()),
        choice,
        reading,
        orders,
        found,
    }
}

/// The orders of the table, and one more if there is one.
async fn listed(state: &AppState, choice: &Choice) -> Result<Vec<Order>, StoreError> {
    let page = Page { status: choice.status, before: choice.before, limit: ROWS + 1 };
    Ok(state.tracker.list(page).await?.orders.clone())
}

/// Why orders in the table were cancelled: all of them are read in one query. Not to know takes no board down.
async fn reasons(
    state: &AppState,
    orders: &Result<Vec<Order>, StoreError>,
    found: &Result<Found, StoreError>,
) -> HashMap<OrderId, Reason> {
    let why = |tracked: &TrackedOrder| Some((tracked.order.order_id, cancelled(&tracked.events)?.reason?));
    if let Ok(Found::Orders(_, found)) = found {
        return found.iter().filter_map(why).collect();
    }
    let cancelled = orders.iter().flatten().filter(|order| order.status == Status::Cancelled);
    let read = join_all(cancelled.map(|order| state.tracker.find(order.order_id))).await;
    read.iter().flatten().filter_map(|found| why(&Option::as_ref(found)?.tracked)).collect()
}

/// Why the one order that was found stands where it stands; not to know takes no board down.
async fn explained(state: &AppState, found: &Result<Found, StoreError>) -> Option<Explanation> {
    let order_id = match found {
        Ok(Found::Order(Some(tracked))) => tracked.order.order_id,
        Ok(Found::Orders(1, orders)) => orders.first()?.order.order_id,
        Ok(Found::Unasked | Found::Order(None) | Found::Orders(..)) | Err(_) => return None,
    };
    let explained = state.operations.explain(order_id);
    tokio::time::timeout(EXPLAINED_WITHIN, explained).await.ok()?.ok().flatten()
}

/// What was searched for, and when it was read by the database's clock: what may still be taken back goes by that.
async fn searched(
    state: &AppState,
    choice: &Choice,
    sight: Sight,
) -> Result<(Found, Option<Timestamp>), StoreError> {
    if choice.search.is_empty() {
        return Ok((Found::Unasked, None));
    }
    if let Some(order_id) = choice.order_id() {
        let found = Option::clone(&*state.tracker.find(order_id).await?);
        let read_at = found.as_ref().map(|found| found.now);
        return Ok((Found::Order(found.map(|found| found.tracked)), read_at));
    }
    let found = state.tracker.search(&choice.search, choice.status, sight, ROWS).await?;
    // As they are now; they share one query.
    let orders = try_join_all(found.orders.into_iter().map(|order_id| state.tracker.find(order_id))).await?;
    let orders: Vec<&CurrentOrder> = orders.iter().filter_map(|order| Option::as_ref(order)).collect();
    let read_at = orders.first().map(|order| order.now);
    let orders = orders.into_iter().map(|order| order.tracked.clone()).collect();
    Ok((Found::Orders(found.count, orders), read_at))
}

/// Leaves as many as the table has rows; answers where the next page begins, if more were there.
fn cut(orders: &mut Vec<Order>) -> Option<OrderId> {
    let more = orders.len() > ROWS;
    orders.truncate(ROWS);
    orders.last().filter(|_| more).map(|order| order.order_id)
}

/// Places an order that a person might have placed, and shows it on the board.
pub(in crate::http) async fn place_demo(
    State(state): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    if !state.settings.demo {
        let problem = Problem::forbidden("demo orders are for the embedded database");
        let words = "This service keeps real orders, and somebody might cook one that nobody wants.";
        return error_page(&problem, "No demo orders here", words, Refresh::Never);
    }
    if !from_here(&headers) {
        let problem = Problem::forbidden("this form works only from the board itself");
        return error_page(&problem, "Not from here", "Please use the button on the board.", Refresh::Never);
    }
    let mut meta = json!({"source": "board"});
    if let Some(name) = caller.name() {
        meta["by"] = json!(name);
    }
    match state.tracker.place(plausible_order(), None, Some(meta)).await {
        Ok(accepted) => Redirect::to(&format!("/?id={}", accepted.order_id)).into_response(),
        Err(error) => error_page(
            &error.into(),
            "The order was not placed",
            "The service can't take orders right now. Go back and try again in a moment.",
            Refresh::Never,
        ),
    }
}
