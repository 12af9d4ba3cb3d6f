//! Orders that a person might have placed, for demonstrations and load.

use rand::seq::IndexedRandom as _;

use crate::order::OrderDetails;

const FIRST_NAMES: &[&str] = &[
    "Amina", "Björn", "Chloé", "Dmitri", "Esther", "Farid", "Grace", "Hiroshi", "Inés", "Jakub", "Keisha",
    "Liam", "Mei", "Noor", "Olga", "Priya", "Quentin", "Rosa", "Sven", "Tariq", "Uma", "Viktor", "Wanda",
    "Ximena", "Yusuf", "Zoë",
];
const LAST_NAMES: &[&str] = &[
    "Adeyemi",
    "Baker",
    "Costa",
    "Dubois",
    "Eriksson",
    "Fischer",
    "García",
    "Haddad",
    "Ito",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nguyen",
    "O'Brien",
    "Patel",
    "Rossi",
    "Sato",
    "Tanaka",
    "Ueda",
    "Vargas",
    "Weber",
    "Yilmaz",
    "Zhang",
];
const STREETS: &[&str] = &[
    "Station Road",
    "Mill Lane",
    "Church Street",
    "Harbour View",
    "Orchard Way",
    "Castle Hill",
    "Bridge Street",
    "Garden Row",
    "King's Parade",
    "Lime Avenue",
    "Market Square",
    "Old Brewery Yard",
    "Park Terrace",
    "Quay Street",
    "River Walk",
    "Victoria Crescent",
];
const ITEMS: &[&str] = &[
    "pizza margherita",
    "pizza funghi",
    "cheeseburger",
    "veggie burger",
    "club sandwich",
    "falafel wrap",
    "pad thai",
    "ramen",
    "chicken tikka",
    "lentil dal",
    "caesar salad",
    "fish and chips",
    "poke bowl",
    "sushi set",
    "lasagne",
    "tacos al pastor",
];
const SIZES: &[&str] = &["small", "medium", "large"];

/// Makes up an order that a person might have placed.
pub fn plausible_order() -> OrderDetails {
    let rng = &mut rand::rng();
    let mut pick = |list: &[&'static str]| *list.choose(rng).unwrap_or(&"nobody");
    let name = format!("{} {}", pick(FIRST_NAMES), pick(LAST_NAMES));
    let (street, item, size) = (pick(STREETS), pick(ITEMS), pick(SIZES));
    let address = format!("{} {street}", rand::random_range(1..200));
    OrderDetails::new(&name, &address, item, size).expect("the lists hold valid texts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_plausible_and_differ() {
        let orders: Vec<OrderDetails> = (0..50).map(|_| plausible_order()).collect();
        assert!(orders.iter().any(|details| *details != orders[0]));
        assert!(orders.iter().all(|details| details.customer_name.contains(' ')));
    }
}
