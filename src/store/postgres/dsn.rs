//! `PG_DSN`: what it may say, and where it may stand.
//!
//! Nothing of it is ever repeated in a message: where a character is not %-encoded that must be, host, database
//! and parameters may be parts of the password. What is not followed is refused.

use std::{
    borrow::Cow,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use url::Url;

use super::parameters::Parameters;

/// The address of a database, `postgres://user:password@host:port/database`; never shown.
#[derive(Clone)]
pub struct PgDsn {
    target: Target,
    /// Where it was read, and is read again when the server that it names does not answer.
    file: Option<PathBuf>,
}

/// Where to connect, and what to set there first.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) options: PgConnectOptions,
    /// Settings of the session, from the parameter `options`.
    pub(super) settings: Vec<(String, String)>,
    /// Whether it is to show a certificate of its own.
    identified: bool,
    /// As it was written, to tell whether it has changed.
    text: String,
}

impl fmt::Debug for PgDsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.target.options.get_database().unwrap_or_default();
        write!(f, "postgres://***@{}/{database}", self.target.host())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host())
    }
}

impl Target {
    /// `host:port`, or the folder of its socket.
    pub(super) fn host(&self) -> String {
        match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None if self.options.get_host().contains(':') => {
                format!("[{}]:{}", self.options.get_host(), self.options.get_port())
            }
            None => format!("{}:{}", self.options.get_host(), self.options.get_port()),
        }
    }

    /// Whether TLS is asked for, if at all, against those who only listen.
    pub(super) fn encrypts_only(&self) -> bool {
        matches!(self.options.get_ssl_mode(), PgSslMode::Prefer | PgSslMode::Require) && !self.identified
    }

    pub(super) fn is_local(&self) -> bool {
        self.options.get_socket().is_some() || self.options.get_host().starts_with('/')
    }
}

/// The text is no address of a database that can be followed; tells nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseDsnError(Cow<'static, str>);

impl ParseDsnError {
    /// With a sentence that holds nothing of what was given.
    pub(super) fn new(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(sentence.into())
    }
}

const FORM: &str =
    "must be postgres://user:password@host:port/database, special characters in the password %-encoded";
pub(super) const ENCODE: &str = "user, password and database must be %-encoded, and hold a character that is not: \
                      write %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %, %20 for a space";
const ONE_HOST: &str = "must name one host: a name or a balancer that leads to the server that writes";

pub(super) fn wrong<T>(sentence: &'static str) -> Result<T, ParseDsnError> {
    Err(ParseDsnError::new(sentence))
}

impl FromStr for PgDsn {
    type Err = ParseDsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { target: text.parse()?, file: None })
    }
}

impl PgDsn {
    /// Reads a DSN that stands alone in a file.
    pub fn from_file(file: &Path) -> Result<Self, ParseDsnError> {
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
        Ok(Self { target: alone(&text).parse()?, file: Some(file.to_owned()) })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Where it was read, if in a file.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

#[cfg(test)]
impl From<PgConnectOptions> for PgDsn {
    fn from(options: PgConnectOptions) -> Self {
        let (settings, identified, text) = (Vec::new(), false, String::new());
        let options = options.extra_float_digits(None);
        Self { target: Target { options, settings, identified, text }, file: None }
    }
}

/// Without the end of the line that editors and secret stores put there.
fn alone(text: &str) -> &str {
    text.trim_end_matches(['\n', '\r'])
}

fn unreadable(error: &io::Error) -> ParseDsnError {
    ParseDsnError::new(format!("the file can't be read: {error}"))
}

/// What the file says now, if that differs from `known`.
pub(super) async fn changed(file: &Path, known: &Target) -> Result<Option<Target>, ParseDsnError> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| unreadable(&error))?;
    let text = alone(&text);
    if text == known.text { Ok(None) } else { text.parse().map(Some) }
}

impl FromStr for Target {
    type Err = ParseDsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let schemes = ["postgres://", "postgresql://"];
        let Some(rest) = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
            return wrong(FORM);
        };
        if is_unencoded(rest) {
            return wrong(ENCODE);
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.rsplit('@').next().is_some_and(|host| host.contains(',')) {
            return wrong(ONE_HOST);
        }
        let mut url = Url::parse(text).or_else(|_| wrong(FORM))?;
        let Parameters { followed, settings, checked, identified } = Parameters::read(&url)?;
        url.set_query(None);
        if !followed.is_empty() {
            url.query_pairs_mut().extend_pairs(followed);
        }
        let options = PgConnectOptions::from_url(&url).or_else(|_| wrong(FORM))?;
        if options.get_host().contains(',') {
            return wrong(ONE_HOST);
        }
        // An address of IPv6 stands in brackets in a URL only.
        let host = options.get_host().trim_matches(['[', ']']).to_owned();
        let ssl_mode = mode(options.get_ssl_mode(), checked);
        // What poolers refuse to be told at the start of a session is set later, or not needed.
        let options = options.host(&host).ssl_mode(ssl_mode).extra_float_digits(None);
        Ok(Self { options, settings, identified, text: text.to_owned() })
    }
}

