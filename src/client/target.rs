//! Where a service is, taken from its address.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

/// Where the service is.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
    /// What `Host` says.
    pub(super) authority: String,
    /// What comes before every path, without a slash at the end.
    pub(super) prefix: String,
    /// What `Authorization` says: a key, or user and password of the address.
    pub(super) authorization: Option<HeaderValue>,
}

impl Target {
    /// From the address of a service, `http://host:port` or `https://host`.
    pub fn new(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port_or_known_default().unwrap_or(80),
            tls: url.scheme() == "https",
            authority: url.authority().rsplit('@').next().unwrap_or(host).to_owned(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            authorization: authorization(url),
        }
    }

    /// The same for who has this key.
    #[must_use]
    pub fn with_key(self, key: &str) -> Self {
        Self { authorization: secret(&format!("Bearer {key}")), ..self }
    }
}

/// User and password of an address, for `Authorization`.
fn authorization(url: &Url) -> Option<HeaderValue> {
    let password = url.password();
    if url.username().is_empty() && password.is_none() {
        return None;
    }
    let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let pair = [plain(url.username()), plain(password.unwrap_or_default())].join(&b':');
    secret(&format!("Basic {}", STANDARD.encode(pair)))
}

/// A value that nothing prints.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An address as people write it, without what only the service shall know.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // These fail only for addresses without a host, which have no user either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (url, host, port, authority, prefix) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080", ""),
            ("http://food.example/api/", "food.example", 80, "food.example", "/api"),
            ("http://[::1]:90", "::1", 90, "[::1]:90", ""),
            ("https://food.example", "food.example", 443, "food.example", ""),
            ("https://tom:secret@food.example:1", "food.example", 1, "food.example:1", ""),
        ] {
            let target = Target::new(&url.parse().expect("an address"));
            let Target { host: h, port: p, authority: a, prefix: x, tls, .. } = &target;
            assert_eq!((h.as_str(), *p, a.as_str(), x.as_str()), (host, port, authority, prefix));
            assert_eq!(*tls, url.starts_with("https"));
        }
    }

    #[test]
    fn user_and_password_go_to_the_service_and_are_never_shown() {
        let of = |url: &str| {
            let url = url.parse().expect("an address");
            let value = Target::new(&url).authorization.map(|value| value.to_str().expect("text").to_owned());
            (value, shown(&url))
        };
        let basic = Some("Basic dG9tOmFAYg==".to_owned());
        assert_eq!(of("http://tom:a%40b@food.example/api/"), (basic, "http://food.example/api".to_owned()));
        let alone = Some("Basic dG9tOg==".to_owned());
        assert_eq!(of("http://tom@food.example"), (alone, "http://food.example".to_owned()));
        assert_eq!(of("http://food.example"), (None, "http://food.example".to_owned()));
    }

    #[test]
    fn a_key_goes_to_the_service_and_is_never_shown() {
        let target = Target::new(&"http://food.example".parse().expect("an address")).with_key("otk_x");
        assert_eq!(target.authorization.as_ref().expect("a value"), "Bearer otk_x");
        assert!(!format!("{target:?}").contains("otk_x"), "{target:?}");
    }
}
