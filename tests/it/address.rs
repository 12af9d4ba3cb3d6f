//! Where commands send what they are given, and whom they trust.

use std::{path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    cli::{complaint, run},
    double::{Double, answer, json as answered},
    harness::{Service, folder},
};

const ID: &str = "ORD-01ARZ3NDEK0000000000000000";
const CREATE: [&str; 8] =
    ["order", "create", "--customer-name", "Ada", "--address", "1 High St", "--item", "pizza"];

/// Nothing goes where a redirect leads: it would take name, address and key along.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_redirect_is_refused_and_told() {
    let elsewhere = Double::start(vec![answered(&json!([]))]).await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("location: {}/orders?secret=1", elsewhere.url);
        let service = Double::start(vec![answer(status, &[&location], "")]).await;
        let keyed = [&CREATE[..], &["--idempotency-key", "k"]].concat();
        for command in [&keyed[..], &["order", "list"], &["order", "get", ID], &["order", "watch", ID]] {
            let line = complaint(command, &[("ORDER_TRACKER_URL", &service.url)], 1).await;
            let expected = format!(
                "order-tracker: {} answered {status}, a redirect to {}, which is not followed: \
                 --url or ORDER_TRACKER_URL says where the service listens",
                service.url, elsewhere.url
            );
            assert_eq!(line, expected);
        }
        assert_eq!(service.asked().len(), 4);
        let counted =
            run(&["simulate", "--count", "2", "--concurrency", "1", "--url", &service.url], &[]).await;
        assert!(String::from_utf8_lossy(&counted.stdout).contains(status), "{counted:?}");
    }
    assert_eq!(elsewhere.asked(), Vec::<String>::new());
}

/// A password in the address goes to the service and to no screen.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn a_password_in_the_address_is_never_shown() {
    let with = |url: &str| url.replace("http://", "http://tom:hunter2@");
    let good = Double::start(vec![answered(&json!([]))]).await;
    let listed = run(&["order", "list", "--json", "--url", &with(&good.url)], &[]).await;
    assert_eq!((listed.status.code(), listed.stdout.as_slice()), (Some(0), &b"[]\n"[..]));
    assert!(good.asked()[0].contains("authorization: Basic dG9tOmh1bnRlcjI="), "{:?}", good.asked());

    let moved =
        Double::start(vec![answer("302 Found", &["location: http://tim:hunter2@127.0.0.1:9/"], "")]).await;
    let strange = Double::start(vec![answer("200 OK", &[], "hi")]).await;
    let failing = Double::start(vec![answer("500 Oops", &[], "hi")]).await;
    let garbage = Double::start(vec!["no HTTP at all\r\n\r\n".to_owned()]).await;
    let urls = [
        &with(&moved.url),
        &with(&strange.url),
        &with(&failing.url),
        &with(&garbage.url),
        "http://tom:hunter2@127.0.0.1:9",
        "https://tom:hunter2@127.0.0.1:9",
        "ftp://tom:hunter2@x",
        "http://tom:hunter2@",
        "tom:hunter2@x",
        "http://tom:hunter2@x/?a",
    ];
    for url in urls {
        for command in [
            &["order", "list"][..],
            &["order", "watch", ID],
            &["simulate", "--count", "1", "--json"],
            &["order", "list", "--json"],
        ] {
            for (arguments, settings) in [
                ([command, &["--url", url]].concat(), vec![]),
                (command.to_vec(), vec![("ORDER_TRACKER_URL", url)]),
            ] {
                let told = run(&arguments, &settings).await;
                let all = [told.stdout, told.stderr].concat();
                let all = String::from_utf8_lossy(&all);
                assert!(!all.contains("hunter2") && !all.is_empty(), "{arguments:?}: {all}");
            }
        }
    }
    let stray = run(
        &["order", "list", "http://tom:hunter2@x/", "--help"],
        &[("ORDER_TRACKER_URL", &with(&good.url))],
    )
    .await;
    assert!(!String::from_utf8_lossy(&stray.stdout).contains("hunter2"));
    let stray = run(&["order", "list", "http://tom:hunter2@x/"], &[]).await;
    assert!(!String::from_utf8_lossy(&stray.stderr).contains("hunter2"), "{stray:?}");
}

