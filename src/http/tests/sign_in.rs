//! The board behind keys: who may look at it, what he sees and may do there, and the customer's page beside it.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::json;

use super::{
    Answer, Api,
    board::words,
    pages::protected,
    pages_reports::{HERE, fields},
    service::{Database, Keys, Service},
};
use crate::{
    http::server::client::{Connection, Waiting},
    order::{EventKind, Report, Role, Source},
    telemetry::health::{Health, Part},
    tracker::OrderReport,
};

impl Api {
    /// A browser's form, with what it keeps of this site.
    async fn filled(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.submit(path, &[HERE[0], HERE[1], ("cookie", cookie)], &fields).await
    }

    async fn look(&self, path: &str, cookie: &str) -> Answer {
        self.send(Request::get(path).header("cookie", cookie).body(Body::empty()).expect("valid")).await
    }

    /// Signs in and answers what the browser keeps.
    async fn signed_in(&self, keys: &Keys, role: Role) -> String {
        let answer = self.filled("/sign-in", "", &[("key", keys.key(role).reveal())]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        kept(&answer).to_owned()
    }
}

/// What a browser keeps of an answer and sends again.
fn kept(answer: &Answer) -> &str {
    answer.header("set-cookie").split(';').next().expect("a cookie")
}

async fn asking() -> (Api, Keys) {
    let keys = Keys::of_all_roles();
    (Service::on(Database::Sqlite).asking_for(&keys).open().await, keys)
}

/// An order of Ada's at 1 High St, with a note of the kitchen's.
async fn noted(api: &Api, keys: &Keys) -> String {
    let bearer = keys.bearer(Role::Shop);
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let order = json!({"customer_name": "Ada", "address": "1 High St", "item": "Dal", "size": "large"});
    let id =
        api.post(&headers, order.to_string()).await.json()["order_id"].as_str().expect("an id").to_owned();
    let report =
        Report { note: Some("burnt twice".to_owned()), ..Report::of(EventKind::Ready, Source::Kitchen) };
    let report = OrderReport { order_id: id.parse().expect("an id"), report, if_match: None };
    api.store.report(&[report], &crate::order::Rules::default()).await.expect("is stored");
    id
}

/// Promise 9: who may not, can't. The board asks once, and what a browser keeps ends with its key.
#[tokio::test]
async fn the_board_asks_who_looks() {
    let (api, keys) = asking().await;
    let asked = api.get("/?status=COOKING").await;
    protected(&asked, StatusCode::UNAUTHORIZED);
    assert_eq!(asked.header("www-authenticate"), "Bearer realm=\"order-tracker\"");
    assert!(!words(&asked).contains("Recent orders"));
    assert!(asked.text().contains("name=\"to\" value=\"/?status=COOKING\""), "{}", asked.text());

    for wrong in ["", "otk_nothing", "otk_000000000000000000000000000000_2YksSr"] {
        let answer = api.filled("/sign-in", "", &[("key", wrong)]).await;
        protected(&answer, StatusCode::UNAUTHORIZED);
        assert!(words(&answer).contains("This key is mistyped, unknown or revoked."), "{wrong}");
        assert_eq!(answer.header("set-cookie"), "");
    }
    let spaced = format!(" {}\t", keys.key(Role::Staff).reveal());
    let answer = api.filled("/sign-in", "", &[("key", &spaced), ("to", "/?status=COOKING")]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/?status=COOKING"));
    let (cookie, rest) = answer.header("set-cookie").split_once("; ").expect("attributes");
    assert_eq!(rest, "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict");
    assert!(cookie.starts_with("order-tracker=") && !cookie.contains("otk_"), "{cookie}");

    let board = api.look("/", cookie).await;
    protected(&board, StatusCode::OK);
    assert!(words(&board).contains("the staff (staff)Sign out"), "{}", words(&board));
    for broken in [&cookie[..cookie.len() - 1], "order-tracker=", "order-tracker", "other=1"] {
        protected(&api.look("/", broken).await, StatusCode::UNAUTHORIZED);
    }
    let proxied = Request::get("/").header("cookie", cookie).header("authorization", "Basic YTpi");
    let proxied = api.send(proxied.body(Body::empty()).expect("valid")).await;
    assert_eq!(proxied.status, StatusCode::OK, "what a proxy asks for is none of ours");
    let asked = Request::get("/orders").header("authorization", keys.bearer(Role::Staff));
    let listed = api.send(asked.body(Body::empty()).expect("valid")).await;
    assert_eq!((listed.status, listed.header("cache-control")), (StatusCode::OK, "no-store"));
    for api_path in ["/orders", "/metrics", "/events"] {
        assert_eq!(api.look(api_path, cookie).await.problem(401).0, "key-required", "{api_path}");
    }
    let out = api.filled("/sign-out", cookie, &[]).await;
    assert_eq!((out.status, out.header("location")), (StatusCode::SEE_OTHER, "/sign-in"));
    let forgotten: Vec<_> =
        out.headers.get_all("set-cookie").iter().map(|kept| kept.to_str().expect("text")).collect();
    assert!(forgotten.iter().all(|kept| kept.contains("=; Path=/; Max-Age=0;")), "{forgotten:?}");
    assert_eq!(forgotten.len(), 2);

    keys.revoke(Role::Staff);
    protected(&api.look("/", cookie).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_lasts_while_it_is_used() {
    let (api, keys) = asking().await;
    let first = api.signed_in(&keys, Role::Kitchen).await;
    api.clock.advance(Duration::from_secs(59));
    assert_eq!(api.look("/", &first).await.header("set-cookie"), "");
    api.clock.advance(Duration::from_hours(11));
    let board = api.look("/", &first).await;
    assert_eq!(board.status, StatusCode::OK);
    let renewed = kept(&board).to_owned();
    api.clock.advance(Duration::from_hours(2));
    assert_eq!(
        api.look("/", &first).await.status,
        StatusCode::UNAUTHORIZED,
        "twelve hours after its last use"
    );
    assert_eq!(api.look("/", &renewed).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nobody_is_sent_elsewhere_and_no_other_site_signs_in() {
    let (api, keys) = asking().await;
    let key = keys.key(Role::Staff).reveal();
    for to in ["//evil.example", "https://evil.example/?", "/\\evil.example", "/track/x", "?x", ""] {
        let answer = api.filled("/sign-in", "", &[("key", key), ("to", to)]).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/"), "{to}");
    }
    let evil = [("host", "shop.example"), ("origin", "https://evil.example")];
    for path in ["/sign-in", "/sign-out", "/report"] {
        let cookie = api.signed_in(&keys, Role::Staff).await;
        let headers = [evil[0], evil[1], ("cookie", cookie.as_str())];
        let answer = api.submit(path, &headers, &[("key".to_owned(), key.to_owned())]).await;
        protected(&answer, StatusCode::FORBIDDEN);
        assert_eq!(answer.header("set-cookie"), "", "{path}");
    }
}

/// Where the connection is safe no other host can set the session, and it never goes out in the clear.
#[tokio::test]
async fn a_safe_connection_keeps_a_safe_session() {
    let keys = Keys::of_all_roles();
    let service = Service::on(Database::Sqlite).asking_for(&keys);
    let public = service.public_url("https://shop.example").open().await;
    let answer = public.filled("/sign-in", "", &[("key", keys.key(Role::Staff).reveal())]).await;
    assert!(answer.header("set-cookie").starts_with("__Host-order-tracker="));
    assert!(answer.header("set-cookie").ends_with("; HttpOnly; SameSite=Strict; Secure"));
    assert_eq!(public.look("/", kept(&answer)).await.status, StatusCode::OK);
    let plain = kept(&answer).trim_start_matches("__Host-").to_owned();
    assert_eq!(public.look("/", &plain).await.status, StatusCode::UNAUTHORIZED, "anybody could have set it");

    let api = service.open().await;
    for (peer, proto, safe) in
        [([10, 0, 0, 1], "https", true), ([10, 0, 0, 1], "http", false), ([192, 0, 2, 1], "https", false)]
    {
        let form = format!("key={}", keys.key(Role::Staff).reveal());
        let request = Request::post("/sign-in")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-forwarded-proto", proto)
            .extension(Connection { peer: peer.into(), waiting: Waiting::default() });
        let answer = api.send(request.body(Body::from(form)).expect("valid")).await;
        let kept = answer.header("set-cookie");
        assert_eq!(kept.starts_with("__Host-") && kept.ends_with("Secure"), safe, "{peer:?} {proto} {kept}");
        assert!(kept.contains("order-tracker="), "{kept}");
    }
}

/// Promise 9: who may not, can't. Each role sees of people what it needs, and finds by no more than that.
#[tokio::test]
async fn each_role_sees_of_people_what_it_needs() {
    let (api, keys) = asking().await;
    let id = noted(&api, &keys).await;
    // Its first step is late, for a cause that only who runs the service can mend.
    api.clock.advance(Duration::from_secs(20));
    api.report(Part::Scheduler, Health::Down("db.inside: connection refused".to_owned()));
    for (role, seen) in [
        (Role::Shop, [true, true, false]),
        (Role::Kitchen, [true, false, true]),
        (Role::Reader, [false, false, false]),
        (Role::Staff, [true, true, true]),
        (Role::Admin, [true, true, true]),
    ] {
        let cookie = api.signed_in(&keys, role).await;
        let sheet = api.look(&format!("/?id={id}"), &cookie).await;
        protected(&sheet, StatusCode::OK);
        let told = ["Ada", "1 High St", "burnt twice"].map(|secret| sheet.text().contains(secret));
        assert_eq!(told, seen, "{role}: {}", words(&sheet));
        let found = words(&api.look("/?id=ada", &cookie).await).contains("One among the newest");
        assert_eq!(found, seen[0], "{role}");
        assert!(words(&api.look("/?id=dal", &cookie).await).contains("One among the newest"), "{role}");
        // What is wrong with the service is for who runs it.
        let runs = [Role::Staff, Role::Admin].contains(&role);
        assert_eq!(words(&sheet).contains("Dead letters"), runs, "{role}");
        assert_eq!(words(&sheet).contains("Why:"), runs, "{role}");
        assert_eq!(sheet.text().contains("db.inside"), runs, "{role}");
        assert!(words(&sheet).contains("Overdue 1"), "{role}: {}", words(&sheet));
    }
    let cookie = api.signed_in(&keys, Role::Courier).await;
    let refused = api.look("/", &cookie).await;
    protected(&refused, StatusCode::FORBIDDEN);
    assert!(words(&refused).contains("Sign out") && !refused.text().contains("Ada"));
}

#[tokio::test]
async fn a_kitchen_reports_by_its_buttons_and_nothing_else() {
    let (api, keys) = asking().await;
    let id = noted(&api, &keys).await;
    let cookie = api.signed_in(&keys, Role::Kitchen).await;
    let sheet = api.look(&format!("/?id={id}"), &cookie).await;
    for (button, there) in [
        ("act-COOKING", true),
        ("act-DELAYED-5", true),
        ("act-DELIVERED", false),
        ("act-COURIER_AT_DOOR", false),
    ] {
        assert_eq!(sheet.text().contains(&format!("id=\"{button}\"")), there, "{button}");
    }
    assert!(!sheet.text().contains("Place a demo order"));
    let headers = [HERE[0], HERE[1], ("cookie", cookie.as_str())];
    let done = api.submit("/report", &headers, &fields(&sheet, "id=\"act-COOKING\"")).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", words(&done));
    let sheet = words(&api.look(done.header("location"), &cookie).await);
    assert!(sheet.contains("the kitchen (the kitchen)"), "{sheet}");

    let forged = [("order", id.as_str()), ("event", "DELIVERED"), ("id", "x"), ("source", "courier")];
    let refused = api.filled("/report", &cookie, &forged).await;
    protected(&refused, StatusCode::FORBIDDEN);
    assert!(words(&refused).contains("not for the role"), "{}", words(&refused));
    let reader = api.signed_in(&keys, Role::Reader).await;
    assert_eq!(api.filled("/report", &reader, &forged).await.status, StatusCode::FORBIDDEN);
    assert_eq!(api.filled("/demo-orders", &reader, &[]).await.status, StatusCode::FORBIDDEN);

    let shop = api.signed_in(&keys, Role::Shop).await;
    let sheet = api.look(&format!("/?id={id}"), &shop).await;
    assert!(!sheet.text().contains("act-"), "the kitchen has begun: {}", words(&sheet));
}

/// Every reader of the feed knows every id, so an id proves nothing.
#[tokio::test]
async fn the_customer_s_page_shows_nobody_and_does_nothing() {
    let (api, keys) = asking().await;
    let id = noted(&api, &keys).await;
    let bearer = keys.bearer(Role::Staff);
    for report in [
        json!({"event": "READY", "note": "burnt twice"}),
        json!({"event": "DELAYED", "minutes": 10, "note": "burnt twice"}),
        json!({"event": "PREPARING"}),
        json!({"event": "COOKING"}),
        json!({"event": "OUT_FOR_DELIVERY"}),
        json!({"event": "COURIER_AT_DOOR"}),
        json!({"event": "DELIVERY_FAILED", "note": "burnt twice"}),
        json!({"event": "DELIVERED"}),
        json!({"event": "REVERTED"}),
        json!({"event": "CANCELLED", "reason": "undeliverable", "note": "burnt twice"}),
    ] {
        let page = api.get(&format!("/track/{id}")).await;
        protected(&page, StatusCode::OK);
        assert!(!words(&page).contains("Cancel my order") && words(&page).contains("Dal"), "{report}");
        for secret in ["Ada", "1 High St", "burnt twice"] {
            assert!(!page.text().contains(secret), "{secret} before {report}: {}", words(&page));
        }
        let answer = api.report_of(&id, &[("authorization", &bearer)], &report).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    }
    let page = api.get(&format!("/track/{id}")).await;
    assert!(!page.text().contains("Ada") && words(&page).contains("Nothing will come"), "{}", words(&page));
    for answer in [
        api.get(&format!("/track/{id}/cancel")).await,
        api.filled(&format!("/track/{id}/cancel"), "", &[("id", "x"), ("seq", "3")]).await,
    ] {
        protected(&answer, StatusCode::FORBIDDEN);
        assert!(words(&answer).contains("call the shop"), "{}", words(&answer));
    }
}

#[tokio::test]
async fn where_nobody_is_asked_that_is_said_to_who_can_change_it() {
    let service = Service::on(Database::Sqlite);
    for (api, said) in [(service.exposed().open().await, true), (service.open().await, false)] {
        assert_eq!(words(&api.get("/").await).contains("AUTH=keys"), said);
        let home = api.get("/sign-in").await;
        assert_eq!((home.status, home.header("location")), (StatusCode::SEE_OTHER, "/"));
        assert_eq!(api.filled("/sign-in", "", &[("key", "x")]).await.header("location"), "/");
    }
}

#[tokio::test]
async fn as_long_as_no_keys_are_read_nobody_is_told_that_his_is_wrong() {
    let (keys, empty) = (Keys::of_all_roles(), Keys::unread());
    let api = Service::on(Database::Sqlite).asking_for(&empty).open().await;
    let answer = api.filled("/sign-in", "", &[("key", keys.key(Role::Staff).reveal())]).await;
    protected(&answer, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(api.filled("/sign-in", "", &[("key", "otk_x")]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(api.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE, "nobody can be served");
    empty.ring.replace(Vec::new());
    assert_eq!(api.get("/readyz").await.status, StatusCode::OK);
}
