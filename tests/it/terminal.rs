//! What somebody at a terminal sees, on a pseudo-terminal.

use std::{
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;
use tokio::process::Child;

use crate::harness::{Service, binary, eventually, folder};

/// A process that writes to a terminal, and what was written there.
struct Watched {
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl Watched {
    /// Complaints go to the terminal, results do not.
    fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::with(arguments, settings, |_| Stdio::piped())
    }

    fn with(arguments: &[&str], settings: &[(&str, &str)], results: impl FnOnce(&OwnedFd) -> Stdio) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let name = ptsname(&ours, Vec::new()).expect("a name");
        let theirs = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("it opens");
        let mut command = binary(arguments, settings);
        let child = command.stdout(results(&theirs)).stderr(theirs).spawn().expect("it starts");
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        // Ends when the last process has closed the other side.
        std::thread::spawn(move || {
            let (mut ours, mut part) = (File::from(ours), [0; 4096]);
            while let Ok(read @ 1..) = ours.read(&mut part) {
                shown.lock().expect("no panic").push_str(&String::from_utf8_lossy(&part[..read]));
            }
        });
        Self { child, screen }
    }

    fn serve(data: &Path, arguments: &[&str]) -> Self {
        let data = data.to_str().expect("text");
        Self::start(arguments, &[("APP_PORT", "0"), ("DATA_DIR", data), ("STAGE_DELAYS", "1h")])
    }

    fn screen(&self) -> String {
        self.screen.lock().expect("no panic").clone()
    }

    /// The service's address, once the last words of the welcome are there.
    async fn url(&self) -> String {
        eventually("the welcome", async || self.screen().contains("go on at the next start").then_some(()))
            .await;
        let screen = self.screen();
        let (_, rest) = screen.split_once("listening on ").unwrap_or_else(|| panic!("{screen}"));
        rest.chars().take_while(|char| !char.is_whitespace() && *char != '\x1b').collect()
    }
}

async fn orders(url: &str) -> Vec<Value> {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = http.get(format!("{url}/orders")).send().await.expect("an answer");
    answer.json().await.expect("a list")
}

/// Whoever starts it for the first time gets an order to look at; but only then, and only if wanted.
#[tokio::test]
async fn the_first_start_on_a_terminal_places_an_order() {
    let data = folder();
    let mut service = Watched::serve(data.path(), &[]);
    let url = service.url().await;
    let placed = orders(&url).await;
    assert_eq!(placed.len(), 1);
    let id = placed[0]["order_id"].as_str().expect("an id");
    let told = format!("order watch {id} --url {url}");
    assert!(service.screen().contains(&told), "no {told:?} in\n{}", service.screen());
    service.child.kill().await.expect("killed");

    let again = Watched::serve(data.path(), &[]);
    assert_eq!(orders(&again.url().await).await.len(), 1, "the second start places none");

    let other = folder();
    let without = Watched::serve(other.path(), &["--no-demo"]);
    assert_eq!(orders(&without.url().await).await.len(), 0);
}

/// Where keys are asked for the first thing to know is how to make one; what needs one is not offered.
#[tokio::test]
async fn a_service_that_asks_for_keys_says_how_to_make_one() {
    let data = folder();
    let folder = data.path().to_str().expect("text");
    let settings = [("APP_PORT", "0"), ("DATA_DIR", folder), ("AUTH", "keys")];
    let service = Watched::start(&[], &settings);
    let url = service.url().await;
    let screen = service.screen();
    assert!(screen.contains("keys create --name me --role staff"), "{screen}");
    assert!(screen.contains(&format!("{url}/\r\n")) && screen.contains(&format!("{url}/docs")), "{screen}");
    assert!(!screen.contains("simulate --rate") && !screen.contains("curl"), "{screen}");
}

/// A bar while it goes on, and nothing of it among the results.
#[tokio::test]
async fn a_load_shows_a_bar_on_a_terminal() {
    let service = Service::start(&[]).await;
    let watched =
        Watched::start(&["simulate", "--url", &service.url, "--rate", "50", "--duration", "300ms"], &[]);
    let Watched { child, screen } = watched;
    let output = child.wait_with_output().await.expect("it ends");
    let results = String::from_utf8(output.stdout).expect("text");
    assert!(results.starts_with("15 orders placed") && !results.contains(['\r', '\x1b']), "{results}");
    let screen = screen.lock().expect("no panic").clone();
    assert!(screen.contains("\r\x1b[2K[") && screen.contains(" orders placed, "), "{screen:?}");
    service.stop().await;
}

/// A bar counts from the step, and what ends a watch begins a line of its own.
#[tokio::test]
async fn a_watch_clears_its_bar_before_it_complains() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let (id, address) = (service.place("pizza").await, service.address().to_owned());
    let watched = Watched::with(&["order", "watch", &id, "--url", &service.url], &[], |terminal| {
        Stdio::from(terminal.try_clone().expect("one more"))
    });
    eventually("the bar", async || watched.screen().contains("PLACED for ").then_some(())).await;
    service.stop().await;
    // Another, which does not know the order.
    let port = address.rsplit(':').next().expect("a port");
    let other = Service::start(&[("APP_PORT", port)]).await;
    eventually("the complaint", async || watched.screen().contains("no order has this id").then_some(()))
        .await;
    let screen = watched.screen();
    let (before, _) = screen.split_once("order-tracker: no order has this id").expect("the complaint");
    assert!(before.contains("; connecting again") && before.ends_with("\r\x1b[2K"), "{before:?}");
    other.stop().await;
}

/// Ctrl-C leaves the terminal as it was: the bar on its line, colours reset, the prompt on a line of its own.
#[tokio::test]
async fn ctrl_c_leaves_a_clean_prompt() {
    let service = Service::start(&[("STAGE_DELAYS", "1h")]).await;
    let id = service.place("pizza").await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", silent.local_addr().expect("an address"));
    for (command, sign, last) in [
        (&["order", "watch", &id, "--url", &service.url][..], "PLACED for ", " s"),
        (&["simulate", "--count", "1", "--url", &silent], " orders placed, ", " ms"),
    ] {
        let both = |terminal: &OwnedFd| Stdio::from(terminal.try_clone().expect("one more"));
        let mut watched = Watched::with(command, &[], both);
        eventually("the bar", async || watched.screen().contains(sign).then_some(())).await;
        let pid = watched.child.id().expect("it runs").to_string();
        // A load waits for its answers after the first, and is gone with the second.
        let ended = eventually("it ends", async || {
            let done = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await;
            assert!(done.is_ok(), "kill is there");
            watched.child.try_wait().expect("waited")
        })
        .await;
        assert_eq!(ended.code(), Some(130), "{command:?}");
        let clean = format!("{last}\u{1b}[0m\u{1b}[?25h\r\n");
        eventually("a clean prompt", async || watched.screen().ends_with(&clean).then_some(())).await;
    }
    service.stop().await;
}
