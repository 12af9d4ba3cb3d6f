//! Who may not, can't: every route, every role, and every way to have no key that is good.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, StatusCode},
    response::Response,
};
use tower::ServiceExt as _;

use super::{
    Answer, Api, clock, order,
    service::{Database, Keys, Service, on_both_databases},
};
use crate::{
    http::{api::openapi::Surface, routes},
    keys::{ApiKey, KeyRing, Session},
    order::Role::{self, Admin, Courier, Kitchen, Reader, Shop, Staff},
    time::Clock as _,
};

on_both_databases!(
    every_route_is_for_the_roles_of_the_contract,
    a_revoked_key_opens_nothing,
    what_is_no_route_needs_no_key,
);

/// The contract's table, route by route.
pub(super) const FOR: [(&str, &str, &[Role]); 12] = [
    ("POST", "/orders", &[Shop, Staff, Admin]),
    ("GET", "/orders", &[Shop, Kitchen, Reader, Staff, Admin]),
    ("GET", "/orders/{id}", &Role::ALL),
    ("GET", "/orders/{id}/events", &Role::ALL),
    ("POST", "/orders/{id}/events", &[Shop, Kitchen, Courier, Staff, Admin]),
    ("GET", "/orders/{id}/explain", &[Staff, Admin]),
    ("GET", "/events", &[Reader, Staff, Admin]),
    ("POST", "/events", &[Shop, Kitchen, Courier, Staff, Admin]),
    ("GET", "/metrics", &[Staff, Admin]),
    ("GET", "/", &[Shop, Kitchen, Reader, Staff, Admin]),
    ("POST", "/demo-orders", &[Shop, Staff, Admin]),
    ("POST", "/report", &[Shop, Kitchen, Courier, Staff, Admin]),
];

/// What answers everybody: health, documents, the customer's page, the way in, and what pages load.
pub(super) const FOR_EVERYBODY: [(&str, &str); 16] = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/style.css"),
    ("GET", "/track/{id}"),
    ("GET", "/track/{id}/"),
    ("GET", "/track/{id}/events"),
    ("GET", "/track/{id}/cancel"),
    ("POST", "/track/{id}/cancel"),
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
    ("POST", "/sign-out"),
    ("GET", "/assets/{version}/{name}"),
    ("GET", "/robots.txt"),
    ("GET", "/favicon.ico"),
];

/// Everything that the router serves where keys are asked for.
pub(super) fn routed() -> BTreeSet<(String, String)> {
    let mut routed = BTreeSet::new();
    let surface = Surface { keys: true, ..Surface::DEFAULT };
    drop(routes::routes(surface, |route, method, _| {
        routed.insert((method.to_owned(), route.to_owned()));
    }));
    routed
}

/// Whose it is; `None`: everybody's.
fn whose(method: &str, route: &str) -> Option<&'static [Role]> {
    let line = FOR.iter().find(|(of, at, _)| (*of, *at) == (method, route));
    let open = FOR_EVERYBODY.contains(&(method, route));
    assert!(line.is_some() != open, "{method} {route} must be somebody's or everybody's");
    line.map(|(_, _, roles)| *roles)
}

fn is_page(route: &str) -> bool {
    ["/", "/demo-orders", "/report"].contains(&route)
}

/// A service that asks for keys, one order, and a key of each role.
struct Guarded {
    api: Api,
    keys: Keys,
    order_id: String,
}

impl Guarded {
    async fn open(service: Service) -> Self {
        let keys = Keys::of_all_roles();
        let api = service.asking_for(&keys).open().await;
        let shop = keys.bearer(Shop);
        let placed = api.send_json("/orders", &[("authorization", &shop)], &order("Ada")).await;
        let order_id = placed.json()["order_id"].as_str().expect("an id").to_owned();
        Self { api, keys, order_id }
    }

    /// The beginning of what is answered; a stream has no end.
    async fn ask(&self, method: &str, route: &str, authorization: Option<&str>) -> Response {
        let path =
            route.replace("{id}", &self.order_id).replace("{version}", "0").replace("{name}", "no.css");
        let mut request = Request::builder().method(method).uri(path);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(Body::empty()).expect("valid");
        self.api.router.clone().oneshot(request).await.expect("never fails")
    }

    async fn status(&self, method: &str, route: &str, authorization: Option<&str>) -> StatusCode {
        self.ask(method, route, authorization).await.status()
    }

    async fn refused(&self, method: &str, route: &str, authorization: Option<&str>, status: u16, code: &str) {
        let answer = Answer::of(self.ask(method, route, authorization).await).await;
        assert_eq!(answer.status, status, "{method} {route} {code}");
        let challenged = answer.headers.contains_key("www-authenticate");
        assert_eq!(challenged, status == 401, "{method} {route} {code}");
        if !is_page(route) && method != "HEAD" {
            assert_eq!(answer.problem(status).0, code, "{method} {route}");
        }
    }
}

