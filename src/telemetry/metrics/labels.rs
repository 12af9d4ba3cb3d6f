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
    /// From the moment a report is handed in to its commit.
    Report,
}

impl Step {
    pub(super) const ALL: [Self; 5] = [Self::Place, Self::Publish, Self::Admit, Self::Advance, Self::Report];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Publish => "publish",
            Self::Admit => "admit",
            Self::Advance => "advance",
            Self::Report => "report",
        }
    }
}

/// What became of a report, the label of `reports_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportResult {
    /// It is in the timeline.
    Applied,
    /// It said nothing new.
    Ignored,
    /// It was refused.
    Refused,
}

impl ReportResult {
    pub(super) const ALL: [Self; 3] = [Self::Applied, Self::Ignored, Self::Refused];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
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
