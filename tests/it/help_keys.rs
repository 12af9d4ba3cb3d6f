//! What `--help` says of keys, word for word.

use crate::help::help_of;

/// What can be done with keys.
#[tokio::test]
async fn help_of_keys() {
    insta::assert_snapshot!(help_of(&["keys", "-h"]).await, @r"
    Make, list and revoke the keys by which clients say who they are

    Usage: order-tracker keys [OPTIONS] <COMMAND>

    Commands:
      create  Make a key and print it; it is shown only now
      list    List all keys, oldest first
      revoke  End a key; every replica refuses it within 5 seconds
      help    Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help (see more with '--help')

    [logging]
    ");
}

/// What a key needs.
#[tokio::test]
async fn help_of_keys_create() {
    insta::assert_snapshot!(help_of(&["keys", "create", "-h"]).await, @r"
    Make a key and print it; it is shown only now

    Usage: order-tracker keys create [OPTIONS] --name <NAME> --role <ROLE>

    Options:
          --name <NAME>  What it is called, by at most 64 characters; no other key that is good may be
                         called the same
          --role <ROLE>  What it is for [possible values: shop, kitchen, courier, reader, staff, admin]
          --json         Print JSON
      -h, --help         Print help (see more with '--help')

    [database]

    [logging]
    ");
}

/// How one ends.
#[tokio::test]
async fn help_of_keys_revoke() {
    insta::assert_snapshot!(help_of(&["keys", "revoke", "-h"]).await, @r"
    End a key; every replica refuses it within 5 seconds

    Usage: order-tracker keys revoke [OPTIONS] <ID_OR_NAME>

    Arguments:
      <ID_OR_NAME>  Its id or its name

    Options:
          --json  Print JSON
      -h, --help  Print help (see more with '--help')

    [database]

    [logging]
    ");
}