/// What is sent by somebody whose key is not good, and never was.
fn no_good() -> [String; 3] {
    let key = ApiKey::random(&mut rand::rng());
    let mistyped = key.reveal().replace("otk_", "otk_x");
    ["Bearer nonsense".to_owned(), format!("Bearer {mistyped}"), format!("Bearer {}", key.reveal())]
}

/// Promise 9: who may not, can't. A route that is added without a need fails here.
async fn every_route_is_for_the_roles_of_the_contract(service: Service) {
    let guarded = Guarded::open(service).await;
    let routed = routed();
    assert_eq!(routed.len(), FOR.len() + FOR_EVERYBODY.len(), "{routed:?}");
    for (method, route) in &routed {
        let Some(roles) = whose(method, route) else {
            let status = guarded.status(method, route, None).await;
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {route}");
            let others = no_good().into_iter().chain(Role::ALL.map(|role| guarded.keys.bearer(role)));
            for other in others {
                let answered = guarded.status(method, route, Some(&other)).await;
                assert_eq!(answered, status, "{method} {route} is everybody's");
            }
            continue;
        };
        guarded.refused(method, route, None, 401, "key-required").await;
        for authorization in no_good() {
            guarded.refused(method, route, Some(&authorization), 401, "key-not-valid").await;
        }
        for role in Role::ALL {
            let bearer = guarded.keys.bearer(role);
            if !roles.contains(&role) {
                guarded.refused(method, route, Some(&bearer), 403, "not-for-this-role").await;
                continue;
            }
            let status = guarded.status(method, route, Some(&bearer)).await;
            let kept_out = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
            assert!(!kept_out && !status.is_server_error(), "{method} {route} as {role}: {status}");
        }
        if method == "GET" {
            guarded.refused("HEAD", route, None, 401, "").await;
            for role in Role::ALL {
                let bearer = guarded.keys.bearer(role);
                let status = guarded.status("GET", route, Some(&bearer)).await;
                let head = guarded.status("HEAD", route, Some(&bearer)).await;
                assert_eq!(head, status, "HEAD {route} as {role}");
            }
        }
    }
}

/// Promise 9: who may not, can't.
async fn a_revoked_key_opens_nothing(service: Service) {
    let guarded = Guarded::open(service).await;
    for role in Role::ALL {
        guarded.keys.revoke(role);
        for (method, route, _) in FOR {
            let bearer = guarded.keys.bearer(role);
            guarded.refused(method, route, Some(&bearer), 401, "key-not-valid").await;
            let other = guarded.keys.bearer(if role == Staff { Admin } else { Staff });
            let status = guarded.status(method, route, Some(&other)).await;
            assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {route}: others stay");
        }
    }
}

async fn what_is_no_route_needs_no_key(service: Service) {
    let guarded = Guarded::open(service).await;
    let [broken, ..] = no_good();
    let staff = guarded.keys.bearer(Staff);
    for authorization in [None, Some(broken.as_str()), Some(&staff)] {
        for (method, route, status) in [
            ("GET", "/nothing", 404),
            ("POST", "/orders/", 404),
            ("OPTIONS", "/orders", 405),
            ("OPTIONS", "/nothing", 404),
            ("DELETE", "/orders/{id}", 405),
            ("PUT", "/", 405),
            ("TRACE", "/metrics", 405),
        ] {
            let answer = guarded.ask(method, route, authorization).await;
            assert_eq!(answer.status(), status, "{method} {route}");
            assert_eq!(answer.headers().contains_key("allow"), status == 405, "{method} {route}");
        }
    }
}

/// Every way to send a key, good or not.
#[tokio::test]
async fn a_key_is_taken_in_one_form_only() {
    let Guarded { api, keys, .. } = Guarded::open(Service::on(Database::Sqlite)).await;
    let key = keys.key(Staff).reveal();
    let ask = async |values: &[&[u8]]| {
        let mut request = Request::get("/metrics").body(Body::empty()).expect("valid");
        for value in values {
            request.headers_mut().append("authorization", HeaderValue::from_bytes(value).expect("a value"));
        }
        api.send(request).await
    };
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer   "] {
        assert_eq!(ask(&[format!("{scheme}{key}").as_bytes()]).await.status, 200, "{scheme}");
    }
    let whole = format!("Bearer {key}");
    let long = format!("Bearer otk_{}", "a".repeat(300));
    for values in [
        &[whole.as_bytes(), whole.as_bytes()][..],
        &[format!("{whole}, {whole}").as_bytes()],
        &[format!("{whole} x").as_bytes()],
        &[format!("Bearer \"{key}\"").as_bytes()],
        &[b""],
        &[b"Bearer"],
        &[b"Bearer "],
        &[key.as_bytes()],
        &[format!("Basic {key}").as_bytes()],
        &[format!("Bearer{key}").as_bytes()],
        &[whole.to_lowercase().as_bytes()],
        &[b"Bearer otk_\xff\xfe"],
        &["Bearer otk_é".as_bytes()],
        &["Béarer otk_".as_bytes()],
        &[long.as_bytes()],
    ] {
        let refused = ask(values).await;
        assert_eq!(refused.problem(401).0, "key-not-valid", "{values:?}");
        assert!(refused.header("www-authenticate").contains("invalid_token"));
        assert!(!refused.text().contains("otk_a") && !refused.text().contains(key), "{}", refused.text());
    }
    let missing = ask(&[]).await;
    assert_eq!(missing.problem(401).0, "key-required");
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"order-tracker\"");
}

