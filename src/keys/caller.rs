//! Who asks.

use std::sync::Arc;

use super::{KeyRing, LiveKey};
use crate::order::{Action, Reporter, Role, Sight};

/// Whether who asks must say who he is.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Everybody may do everything.
    Open,
    /// Who has one of these keys, what its role may.
    Keys(Arc<KeyRing>),
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody is asked who he is.
    Anyone,
    /// Where keys are asked for: somebody who has shown none, and needs none here.
    Anonymous,
    /// The holder of this key.
    Holder(Arc<LiveKey>),
}

impl Caller {
    /// The key that was shown.
    pub fn key(&self) -> Option<&Arc<LiveKey>> {
        match self {
            Self::Anyone | Self::Anonymous => None,
            Self::Holder(key) => Some(key),
        }
    }

    /// In which role; `None` where nobody is asked.
    pub fn role(&self) -> Option<Role> {
        self.key().map(|key| key.stored.role)
    }

    /// The name of the key.
    pub fn name(&self) -> Option<&str> {
        self.key().map(|key| key.stored.name.as_str())
    }

    /// Whose idempotency keys those that come with the request are.
    pub fn owner(&self) -> &str {
        self.key().map_or("", |key| key.stored.id.as_str())
    }

    /// Whether that may be done.
    pub fn may(&self, action: Action) -> bool {
        match self {
            Self::Anyone => true,
            Self::Anonymous => false,
            Self::Holder(key) => key.stored.role.may(action),
        }
    }

    /// What is shown of people.
    pub fn sight(&self) -> Sight {
        match self {
            Self::Anyone => Sight::WHOLE,
            Self::Anonymous => Sight::NOBODY,
            Self::Holder(key) => key.stored.role.sight(),
        }
    }

    /// Who reports what comes with the request.
    pub fn reporter(&self) -> Option<Reporter> {
        let stored = &self.key()?.stored;
        Some(Reporter { role: stored.role, name: stored.name.clone() })
    }

    /// Waits until the key is not good any more: what was begun with it ends.
    pub async fn revoked(&self) {
        match self.key() {
            None => std::future::pending().await,
            Some(key) => key.revoked.cancelled().await,
        }
    }
}
