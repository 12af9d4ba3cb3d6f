//! What must hold before a call can succeed: sessions that are ours alone, the schema, and the rights.
//!
//! None is taken for granted once it was found: when a call fails in a way that one of them would explain,
//! they are looked at again, and brought about where that is ours to do.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::{sync::Notify, time::Instant};

use super::{CALL, StoreError, causes::ConnectionFailure, rehearsal::Kind, session::Access};

/// Whether they hold, as far as is known.
pub(super) struct Preconditions {
    hold: AtomicBool,
    /// Why not, while they do not.
    reason: Mutex<String>,
    doubted: Notify,
    /// What calls have failed with, by SQLSTATE, and found nothing amiss when it was looked at.
    in_vain: Mutex<HashMap<String, InVain>>,
    /// How the last order of each kind has fared.
    placing: Mutex<[Placing; 2]>,
}

/// The pause after a look in vain; each further one for the same reason doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Looks for one reason.
struct InVain {
    /// Whether it asks for the next one.
    asks: bool,
    pause: Duration,
    until: Instant,
}

/// Why a look did not end well.
#[derive(Debug)]
pub(super) enum Unfit {
    /// One of them was found not to hold.
    Absent(StoreError),
    /// It could not be made, so nothing is known.
    Unseen(StoreError),
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Self {
        Self::Unseen(error)
    }
}

impl From<Unfit> for StoreError {
    fn from(unfit: Unfit) -> Self {
        let (Unfit::Absent(error) | Unfit::Unseen(error)) = unfit;
        error
    }
}

/// Whether orders of a kind can be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placing {
    /// The last one was.
    Well,
    /// The last one was not; a rehearsal tells when they can.
    Failed,
    /// There was no answer: a commit may hang, for a standby that is away. A rehearsal meets no such thing, so only
    /// what commits tells when they can.
    Silent,
}

impl Preconditions {
    pub(super) fn new(reason: String) -> Self {
        Self {
            hold: AtomicBool::new(false),
            reason: Mutex::new(reason),
            doubted: Notify::new(),
            in_vain: Mutex::default(),
            placing: Mutex::new([Placing::Well; 2]),
        }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.hold.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(StoreError::Unavailable(self.reason.lock().expect("no holder panics").clone()))
    }

    /// They were looked at; answers whether they did not hold before.
    pub(super) fn hold(&self) -> bool {
        !self.hold.swap(true, Ordering::AcqRel)
    }

    /// A look did not end well. Once they hold, only what was found says that they do not. Answers whether they do.
    pub(super) fn fail(&self, unfit: &Unfit) -> bool {
        if let (Unfit::Unseen(_), true) = (unfit, self.hold.load(Ordering::Acquire)) {
            return true;
        }
        let (Unfit::Absent(error) | Unfit::Unseen(error)) = unfit;
        let reason = match error {
            StoreError::Unavailable(reason) | StoreError::Failed(reason) | StoreError::Refused(reason) => {
                reason.clone()
            }
            StoreError::Timeout(_) | StoreError::EarlierVersion(_) => error.to_string(),
        };
        self.explain(reason);
        self.hold.store(false, Ordering::Release);
        false
    }

    /// Why they do not hold, if they do not.
    pub(super) fn explain(&self, reason: impl Into<String>) {
        *self.reason.lock().expect("no holder panics") = reason.into();
    }

    /// Whether orders of a kind could be placed when one was last tried.
    pub(super) fn placing(&self, kind: Kind) -> Placing {
        self.placing.lock().expect("no holder panics")[kind as usize]
    }

    fn update(&self, kinds: &[Kind], next: impl Fn(Placing) -> Placing) {
        let mut placing = self.placing.lock().expect("no holder panics");
        for kind in kinds {
            placing[*kind as usize] = next(placing[*kind as usize]);
        }
    }