/// A browser's session is for pages: nobody else's page can make a browser use the API.
#[tokio::test]
async fn a_session_counts_for_nothing_on_the_api() {
    let Guarded { api, keys, .. } = Guarded::open(Service::on(Database::Sqlite)).await;
    let now = clock().now();
    let live = keys.ring.authenticate(keys.key(Admin), now).expect("is good");
    let cookie = format!("order-tracker={}", Session::begin(live, now).text());
    let ask = async |path: &str, bearer: Option<String>| {
        let mut request = Request::get(path).header("cookie", &cookie);
        if let Some(bearer) = bearer {
            request = request.header("authorization", bearer);
        }
        api.send(request.body(Body::empty()).expect("valid")).await
    };
    assert_eq!(ask("/", None).await.status, 200, "a page takes it");
    assert_eq!(ask("/metrics", None).await.problem(401).0, "key-required");
    assert_eq!(ask("/metrics", Some(keys.bearer(Reader))).await.problem(403).0, "not-for-this-role");
    assert_eq!(ask("/metrics", Some(keys.bearer(Staff))).await.status, 200);
}

/// Promise 9: who may not, can't. And costs nothing: no query, with the database away.
#[tokio::test(start_paused = true)]
async fn thousands_of_wrong_keys_ask_the_database_nothing() {
    let keys = Keys::of_all_roles();
    let (api, database) = Service::on(Database::Sqlite).asking_for(&keys).in_memory();
    database.lock().expect("no panic").away = true;
    let staff = keys.bearer(Staff);
    let failures = async || {
        let request = Request::get("/metrics").header("authorization", &staff).body(Body::empty());
        let metrics = api.send(request.expect("valid")).await;
        metrics.text().lines().find(|line| line.starts_with("db_errors_total")).expect("it").to_owned()
    };
    let (before, begun) = (failures().await, tokio::time::Instant::now());
    let random = &mut rand::rng();
    for n in 0..2_000 {
        let (method, route, _) = FOR[n % 9];
        let bearer = format!("Bearer {}", ApiKey::random(random).reveal());
        let path = route.replace("{id}", "ORD-01ARZ3NDEK0000000000000000");
        let request = Request::builder().method(method).uri(path).header("authorization", bearer);
        let refused = api.send(request.body(Body::empty()).expect("valid")).await;
        assert_eq!(refused.problem(401).0, "key-not-valid");
    }
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO, "nothing was waited for");
    assert_eq!(failures().await, before);
    // One that is good meets what is wrong.
    let request = Request::get("/orders").header("authorization", &staff).body(Body::empty());
    assert_eq!(api.send(request.expect("valid")).await.status, 503);
    assert_ne!(failures().await, before);
}

/// Who can't be known yet is told to come back; who can't be known ever is told so.
#[tokio::test]
async fn keys_that_were_not_read_yet_are_waited_for() {
    let mut keys = Keys::of_all_roles();
    keys.ring = std::sync::Arc::<KeyRing>::default();
    let api = Service::on(Database::Sqlite).asking_for(&keys).open().await;
    let ask = async |authorization: Option<&str>| {
        let mut request = Request::builder().method(Method::GET).uri("/orders");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        api.send(request.body(Body::empty()).expect("valid")).await
    };
    let not_yet = ask(Some(&keys.bearer(Shop))).await;
    assert_eq!(not_yet.problem(503).0, "unavailable");
    assert_eq!(not_yet.header("retry-after"), "1");
    let [broken, mistyped, _] = no_good();
    for authorization in [broken, mistyped] {
        assert_eq!(ask(Some(&authorization)).await.problem(401).0, "key-not-valid");
    }
    assert_eq!(ask(None).await.problem(401).0, "key-required");
    assert_eq!(api.get("/healthz").await.status, 200);
}
