//! What a shell offers at a real TAB.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use tokio::process::{Child, Command};

use crate::harness::{BINARY, eventually, folder};

/// The line editor without anything of the user's, and one TAB is enough to see what there is.
const EDITOR: &str = "set show-all-if-ambiguous on\nset page-completions off\nset completion-query-items -1\nset bell-style none\n\
    set enable-bracketed-paste off\nset colored-stats off\n";

/// A bash at a terminal, in a folder with one file.
struct Bash {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    _child: Child,
}

impl Bash {
    async fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("some-file"), "").expect("written");
        std::fs::write(folder.join("inputrc"), EDITOR).expect("written");
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let name = ptsname(&ours, Vec::new()).expect("a name");
        let theirs = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("it opens");
        let terminal = || Stdio::from(theirs.try_clone().expect("one more"));
        let binary = Path::new(BINARY);
        let path = format!(
            "{}:{}",
            binary.parent().expect("a folder").display(),
            std::env::var("PATH").expect("a path")
        );
        let child = Command::new("bash")
            .args(["--norc", "--noprofile", "-i"])
            .env_clear()
            .envs([("PATH", path.as_str()), ("TERM", "dumb"), ("PS1", "ready> "), ("HISTFILE", "")])
            .env("INPUTRC", folder.join("inputrc"))
            .current_dir(folder)
            .stdin(terminal())
            .stdout(terminal())
            .stderr(terminal())
            .kill_on_drop(true)
            .spawn()
            .expect("bash is there");
        let keyboard = File::from(ours);
        let (mut seen, screen) =
            (keyboard.try_clone().expect("one more"), Arc::new(Mutex::new(String::new())));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = seen.read(&mut part) {
                shown.lock().expect("no panic").push_str(&String::from_utf8_lossy(&part[..read]));
            }
        });
        let mut bash = Self { keyboard, screen, _child: child };
        bash.shows("", "ready> ").await;
        bash.shows("eval \"$(order-tracker completions bash)\"; echo lear''ned\n", "learned\r\nready> ")
            .await;
        bash
    }

    /// What appears after these keys, once this is part of it.
    async fn shows(&mut self, keys: &str, expected: &str) -> String {
        let before = self.screen.lock().expect("no panic").len();
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
        let screen = Arc::clone(&self.screen);
        eventually(&format!("{expected:?} after {keys:?}"), async || {
            let screen = screen.lock().expect("no panic")[before..].to_owned();
            screen.contains(expected).then_some(screen)
        })
        .await
    }

    /// The words that a TAB offers here; the line is thrown away.
    async fn offers(&mut self, line: &str) -> Vec<String> {
        let again = format!("ready> {line}");
        let shown = self.shows(&format!("{line}\t"), &again).await;
        let (_, rest) = shown.split_once("\r\n").unwrap_or_else(|| panic!("{shown:?}"));
        let words =
            rest.split(&again).next().expect("a part").split_whitespace().map(str::to_owned).collect();
        self.shows("\u{15}echo go''ne\n", "gone\r\nready> ").await;
        words
    }
}

/// Without the package bash-completion.
#[tokio::test]
async fn a_tab_in_bash_offers_what_comes_next() {
    let folder = folder();
    let mut bash = Bash::start(folder.path()).await;
    for (line, expected) in [
        ("order-tracker order ", &["create", "get", "list", "watch", "report", "cancel", "explain"][..]),
        ("order-tracker dead-letters ", &["list", "show", "requeue"]),
        ("order-tracker order list --st", &[]),
        ("order-tracker order create --size ", &["small", "medium", "large"]),
        (
            "order-tracker order list --status ",
            &["PLACED", "PREPARING", "COOKING", "OUT_FOR_DELIVERY", "DELIVERED", "CANCELLED"],
        ),
        ("order-tracker events --event ", &["CREATED", "PLACED", "DELIVERED"]),
        ("order-tracker order report x ", &["PREPARING", "READY", "COURIER_AT_DOOR", "DELAYED", "REVERTED"]),
        ("order-tracker order report x READY --source ", &["kitchen", "courier", "pos", "staff", "customer"]),
        (
            "order-tracker order cancel x --reason ",
            &["customer_request", "too_busy", "undeliverable", "other"],
        ),
        ("order-tracker order report x READY --", &["--id", "--note", "--station", "--minutes", "--reverts"]),
        ("order-tracker events --", &["--after", "--event", "--limit", "--follow", "--json"]),
        ("order-tracker completions ", &["bash", "zsh", "fish"]),
        ("order-tracker --log-format ", &["text", "json"]),
        ("order-tracker order create --", &["--customer-name", "--address", "--size", "--url", "--json"]),
        ("order-tracker ", &["serve", "order", "events", "verify", "dead-letters", "simulate"]),
    ] {
        if expected.is_empty() {
            bash.shows(&format!("{line}\t"), "order-tracker order list --status ").await;
            bash.shows("\u{15}echo go''ne\n", "gone\r\nready> ").await;
            continue;
        }
        let offered = bash.offers(line).await;
        let missing: Vec<_> =
            expected.iter().filter(|word| !offered.contains(&(**word).to_owned())).collect();
        assert!(missing.is_empty(), "no {missing:?} at {line:?}: {offered:?}");
        assert!(!offered.contains(&"some-file".to_owned()), "{line:?}: {offered:?}");
    }
    bash.shows("order-tracker order create --size m\t", "order-tracker order create --size medium ").await;
}