/// A service behind TLS, whose certificate is signed by an authority of its own.
struct Secured {
    url: String,
    /// The authority's certificate, and one of another.
    authority: PathBuf,
    other: PathBuf,
    _folder: TempDir,
}

impl Secured {
    async fn before(service: &Service) -> Self {
        let folder = folder();
        let ((authority, trusted), (_, other)) = (authority("ours"), authority("theirs"));
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let key = KeyPair::generate().expect("a key");
        let names =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        let certificate = names.signed_by(&key, &authority).expect("signed");
        let secret = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        tokio::spawn(forward(listener, TlsAcceptor::from(Arc::new(config)), service.address().to_owned()));
        let (authority, other) = (write("authority.pem", trusted), write("other.pem", other));
        Self { url, authority, other, _folder: folder }
    }
}

/// An authority, and its certificate for those who shall trust it.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("signed");
    (Issuer::new(params, key), certificate.pem())
}

/// Takes the TLS away.
async fn forward(listener: TcpListener, acceptor: TlsAcceptor, to: String) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, to) = (acceptor.clone(), to.clone());
        tokio::spawn(async move {
            let mut near = acceptor.accept(stream).await.ok()?;
            let mut far = TcpStream::connect(to).await.ok()?;
            copy_bidirectional(&mut near, &mut far).await.ok()
        });
    }
}

/// Every command that asks a service, over TLS, trusting an authority of one's own.
#[tokio::test]
async fn https_works_with_an_authority_of_ones_own() {
    let service = Service::start(&[("STAGE_DELAYS", "0s")]).await;
    let secured = Secured::before(&service).await;
    let trust = [
        ("SSL_CERT_FILE", secured.authority.to_str().expect("text")),
        ("ORDER_TRACKER_URL", secured.url.as_str()),
    ];
    let said = async |arguments: &[&str]| {
        let output = run(arguments, &trust).await;
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{arguments:?}"
        );
        String::from_utf8(output.stdout).expect("text")
    };
    let id = said(&CREATE).await;
    let id = id.trim();
    assert!(said(&["order", "watch", id]).await.contains("DELIVERED"));
    assert!(said(&["order", "get", id]).await.contains("DELIVERED"));
    assert!(said(&["order", "list"]).await.contains(id));
    assert!(
        said(&["simulate", "--count", "3", "--concurrency", "2", "--wait"])
            .await
            .contains("3 orders delivered")
    );
    service.stop().await;
}

/// Who can't be trusted is told so, and gets nothing.
///
/// Promise 6: it says what is wrong.
#[tokio::test]
async fn who_is_not_trusted_is_told_why() {
    let service = Service::start(&[]).await;
    let secured = Secured::before(&service).await;
    let plain = service.url.replace("http://", "https://");
    let said = async |file: &str, url: &str| {
        let (mut lines, settings) = (Vec::new(), [("SSL_CERT_FILE", file), ("ORDER_TRACKER_URL", url)]);
        for command in
            [&CREATE[..], &["order", "list"], &["order", "watch", ID], &["simulate", "--count", "1"]]
        {
            lines.push(complaint(command, &settings, 1).await);
        }
        assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
        lines.swap_remove(0)
    };
    let (authority, other) =
        (secured.authority.to_str().expect("text"), secured.other.to_str().expect("text"));
    let line = said(other, &secured.url).await;
    let expected = format!(
        "order-tracker: no trust in {}: invalid peer certificate: UnknownIssuer; SSL_CERT_FILE can name the certificates to trust",
        secured.url
    );
    assert_eq!(line, expected);
    let line = said("/nowhere/at-all.pem", &secured.url).await;
    assert!(
        line.contains("SSL_CERT_FILE names no certificate") && line.contains("/nowhere/at-all.pem"),
        "{line}"
    );
    let line = said(authority, &plain).await;
    assert_eq!(line, format!("order-tracker: no trust in {plain}: what answers does not speak TLS"));
    let line = complaint(&["order", "list", "--url", &secured.url.replace("https", "http")], &[], 1).await;
    assert!(line.ends_with("is this an order-tracker?") || line.contains("(connection lost)"), "{line}");
    assert_eq!(service.json("/orders").await, json!([]), "nothing of this got there");
    service.stop().await;
}
