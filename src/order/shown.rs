//! What goes out of an order: no more of people than who asks may see.
//!
//! Neither an order nor an event can be serialised by itself, so nobody can forget to ask whom it is for.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::{Event, Order, OrderDetails, Sight, Size, TrackedOrder, rfc3339};

/// The field of an event's `meta` that is for those who work on the order.
const NOTE: &str = "note";

/// Something of an order as it is shown to who may see so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<T> {
    whole: T,
    sight: Sight,
}

impl<T> Shown<T> {
    /// What this sight reaches of it.
    pub const fn new(whole: T, sight: Sight) -> Self {
        Self { whole, sight }
    }
}

/// What can be shown in part.
pub trait Show {
    /// Writes what this sight reaches.
    fn show<S: Serializer>(&self, sight: Sight, out: S) -> Result<S::Ok, S::Error>;
}

impl<T: Show> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        self.whole.show(self.sight, out)
    }
}

impl<T: PartialSchema> PartialSchema for Shown<T> {
    fn schema() -> RefOr<Schema> {
        T::schema()
    }
}

impl<T: ToSchema> ToSchema for Shown<T> {
    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
    }
}

impl<T: Show + ?Sized> Show for &T {
    fn show<S: Serializer>(&self, sight: Sight, out: S) -> Result<S::Ok, S::Error> {
        T::show(self, sight, out)
    }
}

impl<T: Show> Show for [T] {
    fn show<S: Serializer>(&self, sight: Sight, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.iter().map(|one| Shown::new(one, sight)))
    }
}

impl Show for Order {
    fn show<S: Serializer>(&self, sight: Sight, out: S) -> Result<S::Ok, S::Error> {
        let Self { order_id, details, status, created_at, updated_at, due_at: _, expected_at: _ } = self;
        let OrderDetails { customer_name, address, item, size } = details;
        let mut map = out.serialize_map(Some(8))?;
        map.serialize_entry("order_id", order_id)?;
        map.serialize_entry("customer_name", &Some(customer_name).filter(|_| sight.names))?;
        map.serialize_entry("address", &Some(address).filter(|_| sight.addresses))?;
        map.serialize_entry("item", item)?;
        map.serialize_entry("size", size)?;
        map.serialize_entry("status", status)?;
        map.serialize_entry("created_at", &rfc3339(*created_at))?;
        map.serialize_entry("updated_at", &rfc3339(*updated_at))?;
        map.end()
    }
}

impl Show for TrackedOrder {
    fn show<S: Serializer>(&self, sight: Sight, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(2))?;
        map.serialize_entry("order", &Shown::new(&self.order, sight))?;
        map.serialize_entry("events", &Shown::new(self.events.as_slice(), sight))?;
        map.end()
    }
}

impl Order {
    /// As much as whoever reads an answer was shown of it: everybody has a name, and an order goes somewhere.
    pub fn told(&self) -> Sight {
        let OrderDetails { customer_name, address, .. } = &self.details;
        Sight { names: !customer_name.is_empty(), addresses: !address.is_empty(), notes: true }
    }
}

impl Show for Event {
    fn show<S: Serializer>(&self, sight: Sight, out: S) -> Result<S::Ok, S::Error> {
        // The position is the place in the array, or stands beside the event.
        let Self { seq: _, event, timestamp, meta } = self;
        let mut map = out.serialize_map(Some(3))?;
        map.serialize_entry("event", event)?;
        map.serialize_entry("timestamp", &rfc3339(*timestamp))?;
        map.serialize_entry("meta", &meta.as_ref().map(|meta| ShownMeta { meta, sight }))?;
        map.end()
    }
}

/// What is told of an event.
struct ShownMeta<'a> {
    meta: &'a Value,
    sight: Sight,
}

impl Serialize for ShownMeta<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self.meta {
            Value::Object(said) if !self.sight.notes && said.contains_key(NOTE) => {
                out.collect_map(said.iter().filter(|(name, _)| *name != NOTE))
            }
            whole => whole.serialize(out),
        }
    }
}