    /// An order of this kind is about to be placed.
    pub(super) fn trial(&self, kind: Kind) -> Trial<'_> {
        Trial { preconditions: self, kind, judged: false }
    }

    /// Remembers how a rehearsal has fared, which commits nothing.
    pub(super) fn judge_rehearsal(&self, kind: Kind, outcome: &Result<(), StoreError>) {
        self.update(&[kind], |placing| match (placing, outcome) {
            (Placing::Silent, _) => Placing::Silent,
            (_, Ok(())) => Placing::Well,
            (_, Err(_)) => Placing::Failed,
        });
    }

    /// Remembers how a sign of life has fared, which commits.
    pub(super) fn judge_heartbeat<T>(&self, outcome: &Result<T, StoreError>) {
        self.update(&Kind::ALL, |placing| match (placing, outcome) {
            (Placing::Silent, Ok(_)) => Placing::Failed,
            (_, Err(error)) if is_silence(error) => Placing::Silent,
            (placing, _) => placing,
        });
    }

    /// One of them does not hold.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// A call has failed as it would if one of them did not hold. What is not theirs, such as a right that only
    /// some calls need, is looked for ever more rarely.
    pub(super) fn doubt_for(&self, sqlstate: &str) {
        let now = Instant::now();
        let mut in_vain = self.in_vain.lock().expect("no holder panics");
        let new = || InVain { asks: false, pause: Duration::ZERO, until: now };
        let reason = in_vain.entry(sqlstate.to_owned()).or_insert_with(new);
        if now >= reason.until {
            reason.asks = true;
            self.doubted.notify_one();
        }
    }

    /// They were looked at, and something was `found` that explains why calls have failed; or nothing was.
    pub(super) fn looked(&self, found: bool) {
        let now = Instant::now();
        let mut in_vain = self.in_vain.lock().expect("no holder panics");
        if found {
            in_vain.clear();
        }
        for reason in in_vain.values_mut().filter(|reason| reason.asks) {
            let quiet = now.duration_since(reason.until) > reason.pause;
            reason.asks = false;
            reason.pause = if quiet { FIRST_PAUSE } else { (reason.pause * 2).min(LONGEST_PAUSE) };
            reason.until = now + reason.pause;
        }
    }

    /// Waits for such a call.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}

/// Where the server says itself that time is up, a lock may be held; else nothing was heard of it.
fn is_silence(error: &StoreError) -> bool {
    matches!(error, StoreError::Timeout(limit) if *limit == CALL)
}

/// A try to place orders of a kind; one that is given up before its end has had no answer either.
pub(super) struct Trial<'a> {
    preconditions: &'a Preconditions,
    kind: Kind,
    judged: bool,
}

impl Trial<'_> {
    /// Remembers how it has fared.
    pub(super) fn judge<T>(mut self, outcome: &Result<T, StoreError>) {
        self.judged = true;
        self.preconditions.update(&[self.kind], |placing| match (placing, outcome) {
            (_, Ok(_)) => Placing::Well,
            (Placing::Silent, Err(_)) => Placing::Silent,
            (_, Err(error)) if is_silence(error) => Placing::Silent,
            (_, Err(_)) => Placing::Failed,
        });
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.judged {
            self.preconditions.update(&[self.kind], |_| Placing::Silent);
        }
    }
}

/// Two sessions at once must be two for the server, and keep what is set in them: a pooler that hands out its
/// connections by transaction lets one see what was set in the other. Answers one of them.
pub(super) async fn session_of_our_own(access: &Access) -> Result<PgConnection, Unfit> {
    let [mark, mark_beside] = [rand::random::<u64>(), rand::random()].map(|mark| {
        // Harms nobody who shares the session.
        format!("set_config('order_tracker.session', '{mark:016x}', false)")
    });
    let (mut first, mut second) =
        tokio::try_join!(Box::pin(access.plain_session()), Box::pin(access.plain_session()))?;
    let before = told(access, &mut first, &mark).await?;
    let beside = told(access, &mut second, &mark_beside).await?;
    let after = told(access, &mut first, "current_setting('order_tracker.session', true)").await?;
    // One that can't be told is gone all the same.
    drop(second.close().await);
    if before.pid != beside.pid && before == after {
        return Ok(first);
    }
    drop(first.close().await);
    let cause = ConnectionFailure::new("a pooler there hands its connections out by transaction")
        .with("set pool_mode=session for this database (PgBouncer), or name the server itself in the DSN");
    Err(Unfit::Absent(StoreError::Unavailable(cause.at(&access.address()))))
}

/// Whose session it is, and what is set in it.
#[derive(PartialEq, Eq)]
struct SessionMark {
    pid: i32,
    mark: Option<String>,
}

/// In one message: such a pooler may part what belongs together.
async fn told(access: &Access, session: &mut PgConnection, what: &str) -> Result<SessionMark, StoreError> {
    let question = format!("SELECT pg_backend_pid(), {what}");
    let answer = sqlx::raw_sql(AssertSqlSafe(question)).fetch_one(session).await;
    let told = answer.and_then(|row| Ok(SessionMark { pid: row.try_get(0)?, mark: row.try_get(1)? }));
    told.map_err(|error| access.error(error))
}

/// What orders are placed in and read from, and the rights that this takes.
const NEEDED: &str = "
    WITH needed (relation, privilege) AS (VALUES
        ('orders', 'SELECT'), ('orders', 'INSERT'), ('order_events', 'SELECT'), ('order_events', 'INSERT'),
        ('outbox', 'SELECT'), ('outbox', 'INSERT'), ('relays', 'SELECT'),
        ('idempotency_keys', 'SELECT'), ('idempotency_keys', 'INSERT'))
    SELECT current_schema() IS NULL,
        (SELECT string_agg(DISTINCT relation, ', ') FROM needed WHERE to_regclass(relation) IS NULL),
        (SELECT string_agg(privilege || ' on ' || relation, ', ' ORDER BY relation, privilege) FROM (
            SELECT relation, privilege FROM needed
            WHERE NOT has_table_privilege(to_regclass(relation), privilege)
            UNION ALL SELECT sequence, 'USAGE' FROM (VALUES ('order_events_id_seq')) AS s (sequence)
            WHERE NOT has_sequence_privilege(to_regclass(sequence), 'USAGE, UPDATE')) AS lacking),
        pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean";

