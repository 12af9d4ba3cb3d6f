//! No secret, and no part of one, is ever shown, whatever setting it was put into and however wrongly.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use futures::future::join_all;
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    time::timeout,
};

use crate::{
    cli::said,
    harness::{binary, details, ended, folder, within},
    tidy::settings,
};

/// What these hold is no secret to be guarded: names that are shown wherever they matter.
const NAMES: [&str; 3] = ["APP_HOST", "DATA_DIR", "KAFKA_GROUP"];

/// Letters and signs take turns, so that no part of four characters stands anywhere by chance.
fn secrets() -> impl Strategy<Value = String> {
    let signs: Vec<char> = "@/:?#%&=+;\\ '\"<>|[]{}~!$^*(),".chars().collect();
    let pair = (select(vec!['Q', 'X', 'Z', 'J', 'K']), select(signs));
    vec(pair, 3..7).prop_map(|pairs| pairs.into_iter().flat_map(|(letter, sign)| [letter, sign]).collect())
}

type Settings = Vec<(String, String)>;

fn setting(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// Where a secret may have been put, rightly or not.
fn places(secret: &str, file: &str, names: &[String]) -> Vec<Settings> {
    let encoded = secret.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"));
    // A real server, where one is named, has more to say.
    let server = std::env::var("PG_DSN").unwrap_or_else(|_| "postgres://nobody@127.0.0.1:9/none".to_owned());
    let (_, at) = server.split_once('@').expect("a user");
    let (at, _) = at.split_once('?').unwrap_or((at, ""));
    let dsn = |place: String| vec![setting("PG_DSN", place)];
    let mut places: Vec<Settings> = Vec::new();
    for secret in [secret, &encoded] {
        places.push(dsn(format!("postgres://nobody:{secret}@{at}")));
        places.push(dsn(format!("postgres://{secret}@{at}")));
        places.push(dsn(format!("postgres://nobody@{at}?options=-csearch_path%3D{secret}")));
        places.push(dsn(format!("postgres://nobody@{at}?password={secret}")));
        places.push(dsn(format!("postgres://nobody@{at}?{secret}")));
    }
    places.push(dsn(format!("host=127.0.0.1 password={secret}")));
    // The DSN in the place of its file; files that are a DSN, and none.
    places.push(vec![setting("PG_DSN_FILE", format!("postgres://nobody:{secret}@{at}"))]);
    places.push(vec![setting("PG_DSN_FILE", file)]);
    places.push(vec![setting("PG_DSN_FILE", format!("{file}.encoded"))]);
    std::fs::write(file, format!("password={secret}\n")).expect("writes");
    std::fs::write(format!("{file}.encoded"), format!("postgres://nobody:{encoded}@{at}")).expect("writes");
    // A comma would begin another property.
    let value = secret.replace(',', "");
    for property in ["sasl.password", "ssl.key.password"] {
        let properties = setting("KAFKA_PROPERTIES", format!("{property}={value}"));
        places.push(vec![setting("KAFKA_BROKERS", "127.0.0.1:9"), properties]);
    }
    places.push(vec![setting("KAFKA_BROKERS", format!("nobody:{secret}@127.0.0.1:9"))]);
    // In the place of any other.
    for name in names {
        let level = if name == "RUST_LOG" { "order_tracker=" } else { "" };
        places.push(vec![setting(name, format!("{level}{secret}"))]);
        places.push(vec![setting(name, format!("{level}postgres://nobody:{encoded}@{at}"))]);
    }
    places
}

/// Everything that commands, service and pages show with these settings.
async fn shown(given: &Settings) -> String {
    let data = folder();
    let mut settings = vec![
        ("DATA_DIR", data.path().to_str().expect("text")),
        ("RUST_LOG", "debug"),
        ("APP_PORT", "0"),
        ("LOG_FORMAT", "json"),
    ];
    settings.extend(given.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut shown = String::new();
    for command in ["migrate", "verify"] {
        let output = ended(binary(&[command], &settings)).await;
        shown += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    let mut service = binary(&["serve"], &settings).stderr(Stdio::piped()).spawn().expect("starts");
    let mut log = BufReader::new(service.stderr.take().expect("piped"));
    let (mut line, mut url) = (String::new(), None);
    while url.is_none() && within(log.read_line(&mut line)).await.expect("text") > 0 {
        url =
            serde_json::from_str::<Value>(&line).ok().and_then(|line| Some(line["url"].as_str()?.to_owned()));
        shown += &std::mem::take(&mut line);
    }
    if let Some(url) = url {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let ask = async |path: &str| {
            let answer = client.get(format!("{url}{path}")).send().await.expect("an answer");
            answer.text().await.expect("text")
        };
        let order =
            client.post(format!("{url}/orders")).json(&details("pizza")).send().await.expect("an answer");
        shown += &order.text().await.expect("text");
        for path in ["/readyz", "/", "/metrics"] {
            shown += &ask(path).await;
        }
    }
    service.kill().await.expect("ends");
    let mut rest = Vec::new();
    timeout(Duration::from_secs(30), log.read_to_end(&mut rest)).await.expect("ends").expect("bytes");
    shown + &String::from_utf8_lossy(&rest)
}

/// Every part of four characters, and how it looks in JSON and HTML.
fn parts(secret: &str) -> BTreeSet<String> {
    let chars: Vec<char> = secret.chars().collect();
    let parts = chars.windows(4).map(|part| part.iter().collect::<String>());
    let dressed = |part: String| {
        let json = Value::from(part.as_str()).to_string();
        let html =
            part.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        [json[1..json.len() - 1].to_owned(), html, part]
    };
    parts.flat_map(dressed).collect()
}

async fn is_hidden(secret: &str, names: &[String]) -> Result<(), TestCaseError> {
    let home = folder();
    let places = places(secret, home.path().join("dsn").to_str().expect("text"), names);
    let all = join_all(places.iter().map(shown)).await;
    for (settings, shown) in places.iter().zip(all) {
        prop_assert!(!shown.is_empty());
        for part in parts(secret) {
            prop_assert!(!shown.contains(&part), "{part:?} of {settings:?} is shown:\n{shown}");
        }
    }
    Ok(())
}

/// Promise 6: it says what is wrong, and nothing that is nobody's business.
#[test]
fn no_part_of_a_secret_is_shown_with_postgres_and_without() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("starts");
    let help = runtime.block_on(said(&["--help"]));
    let names: Vec<String> =
        settings(&help).into_keys().filter(|name| !NAMES.contains(&name.as_str())).collect();
    // One round is slow for what waits for a broker in vain, not for what it does.
    let config = Config { failure_persistence: None, ..Config::with_cases(1) };
    let outcome = TestRunner::new(config).run(&vec(secrets(), 3), |secrets| {
        let all = join_all(secrets.iter().map(|secret| is_hidden(secret, &names)));
        runtime.block_on(all).into_iter().collect()
    });
    outcome.expect("nothing is shown");
}
