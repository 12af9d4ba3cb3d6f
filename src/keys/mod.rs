//! Keys: how they look, which of them are good just now, and who asks with one.
//!
//! What a role may do is in `order::role`; who keeps keys is the store; who asks for one is `http`. Nothing here does I/O.
//!
//! Invariant: a key is shown once, when it is made. What is kept, compared and named afterwards is its hash, id and name.

mod caller;
mod record;
mod ring;
mod session;
mod text;

pub use caller::{Auth, Caller};
pub use record::{KeyCreation, KeyList, KeyRecord};
pub use ring::{AuthError, KeyRing, KeyUse, LiveKey, StoredKey};
pub use session::{LASTING as SESSION_LASTING, Session};
pub use text::{ApiKey, KeyHash, KeyId, ParseKeyError};

/// Longest name of a key, in characters.
pub const MAX_NAME_CHARS: usize = 64;
/// Most keys that are good at one time: all of them are in memory.
pub const MAX_LIVE_KEYS: usize = 10_000;