/// What of it is missing. Reads no table of ours, so it costs the same at any number of orders.
pub(super) async fn missing(db: &mut PgConnection) -> sqlx::Result<Missing> {
    let (schema, tables, rights, writing) = sqlx::query_as(NEEDED).fetch_one(db).await?;
    Ok(Missing { schema, tables, rights, writing })
}

/// What is not there.
#[derive(Debug, Default)]
pub(super) struct Missing {
    schema: bool,
    tables: Option<String>,
    rights: Option<String>,
    writing: bool,
}

impl Missing {
    /// Where tables are looked for, and made.
    pub(super) fn schema(&self) -> Result<(), StoreError> {
        if self.schema {
            let reason = "no schema of the search_path is there, or may be used by the role";
            return Err(StoreError::Unavailable(reason.to_owned()));
        }
        Ok(())
    }

    /// The ground under every call.
    pub(super) fn ground(&self) -> Result<(), StoreError> {
        self.schema()?;
        match &self.tables {
            None => Ok(()),
            Some(tables) => Err(StoreError::Unavailable(format!(
                "tables are not there, or not to be seen by the role: {tables}"
            ))),
        }
    }

    /// What placing an order takes; without it other calls may do their work.
    pub(super) fn placing(&self) -> Result<(), StoreError> {
        let reason = if let Some(rights) = &self.rights {
            format!("the role lacks the right to {rights} (docs/roles.sql)")
        } else if self.writing {
            "the server only reads: it is a standby, or default_transaction_read_only is set".to_owned()
        } else {
            return Ok(());
        };
        Err(StoreError::Unavailable(reason))
    }

    /// Whether it is the server that keeps orders from being placed: another may have taken its place.
    pub(super) fn only_reads(&self) -> bool {
        self.writing
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    /// A rehearsal does not meet a commit that hangs, nor does an order without a key meet what one with a key does.
    #[test]
    fn only_what_commits_tells_that_commits_end_again() {
        let preconditions = Preconditions::new(String::new());
        let placing = || Kind::ALL.map(|kind| preconditions.placing(kind));
        let (well, silence) = (Ok(()), Err::<(), _>(StoreError::Timeout(CALL)));
        preconditions.trial(Kind::Keyed).judge(&Err::<(), _>(StoreError::Timeout(Duration::from_secs(1))));
        preconditions.trial(Kind::Keyless).judge(&well);
        assert_eq!(placing(), [Placing::Failed, Placing::Well], "a lock is no silence");
        preconditions.judge_rehearsal(Kind::Keyed, &well);
        assert_eq!(placing(), [Placing::Well; 2]);

        preconditions.trial(Kind::Keyless).judge(&silence);
        drop(preconditions.trial(Kind::Keyed));
        for kind in Kind::ALL {
            preconditions.judge_rehearsal(kind, &well);
        }
        assert_eq!(placing(), [Placing::Silent; 2]);
        preconditions.trial(Kind::Keyed).judge(&well);
        assert_eq!(placing(), [Placing::Well, Placing::Silent]);
        preconditions.judge_heartbeat(&well);
        preconditions.judge_rehearsal(Kind::Keyless, &well);
        assert_eq!(placing(), [Placing::Well; 2]);
        preconditions.judge_heartbeat(&silence);
        assert_eq!(placing(), [Placing::Silent; 2]);
    }

    /// Promise 5: memory, queues and time are bounded. A right that one of the loops lacks is no reason to look
    /// every second.
    #[tokio::test(start_paused = true)]
    async fn looks_that_find_nothing_become_rare() {
        let preconditions = Preconditions::new(String::new());
        let mut looks = 0;
        for _ in 0..600 {
            preconditions.doubt_for("42501");
            if preconditions.doubted().now_or_never().is_some() {
                looks += 1;
                preconditions.looked(false);
            }
            advance(Duration::from_secs(1)).await;
        }
        assert!((8..18).contains(&looks), "{looks} looks in ten minutes");
        let is_looked_for = |sqlstate: &str| {
            preconditions.doubt_for(sqlstate);
            preconditions.doubted().now_or_never().is_some()
        };
        assert!(!is_looked_for("42501") && is_looked_for("42P01"), "something else is");
        preconditions.looked(true);
        assert!(is_looked_for("42501"), "after something was found");
    }
}
