//! TLS: whom to trust, and what is said where there is no trust.
//!
//! The system's certificates, or those that `SSL_CERT_FILE` or `SSL_CERT_DIR` name in their place (a CA of one's own); where the
//! system has none, as in an image with nothing in it, those of Mozilla.

use std::{
    io,
    sync::{Arc, LazyLock},
};

use rustls::{ClientConfig, Error, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::ClientError;

/// What names certificates in place of the system's.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Read once: a few hundred certificates.
static CONNECTOR: LazyLock<Result<TlsConnector, String>> = LazyLock::new(|| {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots()?).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
});

fn roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let named = VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some());
        if let Some(name) = named {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!("{name} names no certificate{why}"));
        }
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// Speaks TLS with who took the call.
pub(super) async fn secure(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, ClientError> {
    let connector = CONNECTOR.as_ref().map_err(|error| ClientError::Tls(error.clone()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| ClientError::Tls(error.to_string()))?;
    connector.connect(name, stream).await.map_err(|error| explained(&error))
}

fn explained(error: &io::Error) -> ClientError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => ClientError::Tls("what answers does not speak TLS".to_owned()),
        Some(error @ Error::InvalidCertificate(_)) => {
            ClientError::Tls(format!("{error}; SSL_CERT_FILE can name the certificates to trust"))
        }
        Some(error) => ClientError::Tls(error.to_string()),
        None => ClientError::Lost,
    }
}
