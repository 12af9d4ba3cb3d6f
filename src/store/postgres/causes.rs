//! Why the database can't be reached, in the words of the lowest layer that knows.
//!
//! A server's refusal of a login is told in words of ours: its own may name the role, or hold what was set wrongly.

use std::io::{self, ErrorKind};

use sqlx::postgres::PgDatabaseError;

use super::dsn::Target;

/// What is wrong, and what helps if that is not plain from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectionFailure {
    what: String,
    remedy: Option<&'static str>,
    /// Whether one connection less would help.
    pub(super) crowded: bool,
}

impl ConnectionFailure {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None, crowded: false }
    }

    pub(super) fn with(self, remedy: &'static str) -> Self {
        Self { remedy: Some(remedy), ..self }
    }

    fn crowded(self) -> Self {
        Self { crowded: true, ..self }
    }

    /// As a sentence that says where.
    pub(super) fn at(&self, address: &str) -> String {
        match self.remedy {
            None => format!("{}, {address}", self.what),
            Some(remedy) => format!("{}, {address}: {remedy}", self.what),
        }
    }
}

/// Why no session could begin.
pub(super) fn of_login(error: &sqlx::Error, target: &Target) -> ConnectionFailure {
    match error {
        sqlx::Error::Io(error) => of_connection(error, target),
        sqlx::Error::Tls(error) => of_tls(&error.to_string()),
        // The byte that was not read in answer to the first question.
        sqlx::Error::Protocol(text) if text.contains(": 0x00") => {
            ConnectionFailure::new("the server closed the connection")
        }
        sqlx::Error::Protocol(_) => ConnectionFailure::new("what answers there is not PostgreSQL"),
        sqlx::Error::Database(refusal) => match refusal.try_downcast_ref::<PgDatabaseError>() {
            Some(refusal) => of_refusal(refusal, target),
            None => ConnectionFailure::new("the login is refused"),
        },
        _ => ConnectionFailure::new("the settings of the connection can't be used"),
    }
}

/// What the TLS library says of a certificate of X.509 version 1.
const VERSION_1: &str = "UnsupportedCertVersion";

/// Whether the driver could not read the server's certificate, whoever signed it.
pub(super) fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_)) && error.to_string().contains(VERSION_1)
}

/// Why a session ended in the middle of a call; `None` where the server told an error of its own.
pub(super) fn of_break(error: &sqlx::Error) -> Option<ConnectionFailure> {
    match error {
        sqlx::Error::Io(error) => {
            Some(ConnectionFailure::new(format!("the connection broke ({})", plain(error))))
        }
        sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
            Some(ConnectionFailure::new("the connection broke"))
        }
        _ => None,
    }
}

fn of_connection(error: &io::Error, target: &Target) -> ConnectionFailure {
    let text = error.to_string();
    if text.contains("invalid peer certificate") || error.kind() == ErrorKind::InvalidData {
        return of_tls(&text);
    }
    if text.starts_with("failed to lookup address") {
        let why = text.rsplit(": ").next().unwrap_or_default();
        return ConnectionFailure::new(format!("the host's name can't be resolved ({})", lower(why)));
    }
    match error.kind() {
        ErrorKind::UnexpectedEof => ConnectionFailure::new("the server closed the connection"),
        // Nothing of a TCP connection is not found.
        ErrorKind::NotFound | ErrorKind::IsADirectory if !target.is_local() => {
            ConnectionFailure::new("a file that sslrootcert, sslcert or sslkey names is not there")
        }
        ErrorKind::NotFound => ConnectionFailure::new("there is no socket"),
        _ => ConnectionFailure::new(plain(error)),
    }
}