/// Who ordered what and where it goes, all of it: for the database, for the topic, and for who orders.
pub(crate) fn in_full<S: Serializer>(details: &OrderDetails, out: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct InFull<'a> {
        customer_name: &'a str,
        address: &'a str,
        item: &'a str,
        size: Size,
    }
    let OrderDetails { customer_name, address, item, size } = details;
    InFull { customer_name, address, item, size: *size }.serialize(out)
}

/// Holds as long as none of these can be serialised by itself: else it is not clear which `check` is meant.
const _: () = {
    struct Serialisable;
    trait Check<A> {
        fn check() {}
    }
    impl<T: ?Sized> Check<()> for T {}
    impl<T: ?Sized + Serialize> Check<Serialisable> for T {}

    let _ = <Order as Check<_>>::check;
    let _ = <TrackedOrder as Check<_>>::check;
    let _ = <OrderDetails as Check<_>>::check;
    let _ = <Event as Check<_>>::check;
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::order::{EventKind, Status, Timestamp};

    fn tracked() -> TrackedOrder {
        let at: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a moment");
        let order = Order {
            order_id: "ORD-01ARZ3NDEK0000000000000000".parse().expect("an id"),
            details: OrderDetails::new("Ada \"L\"", "1 High St", "pizza", "large").expect("valid"),
            status: Status::Cooking,
            created_at: at,
            updated_at: at,
            due_at: Some(at),
            expected_at: None,
        };
        let event = |seq, meta| Event { seq, event: EventKind::Ready, timestamp: at, meta };
        let meta = json!({"by": "x", "note": "for Ada", "source": "kitchen"});
        TrackedOrder { order, events: vec![event(1, None), event(2, Some(meta)), event(3, Some(json!([1])))] }
    }

    /// Promise 9: who may not, can't. To the letter, since others compare bytes.
    #[test]
    fn no_more_is_written_than_a_sight_reaches() {
        let whole = concat!(
            r#"{"order":{"order_id":"ORD-01ARZ3NDEK0000000000000000","customer_name":"Ada \"L\"","#,
            r#""address":"1 High St","item":"pizza","size":"large","status":"COOKING","#,
            r#""created_at":"2026-01-02T03:04:05.678Z","updated_at":"2026-01-02T03:04:05.678Z"},"events":["#,
            r#"{"event":"READY","timestamp":"2026-01-02T03:04:05.678Z","meta":null},"#,
            r#"{"event":"READY","timestamp":"2026-01-02T03:04:05.678Z","#,
            r#""meta":{"by":"x","note":"for Ada","source":"kitchen"}},"#,
            r#"{"event":"READY","timestamp":"2026-01-02T03:04:05.678Z","meta":[1]}]}"#,
        );
        let written = |sight| serde_json::to_string(&Shown::new(tracked(), sight)).expect("json");
        assert_eq!(written(Sight::WHOLE), whole);
        let name = whole.replace(r#""Ada \"L\"""#, "null");
        assert_eq!(written(Sight { names: false, ..Sight::WHOLE }), name);
        let address = whole.replace(r#""1 High St""#, "null");
        assert_eq!(written(Sight { addresses: false, ..Sight::WHOLE }), address);
        let note = whole.replace(r#""note":"for Ada","#, "");
        assert_eq!(written(Sight { notes: false, ..Sight::WHOLE }), note);
    }

    /// Whoever reads an answer knows what he was not shown, and tells it on as it was told.
    #[test]
    fn what_was_kept_back_is_read_and_told_on() {
        for sight in [Sight::WHOLE, Sight::NOBODY, Sight { addresses: false, ..Sight::WHOLE }] {
            let written = serde_json::to_string(&Shown::new(tracked(), sight)).expect("json");
            let read: TrackedOrder = serde_json::from_str(&written).expect("an order");
            assert_eq!(read.order.told(), Sight { notes: true, ..sight });
            let again = serde_json::to_string(&Shown::new(&read, read.order.told())).expect("json");
            assert_eq!(again, written);
        }
    }
}