/// As the server's own library reads it: a CA that is named is asked wherever TLS is a must.
fn mode(given: PgSslMode, ca_is_named: bool) -> PgSslMode {
    match given {
        PgSslMode::Require if ca_is_named => PgSslMode::VerifyCa,
        // Encrypted if the server can; the client knows no second try.
        PgSslMode::Allow => PgSslMode::Prefer,
        given => given,
    }
}

/// Whether there is a character that only a part that was not %-encoded can have brought there.
fn is_unencoded(rest: &str) -> bool {
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = before.split_once('/').map_or("", |(_, path)| path);
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = rest.as_bytes();
    let bare = |at: usize| bytes[at] == b'%' && !(hex(bytes.get(at + 1)) && hex(bytes.get(at + 2)));
    path.contains('@')
        || rest.contains('#')
        || before.contains(char::is_whitespace)
        || rest.contains(char::is_control)
        || (0..bytes.len()).any(bare)
        // A password that was cut at its question mark.
        || query.split(['=', '&']).next().is_some_and(|name| name.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<PgDsn>().expect_err(text).to_string()
    }

    #[test]
    fn a_dsn_is_read_and_its_password_hidden() {
        for (text, shown) in [
            ("postgres://me:s3cret@db:5433/food", "postgres://***@db:5433/food"),
            ("postgresql://me:p%40%2F%3F%23s@db/food", "postgres://***@db:5432/food"),
            ("postgres://me@[::1]:5433/food", "postgres://***@[::1]:5433/food"),
            ("postgres:///food?host=/run/pg&user=me@tenant", "postgres://***@/run/pg/food"),
            ("postgres://%2Frun%2Fpg/food", "postgres://***@/run/pg/food"),
        ] {
            let dsn: PgDsn = text.parse().expect(text);
            assert_eq!(format!("{dsn:?}"), shown);
        }
    }

    #[test]
    fn what_can_only_be_a_password_that_is_not_encoded_is_refused() {
        for text in [
            "postgres://me:12/34@db:5432/food",
            "postgres://me:se@cr/et@db:5432/food",
            "postgres://me:12?cret@db/food",
            "postgres://me:12?a=cret@db/food",
            "postgres://me:se#cret@db/food",
            "postgres://me:123#cret@db/food",
            "postgres://me:se%cret@db/food",
            "postgres://me:se cret@db/food",
            "postgres://me:s@db/food#1",
        ] {
            assert_eq!(refusal(text), ENCODE, "{text}");
        }
        for text in ["postgres://me@one:5432,other:5432/food", "postgres:///food?host=one,other"] {
            assert_eq!(refusal(text), ONE_HOST, "{text}");
        }
        for text in ["", "db:5432", "mysql://me@db/food", "postgres://me@db:port/food", "host=db user=me"] {
            assert_eq!(refusal(text), FORM, "{text}");
        }
    }

    #[test]
    fn a_ca_that_is_named_is_asked() {
        let mode = |parameters: &str| {
            let dsn: PgDsn = format!("postgres://me@db/food?{parameters}").parse().expect(parameters);
            dsn.target.options.get_ssl_mode()
        };
        assert!(matches!(mode("sslmode=require"), PgSslMode::Require));
        assert!(matches!(mode("sslmode=require&sslrootcert=ca.pem"), PgSslMode::VerifyCa));
        assert!(matches!(mode("sslrootcert=ca.pem"), PgSslMode::Prefer));
        assert!(matches!(mode("sslmode=allow"), PgSslMode::Prefer));
        assert!(matches!(mode("sslmode=verify-full&sslrootcert=system"), PgSslMode::VerifyFull));
    }

    #[tokio::test]
    async fn a_file_is_read_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("dsn");
        assert!(PgDsn::from_file(&file).expect_err("not there").to_string().contains("can't be read"));
        std::fs::write(&file, "postgres://me:one@db/food\n").expect("writes");
        let dsn = PgDsn::from_file(&file).expect("a DSN and the end of its line");
        assert!(changed(&file, &dsn.target).await.expect("reads").is_none());
        for nothing in ["postgres://me:t/wo@db/food", ""] {
            std::fs::write(&file, nothing).expect("writes");
            changed(&file, &dsn.target).await.expect_err("can't be followed");
        }
        std::fs::write(&file, "postgres://me:two@other/food\r\n").expect("writes");
        let rotated = changed(&file, &dsn.target).await.expect("reads").expect("changed");
        assert_eq!(rotated.host(), "other:5432");
    }
}
