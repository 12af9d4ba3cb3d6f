//! Says early what the build needs, and embeds the commit that `--version` and `build_info` show.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=migrations");
    // Changes with every commit; a source archive has none, and naming a missing file would rerun this always.
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    println!("cargo:rerun-if-env-changed=BUILD_COMMIT");
    // Tests that need a service are built in when it is named; otherwise they show as left out.
    for (variable, flag) in [
        ("PG_DSN", "with_postgres"),
        ("KAFKA_BROKERS", "with_kafka"),
        ("KAFKA_TLS_BROKERS", "with_kafka_tls"),
        ("KAFKA_GUEST_BROKERS", "with_kafka_guest"),
    ] {
        println!("cargo::rustc-check-cfg=cfg({flag})");
        println!("cargo:rerun-if-env-changed={variable}");
        if std::env::var(variable).is_ok_and(|value| !value.is_empty()) {
            println!("cargo:rustc-cfg={flag}");
        }
    }
    for tool in ["make", "cc"] {
        if Command::new(tool).arg("--version").output().is_err() {
            println!(
                "cargo::error=the Kafka client and the embedded database are built from C: `{tool}` is missing \
                 (Debian and Ubuntu: apt-get install build-essential)"
            );
            return ExitCode::FAILURE;
        }
    }
    let given = std::env::var("BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    println!(
        "cargo:rustc-env=BUILD_COMMIT={}",
        given.or_else(commit).unwrap_or_else(|| "unknown".to_owned())
    );
    ExitCode::SUCCESS
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(commit).filter(|commit| output.status.success() && !commit.is_empty())
}
