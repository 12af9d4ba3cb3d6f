//! What all share who follow something: so many places, half of them at most for one client; the reader of events that
//! they wake; and the moment from which on nobody is told anything.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All places.
pub struct Places {
    most: usize,
    stop: CancellationToken,
    reader: Notify,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// How many of them each client has; none is 0.
    clients: HashMap<IpAddr, usize>,
}

/// Why nobody more may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All places are taken.
    ForAnybody,
    /// This client has half of them.
    ForThisClient,
}

/// One of them; dropping it gives it back.
pub struct Place {
    places: Arc<Places>,
    client: Option<IpAddr>,
}

impl Places {
    /// So many, until `stop`.
    pub fn new(most: usize, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { most, stop, reader: Notify::new(), taken: Mutex::default() })
    }

    /// Cancelled when whoever follows is to be told nothing more.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Something was committed here, or somebody follows: the reader of events looks at once.
    pub fn wake_reader(&self) {
        self.reader.notify_one();
    }

    /// Waits for that.
    pub async fn reader_woken(&self) {
        self.reader.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("no holder panics")
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    /// One for this client, as far as it is known.
    pub fn take(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Place, NoPlace> {
        let mut taken = self.lock();
        if taken.all == self.most {
            return Err(NoPlace::ForAnybody);
        }
        if let Some(client) = client {
            let share = (self.most / 2).max(1);
            let held = taken.clients.get(&client).copied().unwrap_or_default();
            if held >= share {
                return Err(NoPlace::ForThisClient);
            }
            taken.clients.insert(client, held + 1);
        }
        taken.all += 1;
        Ok(Place { places: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(client) = self.client
            && let Some(held) = taken.clients.get_mut(&client)
        {
            *held -= 1;
            if *held == 0 {
                taken.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: memory, queues and time are bounded.
    #[test]
    fn places_are_limited_and_given_back() {
        let places = Places::new(2, CancellationToken::new());
        let (first, second) = (places.take(None), places.take(None));
        assert!(second.is_ok());
        assert_eq!(places.take(None).err(), Some(NoPlace::ForAnybody));
        drop(first);
        assert!(places.take(None).is_ok());
        drop(second);
        assert_eq!(places.taken(), 0);
    }

    /// Promise 5: memory, queues and time are bounded. One client leaves half of the places to others.
    #[test]
    fn a_client_has_at_most_half_of_the_places() {
        let places = Places::new(2, CancellationToken::new());
        let take = |last| places.take(Some(IpAddr::from([192, 0, 2, last])));
        let greedy = take(1).expect("a place");
        assert_eq!(take(1).err(), Some(NoPlace::ForThisClient));
        let other = take(2).expect("the others have theirs");
        assert_eq!(take(1).err(), Some(NoPlace::ForAnybody));
        drop(greedy);
        assert!(take(1).is_ok());
        drop(other);
        assert_eq!((places.taken(), places.lock().clients.len()), (0, 0));
    }
}
