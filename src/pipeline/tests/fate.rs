//! What becomes of the writes of a store that makes trouble.

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use tokio::time::Instant;

/// What happens to the next write.
#[derive(Debug, Clone, Copy)]
pub(super) enum WriteFailure {
    /// It never reaches the database.
    NotDone,
    /// It is committed and the answer gets lost.
    AnswerLost,
    /// It is committed, and nobody waits so long for the answer.
    AnswerLate,
    /// It waits so long for its connection, and then is done.
    Waits(Duration),
}

/// Decides what happens to each write.
#[derive(Debug)]
pub(super) enum Fate {
    /// As written down, then nothing.
    Script(VecDeque<WriteFailure>),
    /// By chance, `wrong` times of a thousand, until the story is `until` milliseconds old.
    Dice { random: Box<StdRng>, wrong: u32, begun: Instant, until: u128 },
}

impl Fate {
    pub(super) fn next(&mut self) -> Option<WriteFailure> {
        match self {
            Self::Script(script) => script.pop_front(),
            Self::Dice { random, wrong, begun, until } => {
                let strikes = begun.elapsed().as_millis() < *until && random.random_range(0..1_000) < *wrong;
                strikes
                    .then(|| if random.random() { WriteFailure::NotDone } else { WriteFailure::AnswerLost })
            }
        }
    }

    /// How long the database thinks, in milliseconds.
    pub(super) fn thinks(&mut self) -> u64 {
        match self {
            Self::Script(_) => 0,
            Self::Dice { random, .. } => random.random_range(0..30),
        }
    }
}
