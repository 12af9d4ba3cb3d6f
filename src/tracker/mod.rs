//! The only way to orders for whoever is not a loop: place one, find, list, subscribe to its events.

mod loader;
mod notifier;
mod queue;
mod search;

pub use loader::{Listing, OrderLoader};
pub use notifier::{NoPlace, Notifier, Subscriber};
pub use queue::{Accepted, Answer, PlaceError, PlaceQueue, PlaceRequest, PlaceRequests, place_queue};
pub use search::{AMONG, Matches, Search};
