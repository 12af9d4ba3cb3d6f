//! The parameters of `PG_DSN`: each is followed, or refused.

use sqlx::postgres::PgSslMode;
use url::Url;

use super::{
    dsn::{ENCODE, ParseDsnError, wrong},
    session::OURS,
};

const PARAMETERS: &str = "has a parameter that is not followed; these are: host, hostaddr, port, user, password, dbname, \
                          sslmode, sslrootcert, sslcert, sslkey, options, connect_timeout, target_session_attrs";
const SCHEMA: &str = "names a schema in a way that is not followed: write options=-csearch_path%3DNAME";
const NAME: &str = "must not set application_name: replicas know each other by it";
const SSLMODE: &str = "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full";
const PGSSLMODE: &str = "PGSSLMODE, which stands beside it, must be one of disable, allow, prefer, require, verify-ca, verify-full";
const SYSTEM: &str = "sslrootcert=system needs sslmode=verify-full";
const BINDING: &str =
    "channel_binding=require can't be followed: take it out (sslmode=verify-full guards against the same)";
const STANDBY: &str = "target_session_attrs must be read-write, primary or any";
const OPTIONS: &str = "options must be -c NAME=VALUE, separated by spaces (%20)";

/// The part behind the question mark.
pub(super) struct Parameters {
    /// What the client library follows.
    pub(super) followed: Vec<(String, String)>,
    /// What is set in each session.
    pub(super) settings: Vec<(String, String)>,
    /// Whether a CA is named.
    pub(super) checked: bool,
    /// Whether a certificate of our own is.
    pub(super) identified: bool,
}

impl Parameters {
    pub(super) fn read(url: &Url) -> Result<Self, ParseDsnError> {
        let (checked, identified) = (named_by("PGSSLROOTCERT"), named_by("PGSSLCERT"));
        let mut read = Self { followed: Vec::new(), settings: Vec::new(), checked, identified };
        let unencoded = url.query().is_some_and(|query| query.contains('@'));
        let mut system = false;
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslrootcert" if value == "system" => system = true,
                "sslmode" | "ssl-mode" if value.parse::<PgSslMode>().is_err() => return wrong(SSLMODE),
                "host"
                | "hostaddr"
                | "port"
                | "user"
                | "password"
                | "dbname"
                | "sslmode"
                | "ssl-mode"
                | "sslrootcert"
                | "ssl-root-cert"
                | "ssl-ca"
                | "sslcert"
                | "ssl-cert"
                | "sslkey"
                | "ssl-key"
                | "statement-cache-capacity" => {
                    read.checked |= matches!(&*name, "sslrootcert" | "ssl-root-cert" | "ssl-ca");
                    read.identified |= matches!(&*name, "sslcert" | "ssl-cert");
                    read.followed.push((name.into_owned(), value.into_owned()));
                }
                "options" => read.settings.extend(settings(&value)?),
                name if name.starts_with("options[") && name.ends_with(']') => {
                    read.settings.push(setting(&name["options[".len()..name.len() - 1], &value)?);
                }
                // We give up sooner than anybody asks for.
                "connect_timeout" if value.parse::<u32>().is_ok() => {}
                "target_session_attrs" if ["any", "read-write", "primary"].contains(&&*value) => {}
                "target_session_attrs" => return wrong(STANDBY),
                "channel_binding" if ["disable", "prefer"].contains(&&*value) => {}
                "channel_binding" => return wrong(BINDING),
                "schema" | "currentSchema" | "search_path" => return wrong(SCHEMA),
                "application_name" | "fallback_application_name" => return wrong(NAME),
                _ => return wrong(if unencoded { ENCODE } else { PARAMETERS }),
            }
        }
        let given = std::env::var("PGSSLMODE").unwrap_or_default();
        if !given.is_empty() && given.parse::<PgSslMode>().is_err() {
            return wrong(PGSSLMODE);
        }
        if system && !read.followed.iter().any(|(name, mode)| name == "sslmode" && mode == "verify-full") {
            return wrong(SYSTEM);
        }
        Ok(read)
    }
}

fn named_by(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|file| !file.is_empty())
}

/// `-c name=value --name=value`, as the server's own library takes it: a backslash keeps a space together.
fn settings(options: &str) -> Result<Vec<(String, String)>, ParseDsnError> {
    let (mut words, mut chars, mut word) = (Vec::new(), options.chars(), String::new());
    while let Some(char) = chars.next() {
        match char {
            '\\' => word.extend(chars.next()),
            char if char.is_whitespace() => words.push(std::mem::take(&mut word)),
            char => word.push(char),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    let (mut settings, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("-c").or_else(|| word.strip_prefix("--")) {
            Some("") => words.next().unwrap_or_default(),
            Some(pair) => pair.to_owned(),
            None => return wrong(OPTIONS),
        };
        let Some((name, value)) = pair.split_once('=') else { return wrong(OPTIONS) };
        settings.push(setting(&name.replace('-', "_"), value)?);
    }
    Ok(settings)
}

fn setting(name: &str, value: &str) -> Result<(String, String), ParseDsnError> {
    if let Some(ours) = OURS.iter().find(|ours| ours.eq_ignore_ascii_case(name)) {
        return Err(ParseDsnError::new(format!("options must not set {ours}, the service does")));
    }
    let named = !name.is_empty() && name.chars().all(|char| char.is_alphanumeric() || "_.".contains(char));
    if named { Ok((name.to_owned(), value.to_owned())) } else { wrong(OPTIONS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &str) -> Result<Parameters, ParseDsnError> {
        Parameters::read(&Url::parse(&format!("postgres://me@db/food?{parameters}")).expect("a URL"))
    }

    #[test]
    fn a_parameter_is_followed_or_refused() {
        for (parameter, sentence) in [
            ("schema=food", SCHEMA),
            ("currentSchema=food", SCHEMA),
            ("sslmod=require", PARAMETERS),
            ("password=a&b=c", PARAMETERS),
            ("password=a&b@c=d", ENCODE),
            ("sslmode=sure", SSLMODE),
            ("application_name=me", NAME),
            ("sslrootcert=system&sslmode=require", SYSTEM),
            ("channel_binding=require", BINDING),
            ("target_session_attrs=standby", STANDBY),
            ("options=-csearch_path", OPTIONS),
            ("options=food", OPTIONS),
            (
                "options=-c%20Statement_Timeout%3D0",
                "options must not set statement_timeout, the service does",
            ),
        ] {
            assert_eq!(read(parameter).err().expect(parameter).to_string(), sentence, "{parameter}");
        }
        for parameter in ["connect_timeout=10", "target_session_attrs=read-write", "channel_binding=prefer"] {
            assert!(read(parameter).expect(parameter).followed.is_empty(), "{parameter}");
        }
        let followed = read("sslmode=require&user=me@tenant").expect("followed").followed;
        assert_eq!(followed.len(), 2, "{followed:?}");
    }

    #[test]
    fn options_are_read_as_the_library_of_the_server_does() {
        let text = "options=-c%20search_path%3Da,b%20--work-mem%3D8MB%20-crole%3Dx%5C%20y&options[geqo]=off";
        let settings = read(text).expect("options").settings;
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(
            settings.collect::<Vec<_>>(),
            [("search_path", "a,b"), ("work_mem", "8MB"), ("role", "x y"), ("geqo", "off")]
        );
    }
}
