//! Labels that the pipeline names.

/// A step of the pipeline, the label of `pipeline_step_duration_seconds`.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// From the moment an order is handed in to its commit.
    Place,
    /// From the hand-over to the Kafka client to the broker's acknowledgement.
    Publish,
    /// Taking over one batch of messages.
    Admit,
    /// Moving one batch of due orders.
    Advance,
}

impl Step {
    pub(super) const ALL: [Self; 4] = [Self::Place, Self::Publish, Self::Admit, Self::Advance];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Publish => "publish",
            Self::Admit => "admit",
            Self::Advance => "advance",
        }
    }
}

/// What became of a consumed message, the label of `consumer_messages_total`.
#[derive(Debug, Clone, Copy)]
pub enum Consumed {
    /// An unknown order, now stored.
    Admitted,
    /// A known order.
    Known,
    /// Became a dead letter.
    Rejected,
    /// No value: counted and skipped.
    Tombstone,
}

impl Consumed {
    pub(super) const ALL: [Self; 4] = [Self::Admitted, Self::Known, Self::Rejected, Self::Tombstone];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Known => "known",
            Self::Rejected => "rejected",
            Self::Tombstone => "tombstone",
        }
    }
}
