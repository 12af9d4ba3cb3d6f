//! What an order costs before any I/O: reading, checking, naming, writing. `just bench-pure`.

use divan::{Bencher, black_box};
use order_tracker::order::{
    Event, EventKind, IdMint, Order, OrderDetails, OrderPlaced, OrderRequest, Shown, Sight, Status,
    Timestamp, TrackedOrder, sample,
};

fn main() {
    divan::main();
}

fn moment() -> Timestamp {
    Timestamp::from_timestamp_millis(1_767_323_045_678).expect("in range")
}

fn order() -> Order {
    let at = moment();
    let order_id = IdMint::default().mint(1_767_323_045_678, 7);
    let details = OrderDetails::new("Ada Lovelace", "12 St James's Square", "pizza margherita", "large")
        .expect("valid");
    Order {
        order_id,
        details,
        status: Status::Delivered,
        created_at: at,
        updated_at: at,
        due_at: None,
        expected_at: None,
    }
}

/// The body of a POST becomes an order.
#[divan::bench]
fn read_a_request(bencher: Bencher<'_, '_>) {
    let body = br#"{"customer_name":"Ada Lovelace","address":"12 St James's Square","item":"pizza margherita","size":"large"}"#;
    bencher.bench(|| {
        OrderDetails::try_from(OrderRequest::parse(black_box(body)).expect("an object")).expect("valid")
    });
}

/// The same with every field wrong.
#[divan::bench]
fn refuse_a_request(bencher: Bencher<'_, '_>) {
    let body = br#"{"customer_name": " ", "address": 5, "size": "huge"}"#;
    bencher.bench(|| {
        OrderDetails::try_from(OrderRequest::parse(black_box(body)).expect("an object")).expect_err("wrong")
    });
}

/// An id, and its text.
#[divan::bench]
fn make_an_id(bencher: Bencher<'_, '_>) {
    let mut mint = IdMint::default();
    bencher.bench_local(|| mint.mint(black_box(1_767_323_045_678), black_box(0x1234_5678_9abc)));
}

#[divan::bench]
fn write_an_id(bencher: Bencher<'_, '_>) {
    let id = order().order_id;
    bencher.bench(|| black_box(id).to_string());
}

/// The value of a message.
#[divan::bench]
fn write_a_message(bencher: Bencher<'_, '_>) {
    let order = order();
    let message = OrderPlaced::from(&order);
    bencher.bench(|| serde_json::to_vec(black_box(&message)).expect("JSON"));
}

/// A message becomes an order again.
#[divan::bench]
fn read_a_message(bencher: Bencher<'_, '_>) {
    let order = order();
    let key = order.order_id.to_string();
    let value = serde_json::to_vec(&OrderPlaced::from(&order)).expect("JSON");
    bencher.bench(|| OrderPlaced::parse(Some(black_box(key.as_bytes())), black_box(&value)).expect("valid"));
}

/// An order with its six events, as `GET /orders/{id}` answers it.
#[divan::bench]
fn write_an_order(bencher: Bencher<'_, '_>) {
    let life = std::iter::once(EventKind::Created).chain(Status::plain_life().map(EventKind::Reached));
    let event = |(seq, event)| Event { seq, event, timestamp: moment(), meta: None };
    let tracked = TrackedOrder { order: order(), events: (1..).zip(life).map(event).collect() };
    bencher.bench(|| serde_json::to_vec(&Shown::new(black_box(&tracked), Sight::WHOLE)).expect("JSON"));
}

/// What a made-up customer costs the load generator.
#[divan::bench]
fn make_up_an_order() -> OrderDetails {
    sample::plausible_order()
}
