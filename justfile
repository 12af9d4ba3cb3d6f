# What people do here, by name. `just` lists it.

[private]
default:
    @just --list

# Start the service on embedded defaults.
run *args:
    cargo run --release -- {{args}}

# Run all tests that need no service.
test *args:
    cargo test {{args}}

# Try the pages in Chromium; `--pictures` makes the screenshots anew.
browser *args:
    tests/browser/run {{args}}

# What CI checks, without installing anything.
check: lint deny test

# Format, clippy and documentation, warnings as errors.
lint:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --lib --examples

# Look for answers that `/openapi.json` does not promise; the argument is test cases per operation.
api *examples:
    cargo build
    ci/schemathesis {{examples}}

# Licences, bans and sources of dependencies.
deny:
    cargo deny --offline check licenses bans sources

# Build what a release ships: slower to build, smaller.
dist:
    cargo build --profile dist

# Break everything, one fault after the other, and count what was lost (about 20 minutes).
faults *args="--all":
    tools/stack run cargo test --test faults -- {{args}}

# Half an hour of random faults; `--seed N` repeats them, `--orders N` makes it shorter (2000 is half an hour).
soak *args:
    tools/stack run cargo test --test faults -- --soak {{args}}

# Watch it: orders come in, the broker dies, the database restarts, a replica is killed; then the count.
rehearse:
    tools/stack run cargo test --test faults -- --rehearse

# Measure the service on what is configured (embedded, or PG_DSN and KAFKA_BROKERS): about 3 minutes, `--quick` is seconds.
bench *args:
    cargo bench --bench service -- {{args}}

# Measure what an order costs before any I/O.
bench-pure *args:
    cargo bench --bench pure -- {{args}}