/// What the system says, without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    lower(text.split(" (os error").next().unwrap_or_default())
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// The TLS library tells what it dislikes in text only.
fn of_tls(text: &str) -> ConnectionFailure {
    let of = |what: &str| ConnectionFailure::new(format!("the server's certificate {what}"));
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if any(&[VERSION_1]) {
        of("is of X.509 version 1, which can't be checked").with(
            "make one of version 3 (openssl x509 -req -extfile v3.ext, with subjectAltName in that file), or set \
             sslmode=require without sslrootcert, sslcert and sslkey to encrypt only",
        )
    } else if any(&["CaUsedAsEndEntity"]) {
        of("is that of a CA, which can't be checked as a server's")
            .with("let a CA sign one for the server (CA:FALSE), or set sslmode=require to encrypt only")
    } else if any(&["UnknownIssuer", "BadSignature"]) {
        of("is not signed by a CA that is trusted").with("name the CA's file in sslrootcert")
    } else if any(&["not valid for name", "NotValidForName"]) {
        of("is not for this host").with(
            "connect by a name that its subjectAltName holds (its CN is not looked at), or set sslmode=verify-ca",
        )
    } else if any(&["expired", "Expired"]) {
        of("has expired")
    } else if any(&["not valid yet", "NotValidYet"]) {
        of("is not valid yet")
    } else if any(&["does not support TLS"]) {
        ConnectionFailure::new("the server has no TLS, which sslmode asks for")
    } else {
        ConnectionFailure::new(format!("no TLS could be made ({text})"))
    }
}

fn of_refusal(refusal: &PgDatabaseError, target: &Target) -> ConnectionFailure {
    let (code, routine) = (refusal.code(), refusal.routine().unwrap_or_default());
    match code {
        "28P01" => ConnectionFailure::new("the password is not accepted"),
        "28000" if routine == "InitializeSessionUserId" => {
            ConnectionFailure::new("the role does not exist or may not log in")
        }
        "28000" if routine == "ClientAuthentication" => {
            ConnectionFailure::new("pg_hba.conf does not let this role in from here")
        }
        "3D000" => match target.options.get_database() {
            Some(database) => ConnectionFailure::new(format!("there is no database {database:?}")),
            None => ConnectionFailure::new("there is no database of the role's name"),
        },
        "42501" => ConnectionFailure::new(
            "the right to connect to the database, or to set what is set there, is missing",
        ),
        "53300" => {
            ConnectionFailure::new("too many connections (to the server, the database or of the role)")
                .with("allow more there, or take fewer with PG_MAX_CONNECTIONS")
                .crowded()
        }
        "42704" | "22023" | "55P02" => {
            ConnectionFailure::new(format!("a setting in the options of the DSN is refused ({code})"))
        }
        "08P01" => of_pooler(refusal.message(), target),
        // Fixed texts: starting up, shutting down, in recovery; closed for connections.
        _ if code.starts_with("57P") => ConnectionFailure::new(refusal.message()),
        "55000" => ConnectionFailure::new("the database is closed for connections"),
        _ => ConnectionFailure::new(format!("the login is refused ({code})")),
    }
}

/// `PgBouncer` tells what it dislikes in English, and up to version 1.19 always with this code.
fn of_pooler(text: &str, target: &Target) -> ConnectionFailure {
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if any(&["startup parameter"]) {
        ConnectionFailure::new("the pooler refuses what PGOPTIONS asks for")
            .with("unset it, and set what is needed in the options of the DSN")
    } else if any(&["no such database"]) {
        let database = target.options.get_database().unwrap_or_default();
        ConnectionFailure::new(format!("the pooler knows no database {database:?}"))
    } else if any(&["no such user", "authentication failed", "auth failed"]) {
        ConnectionFailure::new("the pooler does not accept the role or its password")
    } else if any(&["server_login_retry", "connect failed", "server conn", "server login failed"]) {
        ConnectionFailure::new("the pooler can't reach the server, or log in there")
    } else if any(&["no more connections", "client_idle", "query_wait_timeout"]) {
        ConnectionFailure::new("the pooler has no connection left").crowded()
    } else {
        ConnectionFailure::new("the login is refused (08P01)")
    }
}
