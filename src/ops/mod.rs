//! What operators ask: what waits, what is wrong, and whether every promise was kept.

pub mod diagnosis;
pub mod explain;
pub mod overview;
pub mod verify;
