//! Finds orders by what people remember of them: a name, an item, the end of a number.
//!
//! No index, which every order would have to pay for: the newest orders are read once for all who search, and
//! kept for a moment.
//!
//! Invariant: however many search, and whatever for, one reading is under way, and a reading of a few milliseconds
//! takes a small part of the time. A slow one takes more of it, since what is found must not be old.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    order::{Order, OrderId, Sight, Status},
    store::{OrderStore, Page, StoreError},
};

/// Among so many of the newest orders is searched.
pub const AMONG: usize = 10_000;
/// So many are read by one statement.
const AT_ONCE: usize = 1_000;
/// How old a reading may be.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Reading takes at most this part of the time...
const SHARE: u32 = 20;
/// ... unless what is remembered would be older than this.
const OLDEST: Duration = Duration::from_secs(3);
/// How long it may be before what could not be read is asked for again: the next time it may not cost what it has cost.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// How long a reading may take.
const PATIENCE: Duration = crate::time::deadlines::QUEUE;
/// So many characters of a number's end can be searched for; fewer are too common.
const END: usize = 6;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matches {
    /// The newest of them.
    pub orders: Vec<OrderId>,
    /// How many there are.
    pub count: usize,
}

/// Searches the orders of one store.
pub struct Search {
    store: Arc<dyn OrderStore>,
    last: Mutex<Option<NewestOrders>>,
}

/// The newest orders as they were read at one time.
struct NewestOrders {
    at: Instant,
    took: Duration,
    orders: Result<Arc<[Remembered]>, StoreError>,
}

impl NewestOrders {
    /// Whether orders need not be read again yet.
    fn is_enough(&self) -> bool {
        let rest = match self.orders {
            Ok(_) => (self.took * SHARE).clamp(FRESH_FOR, OLDEST),
            Err(_) => FAILED_FOR,
        };
        self.at.elapsed() < rest
    }
}

/// What can be searched for of an order. Only its status ever changes.
struct Remembered {
    order_id: OrderId,
    status: Status,
    /// Name and item in small letters, with a line's end between.
    text: String,
    /// Where the item begins.
    item: usize,
}

impl From<Order> for Remembered {
    fn from(order: Order) -> Self {
        let mut text = order.details.customer_name.to_lowercase();
        text.push('\n');
        let item = text.len();
        text.push_str(&order.details.item.to_lowercase());
        Self { order_id: order.order_id, status: order.status, text, item }
    }
}

