//! Holds the repository to its own rules: who may touch what, how long a file may be, which promise
//! has a test, and that a setting is told the same everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::cli::said;

/// Longest file, in lines.
const MAX_LINES: usize = 400;

/// The promises by name, as tests must refer to them; more may follow on the line.
const PROMISES: [&str; 9] = [
    "Promise 1: accepted means durable",
    "Promise 2: everything accepted reaches the topic",
    "Promise 3: an effect happens once",
    "Promise 4: timers are rows",
    "Promise 5: memory, queues and time are bounded",
    "Promise 6: it says what is wrong",
    "Promise 7: the story is true",
    "Promise 8: who was away misses nothing",
    "Promise 9: who may not, can't",
];

/// What is named in these folders only.
const AT_HOME: [(&[&str], &[&str]); 5] = [
    (&["src/store/"], &["sqlx"]),
    (&["src/broker/"], &["rdkafka"]),
    (&["src/http/"], &["axum", "tower", "tower_http", "utoipa_axum"]),
    (&["src/client/", "src/http/"], &["hyper", "hyper_util"]),
    (&["src/cli/"], &["println", "print", "stdout"]),
];

/// The rooms from the inside out, and what each names: always ones that stand before it.
const ROOMS: [(&str, &[&str]); 13] = [
    ("order", &[]),
    ("time", &["order"]),
    ("telemetry", &["order"]),
    ("keys", &["order"]),
    ("store", &["order", "time", "telemetry", "keys"]),
    ("broker", &["order", "time", "telemetry"]),
    ("tracker", &["order", "time", "telemetry", "store"]),
    ("ops", &["order", "telemetry", "store", "broker"]),
    ("pipeline", &["order", "time", "telemetry", "keys", "store", "broker", "tracker", "ops"]),
    // What clients see: no SQL and no Kafka, not even by name.
    ("http", &["order", "time", "telemetry", "keys", "tracker", "ops"]),
    ("client", &["order", "time"]),
    ("app", &["order", "time", "telemetry", "keys", "store", "broker", "tracker", "ops", "pipeline", "http"]),
    ("cli", &["order", "time", "keys", "ops", "client", "app"]),
];

/// Most arrows between them: whoever adds one looks whether another can go.
const MOST_ARROWS: usize = 50;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder: its path from the root, with `/`, and its text.
fn files(folder: &str) -> BTreeMap<String, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name =
                    path.strip_prefix(root()).expect("inside").to_str().expect("text").replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).expect("text"));
            }
        }
    }
    assert!(found.len() > 3, "{folder} is not where it was: {found:?}");
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_')
}

