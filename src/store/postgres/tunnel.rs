//! TLS in place of the driver's, for a server whose certificate that can't read.
//!
//! Where `sslmode` asks for no check the driver's library still reads the certificate, and takes none of X.509
//! version 1; here nothing of it is read. The driver lets nobody hand it a connection, so it gets an address in
//! this process, good for one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sqlx::{
    ConnectOptions as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::session::WITHIN;

/// What asks a server for TLS: <https://www.postgresql.org/docs/current/protocol-message-formats.html>
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

static CONNECTOR: LazyLock<TlsConnector> = LazyLock::new(|| {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows them");
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(NobodyAsks));
    TlsConnector::from(Arc::new(config.with_no_client_auth()))
});

/// Begins a session that is encrypted and checks nothing.
pub(super) async fn log_in(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let address = open(options.get_host(), options.get_port()).await?;
    let options = options.clone().host(&address.ip().to_string()).port(address.port());
    options.ssl_mode(PgSslMode::Disable).connect().await
}

async fn open(host: &str, port: u16) -> sqlx::Result<SocketAddr> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| sqlx::Error::Tls(error.into()))?;
    let mut server = TcpStream::connect((host, port)).await?;
    server.set_nodelay(true)?;
    server.write_all(&SSL_REQUEST).await?;
    if server.read_u8().await? != b'S' {
        return Err(sqlx::Error::Tls("server does not support TLS".into()));
    }
    let server = CONNECTOR.connect(name, server).await?;
    let ours = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = ours.local_addr()?;
    tokio::spawn(carry(ours, server));
    Ok(address)
}

/// Until either side ends: nobody waits for a server that has gone silent.
async fn carry(ours: TcpListener, server: TlsStream<TcpStream>) {
    let Ok(Ok((mut driver, _))) = timeout(WITHIN, ours.accept()).await else { return };
    drop(ours);
    // Only slower without.
    drop(driver.set_nodelay(true));
    let (mut asked, mut answered) = driver.split();
    let (mut from, mut to) = split(server);
    tokio::select! {
        _ = copy(&mut asked, &mut to) => {}
        _ = copy(&mut from, &mut answered) => {}
    }
}

/// Takes every certificate, and every signature by it.
#[derive(Debug)]
struct NobodyAsks;

impl ServerCertVerifier for NobodyAsks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::{
        ServerConfig,
        pki_types::PrivateKeyDer,
        sign::{CertifiedKey, SingleCertAndKey},
    };
    use tokio_rustls::TlsAcceptor;

    use super::{
        super::session::{Access, Purpose},
        *,
    };

    /// What stands one after the other, each with its tag.
    fn elements(mut der: &[u8]) -> Vec<(u8, &[u8])> {
        let mut found = Vec::new();
        while let [tag, length, rest @ ..] = der {
            let (length, rest) = match length {
                0x81 => (usize::from(rest[0]), &rest[1..]),
                0x82 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                short => (usize::from(*short), rest),
            };
            found.push((*tag, &rest[..length]));
            der = &rest[length..];
        }
        found
    }

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).expect("short").to_be_bytes();
        let head = match (high, low) {
            (0, 0..=0x7f) => vec![tag, low],
            (0, _) => vec![tag, 0x81, low],
            _ => vec![tag, 0x82, high, low],
        };
        [&head[..], content].concat()
    }

    /// As version 1 has it: no version and no extensions. Its signature fits no more.
    fn as_version_1(certificate: &[u8]) -> Vec<u8> {
        let whole = elements(elements(certificate)[0].1);
        let signed = elements(whole[0].1).into_iter().filter(|(tag, _)| ![0xa0, 0xa3].contains(tag));
        let signed: Vec<u8> = signed.flat_map(|(tag, content)| element(tag, content)).collect();
        let rest = whole[1..].iter().flat_map(|(tag, content)| element(*tag, content));
        element(0x30, &element(0x30, &signed).into_iter().chain(rest).collect::<Vec<_>>())
    }

    fn acceptor() -> TlsAcceptor {
        let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let key = ring::sign::any_supported_type(&key).expect("a key that signs");
        let certificate = CertificateDer::from(as_version_1(made.cert.der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key))));
        TlsAcceptor::from(Arc::new(config))
    }

    /// Answers who gets so far that the password is wrong.
    async fn server() -> SocketAddr {
        let (listener, tls) = (TcpListener::bind("127.0.0.1:0").await.expect("listens"), acceptor());
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.read_exact(&mut [0; 8]).await.expect("asks for TLS");
                stream.write_all(b"S").await.expect("may have it");
                let Ok(mut stream) = tls.accept(stream).await else { continue };
                let length = stream.read_u32().await.expect("a first message");
                let mut message = vec![0; usize::try_from(length).expect("short") - 4];
                stream.read_exact(&mut message).await.expect("all of it");
                let fields = b"SFATAL\0VFATAL\0C28P01\0Mwrong\0\0";
                stream.write_all(&refused(fields)).await.expect("an answer");
                stream.shutdown().await.expect("ends");
            }
        });
        address
    }

    fn refused(fields: &[u8]) -> Vec<u8> {
        let length = u32::try_from(fields.len() + 4).expect("short").to_be_bytes();
        [b"E", &length[..], fields].concat()
    }

    /// Modes that check nothing do not judge; those that do say what helps.
    #[tokio::test]
    async fn a_certificate_of_version_1_is_a_matter_of_modes_that_check() {
        let address = server().await;
        let refusal = async |parameters: &str| {
            let dsn = format!("postgres://me:secret@{address}/food?{parameters}").parse().expect("a DSN");
            let access = Access::new(&dsn, 1);
            let refused = access.session(Purpose::Calls, Duration::from_secs(5)).await;
            access.refusal(&refused.expect_err("no session")).to_string()
        };
        for parameters in ["", "sslmode=prefer", "sslmode=require"] {
            let told = refusal(parameters).await;
            let place = format!("the password is not accepted, {address} (PG_DSN)");
            assert!(told.contains(&place), "{parameters}: {told}");
        }
        for parameters in ["sslmode=verify-ca", "sslmode=verify-full"] {
            let told = refusal(parameters).await;
            assert!(told.contains("is of X.509 version 1, which can't be checked"), "{parameters}: {told}");
            assert!(told.contains("make one of version 3"), "{parameters}: {told}");
        }
    }
}