impl Search {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn OrderStore>) -> Self {
        Self { store, last: Mutex::default() }
    }

    /// The newest `limit` orders, in this status if one is given, with the words in their name or item, or at the end of
    /// their number, in large letters or small. Who sees no names finds nothing by them either.
    pub async fn find(
        &self,
        words: &str,
        status: Option<Status>,
        sight: Sight,
        limit: usize,
    ) -> Result<Matches, StoreError> {
        let orders = self.newest().await?;
        let (text, end) = (words.to_lowercase(), words.to_ascii_uppercase());
        let end = Some(end).filter(|end| end.chars().count() >= END);
        let ends = |id: OrderId| end.as_ref().is_some_and(|end| id.to_string().ends_with(end));
        let mut matches = Matches { orders: Vec::new(), count: 0 };
        for order in orders.iter().filter(|order| status.is_none_or(|status| order.status == status)) {
            let told = if sight.names { &order.text } else { &order.text[order.item..] };
            if told.contains(&text) || ends(order.order_id) {
                matches.count += 1;
                if matches.orders.len() < limit {
                    matches.orders.push(order.order_id);
                }
            }
        }
        Ok(matches)
    }

    /// Who comes while they are read waits for the same reading.
    async fn newest(&self) -> Result<Arc<[Remembered]>, StoreError> {
        let mut last = self.last.lock().await;
        if let Some(reading) = &*last
            && reading.is_enough()
        {
            return reading.orders.clone();
        }
        let started = Instant::now();
        let orders = timeout(PATIENCE, self.read()).await.unwrap_or(Err(StoreError::Timeout(PATIENCE)));
        let reading = NewestOrders { at: Instant::now(), took: started.elapsed(), orders };
        last.insert(reading).orders.clone()
    }

    async fn read(&self) -> Result<Arc<[Remembered]>, StoreError> {
        let (mut orders, mut before) = (Vec::new(), None);
        while orders.len() < AMONG {
            let limit = AT_ONCE.min(AMONG - orders.len());
            let page = self.store.list(&Page { status: None, before, limit }).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.order_id);
            orders.extend(page.into_iter().map(Remembered::from));
        }
        Ok(orders.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        order::{IdMint, OrderDetails, Start},
        store::{
            NewOrder, Outbox,
            conformance::start,
            memory::{Database, MemoryStore},
        },
        time::VirtualClock,
    };

    /// A store whose orders are those of these customers, oldest first.
    async fn orders(
        customers: impl Iterator<Item = (&str, &str)>,
    ) -> (Search, Vec<OrderId>, Arc<std::sync::Mutex<Database>>) {
        let (database, mut mint) = (Arc::default(), IdMint::default());
        let clock = Arc::new(VirtualClock::new(start()));
        let store = MemoryStore::new(Arc::clone(&database), clock, 1);
        let new = |(at, (name, item)): (u64, _)| NewOrder {
            order_id: mint.mint(at, u128::from(at) << 20),
            details: OrderDetails::new(name, "1 High St", item, "large").expect("valid"),
            key: None,
            meta: None,
            start: Start::default(),
        };
        let new: Vec<NewOrder> = (0..).zip(customers).map(new).collect();
        store.place(&new, Outbox::Mine).await.expect("places");
        let ids = new.iter().map(|order| order.order_id).collect();
        (Search::new(Arc::new(store)), ids, database)
    }

    #[tokio::test(start_paused = true)]
    async fn orders_are_found_by_name_item_and_the_end_of_their_number() {
        let customers =
            [("Asha Rao", "dal"), ("ÅSA ÖBERG", "Pizza Funghi"), ("Ada", "pizza"), ("Bob", "tea")];
        let (search, ids, _) = orders(customers.into_iter()).await;
        let number = ids[3].to_string();
        let end = &number[number.len() - 6..];
        for (words, expected) in [
            ("asha", vec![0]),
            ("ASHA R", vec![0]),
            ("åsa öb", vec![1]),
            ("pizza", vec![2, 1]),
            ("a", vec![3, 2, 1, 0]),
            (end, vec![3]),
            (&end.to_lowercase(), vec![3]),
            (&number[10..], vec![3]),
            // Too common, the middle of a number, two fields at once, nothing like it.
            (&end[1..], vec![]),
            (&number[8..20], vec![]),
            ("rao dal", vec![]),
            ("xyz", vec![]),
        ] {
            let found = search.find(words, None, Sight::WHOLE, 9).await.expect("found");
            let expected: Vec<OrderId> = expected.into_iter().map(|at: usize| ids[at]).collect();
            assert_eq!(found, Matches { count: expected.len(), orders: expected }, "{words:?}");
        }
        for (words, count) in [("asha", 0), ("ada", 0), ("pizza", 2), (end, 1)] {
            let found = search.find(words, None, Sight::NOBODY, 9).await.expect("found");
            assert_eq!(found.count, count, "{words:?} for who sees no names");
        }
        let some = search.find("pizza", None, Sight::WHOLE, 1).await.expect("found");
        assert_eq!(some, Matches { count: 2, orders: vec![ids[2]] });
        let cooking = search.find("pizza", Some(Status::Cooking), Sight::WHOLE, 9).await.expect("found");
        assert_eq!(cooking, Matches { count: 0, orders: Vec::new() });
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_newest_orders_are_searched() {
        let customers = (0..AMONG + 5).map(|n| (if n < 7 { "Asha" } else { "Bob" }, "tea"));
        let (search, ids, _) = orders(customers).await;
        let found = search.find("asha", None, Sight::WHOLE, 9).await.expect("found");
        assert_eq!(found, Matches { count: 2, orders: vec![ids[6], ids[5]] });
        assert_eq!(search.find("bob", None, Sight::WHOLE, 9).await.expect("found").count, AMONG - 2);
    }

    /// Promise 5: memory, queues and time are bounded. Many who search at one time cost one reading, a failed one too.
    #[tokio::test(start_paused = true)]
    async fn many_who_search_share_one_reading() {
        let (search, _, database) = orders([("Asha", "tea")].into_iter()).await;
        let away = |away| database.lock().expect("no panic").away = away;
        let found =
            async |words: &str| search.find(words, None, Sight::WHOLE, 9).await.map(|found| found.count);
        let almost = FRESH_FOR.checked_sub(Duration::from_millis(1)).expect("longer");
        assert_eq!(found("asha").await, Ok(1));
        away(true);
        tokio::time::advance(almost).await;
        assert_eq!((found("tea").await, found("bob").await), (Ok(1), Ok(0)), "nothing is read");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(found("asha").await.is_err());
        away(false);
        tokio::time::advance(almost).await;
        assert!(found("asha").await.is_err(), "nothing is read");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(found("asha").await, Ok(1));
    }

    /// Promise 6: it says what is wrong. What is over is not said any more, and new orders are found soon, however
    /// slow the database has been.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reading_is_not_remembered_for_long() {
        let millis = Duration::from_millis;
        let read = |took, orders| NewestOrders { at: Instant::now(), took, orders };
        let nothing: Result<Arc<[Remembered]>, StoreError> = Ok(Arc::new([]));
        for (reading, rest) in [
            (read(millis(1), nothing.clone()), FRESH_FOR),
            (read(millis(100), nothing.clone()), millis(2_000)),
            (read(millis(500), nothing), OLDEST),
            (read(PATIENCE, Err(StoreError::Timeout(PATIENCE))), FAILED_FOR),
            (read(millis(1), Err(StoreError::Timeout(PATIENCE))), FAILED_FOR),
        ] {
            let reading = NewestOrders { at: Instant::now(), ..reading };
            tokio::time::advance(rest.saturating_sub(millis(1))).await;
            assert!(reading.is_enough(), "{:?} and {rest:?}", reading.took);
            tokio::time::advance(millis(1)).await;
            assert!(!reading.is_enough(), "{:?} and {rest:?}", reading.took);
        }
    }
}