/// A file without comments: prose may name anything.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of this crate that code names, as `crate::x` or in a group `crate::{x::..., y}`.
fn neighbours(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(words(rest).next());
            continue;
        };
        let (mut depth, mut start) = (0, true);
        for (at, char) in group.char_indices() {
            match char {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                char if start && char.is_alphabetic() => {
                    found.extend(words(&group[at..]).next());
                    start = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn neighbours_are_found_alone_and_in_groups() {
    let code = "use crate::time::Alarm; use crate::{\n    broker::{Publisher, http},\n    clock::Clock, store};\nuse super::order;";
    assert_eq!(neighbours(code), BTreeSet::from(["broker", "clock", "store", "time"]));
    assert_eq!(code_words("/// `sqlx`\nuse a::b_c; // x"), ["use", "a", "b_c", "x"]);
}

fn code_words(text: &str) -> Vec<String> {
    words(&code(text)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The source without its tests, which may bring anything together.
fn source() -> BTreeMap<String, String> {
    let mut source = files("src");
    source.retain(|name, _| !name.contains("/tests") && !name.contains("/conformance/"));
    source
}

/// SQL, Kafka, HTTP and the terminal each have one home.
#[test]
fn each_library_is_named_in_one_folder_only() {
    let mut strays = Vec::new();
    for (name, text) in source() {
        let words: BTreeSet<String> = code_words(&text).into_iter().collect();
        let away = |homes: &[&str]| !homes.iter().any(|home| name.starts_with(home));
        for (homes, guests) in AT_HOME.iter().filter(|(homes, _)| away(homes)) {
            let named = guests.iter().filter(|guest| words.contains(**guest));
            strays.extend(named.map(|guest| format!("{name} names {guest}, whose home is {homes:?}")));
        }
    }
    assert_eq!(strays, Vec::<String>::new());
}

/// What the file says without and within its own tests.
fn parted(text: &str) -> (String, String) {
    let (product, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    (code(product), code(tests))
}

/// The map of the rooms: what is inside knows nothing of what is around it, and no room is said to know more than it does.
#[test]
fn each_room_names_those_that_it_is_said_to_name() {
    let mut strays = Vec::new();
    let mut unused = ROOMS.map(|(room, named)| (room, named.iter().copied().collect::<BTreeSet<_>>()));
    for (name, text) in source() {
        let inside = name.trim_start_matches("src/");
        // The crate's root only lists the rooms, and the binary's calls the last.
        let Some((room, _)) = inside.split_once('/') else { continue };
        let at = ROOMS.iter().position(|(known, _)| *known == room);
        let at = at.unwrap_or_else(|| panic!("{room} has no place among the rooms"));
        let (product, tests) = parted(&text);
        for other in neighbours(&product) {
            unused[at].1.remove(other);
            if other != room && !ROOMS[at].1.contains(&other) {
                strays.push(format!("{name} must not know crate::{other}"));
            }
        }
        let before = |other: &str| ROOMS[..=at].iter().any(|(known, _)| *known == other);
        let met = neighbours(&tests).into_iter().filter(|other| !before(other));
        strays.extend(met.map(|other| format!("the tests of {name} must not know crate::{other}")));
    }
    assert_eq!(strays, Vec::<String>::new());
    let unused: Vec<_> = unused.into_iter().filter(|(_, named)| !named.is_empty()).collect();
    assert_eq!(unused, [], "the list says more than the code");
}

/// No circle: what a room names stands before it. And few arrows, since a stranger has to keep them in mind.
#[test]
fn rooms_name_few_and_only_those_before_them() {
    for (at, (room, named)) in ROOMS.iter().enumerate() {
        for other in *named {
            assert!(ROOMS[..at].iter().any(|(before, _)| before == other), "{room} names {other}");
        }
    }
    let arrows: usize = ROOMS.iter().map(|(_, named)| named.len()).sum();
    assert!(arrows <= MOST_ARROWS, "{arrows} arrows between rooms");
}

/// A file can be read in one sitting.
#[test]
fn no_file_is_longer_than_400_lines() {
    let all = files("src").into_iter().chain(files("tests")).chain(files("benches")).chain(files("testkit"));
    let long = all.map(|(name, text)| (name, text.lines().count())).filter(|(_, lines)| *lines > MAX_LINES);
    assert_eq!(long.collect::<Vec<_>>(), []);
}

/// The promises named in the doc comments of tests, and every mention that is not such a line.
fn promises() -> (BTreeSet<String>, Vec<String>) {
    let (mut kept, mut stray) = (BTreeSet::new(), Vec::new());
    let all = files("src").into_iter().chain(files("tests"));
    for (name, text) in all.filter(|(name, _)| name != "tests/it/tidy.rs") {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        for (n, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("Promise ")) {
            let told = line.strip_prefix("/// ").unwrap_or_default();
            let promise = PROMISES.into_iter().find(|promise| told.starts_with(promise));
            let mut head = lines[n..].iter().skip_while(|line| line.starts_with("///"));
            // The cases of the conformance suite become tests in each adapter, those of the router on each database.
            let suite = name.starts_with("src/store/conformance/");
            let test = head.next().is_some_and(|line| {
                suite
                    || line.starts_with("#[") && line.contains("test")
                    || line.starts_with("async fn") && line.contains("(service: Service)")
            });
            match promise.filter(|_| test) {
                Some(promise) => drop(kept.insert(promise.to_owned())),
                None => stray.push(format!("{name}:{}: {line}", n + 1)),
            }
        }
    }
    (kept, stray)
}

/// A promise without a test is a hope.
#[test]
fn every_promise_has_a_test_that_names_it() {
    let (kept, stray) = promises();
    assert_eq!(
        stray,
        Vec::<String>::new(),
        "only the doc comment of a test names a promise, by its whole name"
    );
    assert_eq!(kept, BTreeSet::from(PROMISES.map(str::to_owned)));
}

/// A fixed pause is too short on a busy machine and too long on any other.
#[test]
fn no_test_sleeps_or_is_ignored() {
    // The fault programme keeps to a timetable of trouble; tests do not.
    for (name, text) in files("tests/it") {
        let sleeps = text.matches("sleep(").count();
        let allowed = match name.as_str() {
            "tests/it/tidy.rs" => sleeps,
            _ => 0,
        };
        assert_eq!(sleeps, allowed, "{name}: wait for a thing, not for a time");
        assert!(name == "tests/it/tidy.rs" || !text.contains("#[ignore"), "{name}");
    }
}

/// The settings of a help text with their defaults.
pub(crate) fn settings(help: &str) -> BTreeMap<String, Option<String>> {
    let (mut settings, mut last) = (BTreeMap::new(), None);
    for line in help.lines().map(str::trim) {
        let inside = |name: &str| line.strip_prefix(name)?.strip_suffix(']').map(str::to_owned);
        if let Some(name) = inside("[env: ") {
            let name = name.split('=').next().unwrap_or_default().to_owned();
            settings.insert(name.clone(), None);
            last = Some(name);
        } else if let (Some(default), Some(name)) = (inside("[default: "), last.take()) {
            settings.insert(name, Some(default));
        } else if line.starts_with("--") {
            last = None;
        }
    }
    settings
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Holds a list of names and defaults to the binary's own; `extra` are names that it may have on top.
fn same(
    place: &str,
    told: &BTreeMap<String, String>,
    real: &BTreeMap<String, Option<String>>,
    extra: &[&str],
) {
    let unknown: Vec<_> =
        told.keys().filter(|name| !real.contains_key(*name) && !extra.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "{place} names settings that do not exist: {unknown:?}");
    for (name, default) in real {
        let told = told.get(name).unwrap_or_else(|| panic!("{place} does not name {name}"));
        if let Some(default) = default {
            assert_eq!(told, default, "the default of {name} in {place}");
        }
    }
}

/// `--help` is the truth; the README's table says the same.
#[tokio::test]
async fn the_readme_names_every_setting_with_its_default() {
    let help = settings(&said(&["--help"]).await);
    assert!(help.len() > 10 && help["APP_PORT"].as_deref() == Some("8080"), "{help:?}");
    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
        let (name, default) = (cells.next()?, cells.next()?);
        let setting = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        setting.then(|| (name.to_owned(), default.to_owned()))
    });
    same("README.md", &rows.collect(), &help, &["ORDER_TRACKER_URL"]);
}

/// A commented line of `.env.example` shows the default; one without `#` sets something else, for compose.
#[tokio::test]
async fn the_example_environment_names_every_setting_with_its_default() {
    let help = settings(&said(&["--help"]).await);
    let example = read(".env.example");
    let mut told = BTreeMap::new();
    for line in example.lines() {
        let (comment, line) = line.strip_prefix('#').map_or((false, line), |line| (true, line.trim_start()));
        let Some((name, value)) = line.split_once('=') else { continue };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            continue;
        }
        let default = help.get(name).cloned().flatten();
        let shown = if comment { value.to_owned() } else { default.unwrap_or_default() };
        told.insert(name.to_owned(), shown);
    }
    let compose = fs::read_to_string(root().join("docker-compose.yml")).unwrap_or_default();
    let of_compose: Vec<&str> =
        words(&compose).filter(|word| word.bytes().any(|byte| byte == b'_')).collect();
    same(".env.example", &told, &help, &of_compose);
}

/// What `docs/security.md` says is held is held by tests that exist, or by files that do.
#[test]
fn every_threat_is_held_by_tests_that_exist() {
    let text = read("docs/security.md");
    assert!(text.lines().count() <= 60, "it is read in one sitting");
    let tests: String = files("src").into_values().chain(files("tests").into_values()).collect();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let held = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let named: Vec<_> = held.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing holds this: {row}");
        for name in named {
            let there = if name.contains('/') {
                root().join(name).is_file()
            } else {
                tests.contains(&format!("fn {name}("))
            };
            assert!(there, "{name} is not there, and holds this: {row}");
        }
    }
}
