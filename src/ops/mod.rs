//! What operators ask: what waits, what is wrong, and whether every promise was kept; and what they mend: orders that are
//! not on the topic, dead letters.

pub mod dead_letters;
pub mod diagnosis;
mod operations;
pub mod overview;
pub mod republish;
pub mod verify;

pub use operations::Operations;
