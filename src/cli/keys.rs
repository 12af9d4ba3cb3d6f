//! `keys create|list|revoke`: by the owner of the database, beside a running service and before the first start.

use anyhow::{Context as _, bail};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::json;

use super::{clean, output};
use crate::{
    app::{self, IfMissing, config::StoreConfig},
    keys::{ApiKey, KeyCreation, KeyId, KeyList, KeyRecord, MAX_LIVE_KEYS, MAX_NAME_CHARS, StoredKey},
    order::{Role, Timestamp},
};

#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key and print it; it is shown only now
    Create(CreateArgs),
    /// List all keys, oldest first
    List(ListArgs),
    /// End a key; every replica refuses it within 5 seconds
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What it is called, by at most 64 characters; no other key that is good may be called the same
    #[arg(long, value_parser = name)]
    name: String,
    /// What it is for
    #[arg(long, value_parser = roles())]
    role: Role,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreConfig,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreConfig,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// Its id or its name
    #[arg(value_name = "ID_OR_NAME")]
    key: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreConfig,
}

fn name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let legal = (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    let allowed = || format!("must be 1 to {MAX_NAME_CHARS} characters, none of them a control character");
    legal.then(|| name.to_owned()).ok_or_else(allowed)
}

fn roles() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|text| text.parse::<Role>())
}

impl KeysArgs {
    /// What no single setting can tell.
    pub(super) fn check(&self) -> Result<(), String> {
        self.store().check()
    }

    fn store(&self) -> &StoreConfig {
        match &self.command {
            KeysCommand::Create(args) => &args.store,
            KeysCommand::List(args) => &args.store,
            KeysCommand::Revoke(args) => &args.store,
        }
    }
}

pub(super) async fn run(args: &KeysArgs) -> anyhow::Result<()> {
    // Only who makes a key makes a database, too.
    let if_missing = match args.command {
        KeysCommand::Create(_) => IfMissing::Create,
        KeysCommand::List(_) | KeysCommand::Revoke(_) => IfMissing::Fail,
    };
    let store = app::open_for_keys(args.store(), if_missing).await?;
    let done = async {
        match &args.command {
            KeysCommand::Create(args) => {
                let (key, stored) = drawn(args);
                let outcome = store.create_key(&stored).await.context("can't make the key")?;
                tell_created(args, &key, &stored, outcome)
            }
            KeysCommand::List(args) => {
                tell_all(args, &store.list_keys().await.context("can't read the keys")?)
            }
            KeysCommand::Revoke(args) => {
                let given = args.key.trim();
                let revoked = match given.parse::<ApiKey>() {
                    // A key that was found somewhere; nothing here shows it again.
                    Ok(key) => {
                        let live = store.live_keys().await.context("can't read the keys")?;
                        let found = live.into_iter().find(|stored| stored.hash == key.hash());
                        let Some(found) = found else { bail!("this key is unknown or revoked already") };
                        store.revoke_key(found.id.as_str()).await
                    }
                    Err(_) => store.revoke_key(given).await,
                };
                let revoked = revoked.context("can't revoke the key")?;
                let Some(key) = revoked else { bail!("no key has the id or the name {given:?}") };
                if args.json { output::print_json(&key) } else { output::print(row(&key).trim_end()) }
            }
        }
    };
    let done = done.await;
    store.close().await;
    done
}

fn drawn(CreateArgs { name, role, .. }: &CreateArgs) -> (ApiKey, StoredKey) {
    let random = &mut rand::rng();
    let (key, id) = (ApiKey::random(random), KeyId::random(random));
    let stored = StoredKey { id, name: name.clone(), role: *role, hash: key.hash() };
    (key, stored)
}

fn tell_created(
    args: &CreateArgs,
    key: &ApiKey,
    stored: &StoredKey,
    outcome: KeyCreation,
) -> anyhow::Result<()> {
    let StoredKey { id, name, role, .. } = stored;
    match outcome {
        KeyCreation::Created => {}
        KeyCreation::NameTaken => {
            bail!("a key that is good is called {name:?} already: revoke that one, or take another name")
        }
        KeyCreation::TooMany => bail!("{MAX_LIVE_KEYS} keys are good, and more can't be: revoke some first"),
    }
    let note = format!("the key {id} ({role}, {name:?}) is shown only now; only its SHA-256 is kept");
    output::note(&note);
    if args.json {
        let key = key.reveal();
        return output::print_json(
            &json!({"id": id.as_str(), "name": name, "role": role.as_str(), "key": key}),
        );
    }
    output::print(key.reveal())
}

fn tell_all(args: &ListArgs, KeyList { keys, unreadable }: &KeyList) -> anyhow::Result<()> {
    for id in unreadable {
        output::note(&format!("the key {id} holds what no key can hold, and is good for nothing"));
    }
    if args.json {
        return output::print_json(keys);
    }
    let table: String = keys.iter().map(row).collect();
    output::print_raw(table.as_bytes())
}

fn row(key: &KeyRecord) -> String {
    let KeyRecord { id, name, role, created_at, last_used_at, revoked_at } = key;
    let made = shown(*created_at, "%Y-%m-%d %H:%M:%S");
    let used = last_used_at.map(|at| format!("used {}", shown(at, "%Y-%m-%d %H:%M")));
    let used = used.unwrap_or_else(|| "never used".to_owned());
    let state = revoked_at.map(|at| format!("revoked {}", shown(at, "%Y-%m-%d %H:%M:%S")));
    let state = state.unwrap_or_else(|| "good".to_owned());
    format!("{id}  {:7}  made {made}  {used:25}  {state:31}  {}\n", role.as_str(), clean::line(name))
}

fn shown(at: Timestamp, form: &str) -> String {
    format!("{} UTC", at.format(form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_bounded() {
        assert_eq!(name("  Ada's till ü\t"), Ok("Ada's till ü".to_owned()));
        assert_eq!(name(&"ü".repeat(64)), Ok("ü".repeat(64)));
        for odd in ["", "  ", "a\nb", "a\u{1b}[31mb", &"x".repeat(65)] {
            assert!(name(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_row_says_what_it_is_when_it_was_used_and_when_it_ended() {
        let at: Timestamp = "2026-01-02T03:04:05Z".parse().expect("a moment");
        let key = KeyRecord {
            id: "AbCdEfGhIjK1".parse().expect("an id"),
            name: "stove \u{202e}".to_owned(),
            role: Role::Kitchen,
            created_at: at,
            last_used_at: None,
            revoked_at: None,
        };
        let text = row(&key);
        assert!(
            text.starts_with("AbCdEfGhIjK1  kitchen  made 2026-01-02 03:04:05 UTC  never used  "),
            "{text}"
        );
        assert!(!text.contains('\u{202e}'), "{text}");
        let text = row(&KeyRecord { last_used_at: Some(at), revoked_at: Some(at), ..key });
        assert!(text.contains("  used 2026-01-02 03:04 UTC  "), "{text}");
        assert!(text.contains("  revoked 2026-01-02 03:04:05 UTC  stove"), "{text}");
    }
}
