//! What `--help` says of keys, word for word.

use crate::cli::said;

/// What can be done with keys.
#[tokio::test]
async fn help_of_keys() {
    insta::assert_snapshot!(said(&["keys", "-h"]).await, @r"
    Make, list and revoke the keys by which clients say who they are

    Usage: order-tracker keys [OPTIONS] <COMMAND>

    Commands:
      create  Make a key and print it; it is shown only now
      list    List all keys, oldest first
      revoke  End a key; every replica refuses it within 5 seconds
      help    Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help (see more with '--help')

    Logging:
          --log-format <FORMAT>  `text` on a terminal, else `json`, if unset [env: LOG_FORMAT=]
                                 [possible values: text, json]
          --rust-log <FILTER>    What is logged, such as `debug` or `info,order_tracker::http=debug`
                                 [env: RUST_LOG=] [default: info]
    ");
}

/// What a key needs.
#[tokio::test]
async fn help_of_keys_create() {
    insta::assert_snapshot!(said(&["keys", "create", "-h"]).await, @r"
    Make a key and print it; it is shown only now

    Usage: order-tracker keys create [OPTIONS] --name <NAME> --role <ROLE>

    Options:
          --name <NAME>  What it is called, by at most 64 characters; no other key that is good may be
                         called the same
          --role <ROLE>  What it is for [possible values: shop, kitchen, courier, reader, staff, admin]
          --json         Print JSON
      -h, --help         Print help (see more with '--help')

    Database:
          --pg-dsn <postgres://USER:PASSWORD@HOST:PORT/DB>
              PostgreSQL 15 or later; unset means the embedded database [env: PG_DSN]
          --pg-dsn-file <FILE>
              A file that holds the same alone, for secrets; read again when the database can't be
              reached [env: PG_DSN_FILE]
          --pg-max-connections <N>
              Most connections of this replica to PostgreSQL [env: PG_MAX_CONNECTIONS=] [default: 8]
          --data-dir <FOLDER>
              Where the embedded database lives [env: DATA_DIR=] [default: data]

    Logging:
          --log-format <FORMAT>  `text` on a terminal, else `json`, if unset [env: LOG_FORMAT=]
                                 [possible values: text, json]
          --rust-log <FILTER>    What is logged, such as `debug` or `info,order_tracker::http=debug`
                                 [env: RUST_LOG=] [default: info]
    ");
}

/// How one ends.
#[tokio::test]
async fn help_of_keys_revoke() {
    insta::assert_snapshot!(said(&["keys", "revoke", "-h"]).await, @r"
    End a key; every replica refuses it within 5 seconds

    Usage: order-tracker keys revoke [OPTIONS] <ID_OR_NAME>

    Arguments:
      <ID_OR_NAME>  Its id or its name

    Options:
          --json  Print JSON
      -h, --help  Print help (see more with '--help')

    Database:
          --pg-dsn <postgres://USER:PASSWORD@HOST:PORT/DB>
              PostgreSQL 15 or later; unset means the embedded database [env: PG_DSN]
          --pg-dsn-file <FILE>
              A file that holds the same alone, for secrets; read again when the database can't be
              reached [env: PG_DSN_FILE]
          --pg-max-connections <N>
              Most connections of this replica to PostgreSQL [env: PG_MAX_CONNECTIONS=] [default: 8]
          --data-dir <FOLDER>
              Where the embedded database lives [env: DATA_DIR=] [default: data]

    Logging:
          --log-format <FORMAT>  `text` on a terminal, else `json`, if unset [env: LOG_FORMAT=]
                                 [possible values: text, json]
          --rust-log <FILTER>    What is logged, such as `debug` or `info,order_tracker::http=debug`
                                 [env: RUST_LOG=] [default: info]
    ");
}
