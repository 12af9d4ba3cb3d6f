//! What `--help` says, word for word: whoever changes it sees it here.

use crate::cli::said;

/// What all commands say alike, and in which words it stands in the snapshots.
const ALIKE: [(&str, &str); 3] = [
    (
        r"Logging:
      --log-format <FORMAT>  `text` on a terminal, else `json`, if unset [env: LOG_FORMAT=]
                             [possible values: text, json]
      --rust-log <FILTER>    What is logged, such as `debug` or `info,order_tracker::http=debug`
                             [env: RUST_LOG=] [default: info]",
        "[logging]",
    ),
    (
        r"Logging:
      --log-format <FORMAT>
          `text` on a terminal, else `json`, if unset

          Possible values:
          - text: For people
          - json: For programs, one object a line

          [env: LOG_FORMAT=]

      --rust-log <FILTER>
          What is logged, such as `debug` or `info,order_tracker::http=debug`

          [env: RUST_LOG=]
          [default: info]",
        "[logging at length]",
    ),
    (
        r"Database:
      --pg-dsn <postgres://USER:PASSWORD@HOST:PORT/DB>
          PostgreSQL 15 or later; unset means the embedded database [env: PG_DSN]
      --pg-dsn-file <FILE>
          A file that holds the same alone, for secrets; read again when the database can't be
          reached [env: PG_DSN_FILE]
      --pg-max-connections <N>
          Most connections of this replica to PostgreSQL [env: PG_MAX_CONNECTIONS=] [default: 8]
      --data-dir <FOLDER>
          Where the embedded database lives [env: DATA_DIR=] [default: data]",
        "[database]",
    ),
];

/// What is said without what all commands say alike.
pub(crate) async fn help_of(arguments: &[&str]) -> String {
    ALIKE.iter().fold(said(arguments).await, |help, (text, name)| help.replace(text, name))
}

/// Every setting with its variable and default.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one text")]
async fn help_of_the_service() {
    insta::assert_snapshot!(said(&["--help"]).await, @r"
    Takes food orders, walks each one to its delivery, and can prove that none was lost

    Without a command it serves. Without settings it keeps orders in ./data and starts a broker of its
    own, so nothing else is needed.

    Usage: order-tracker [OPTIONS]
           order-tracker <COMMAND>

    Commands:
      serve         Run the service (the default)
      migrate       Bring the database's schema up to date and exit
      healthcheck   Ask a running service whether it lives; for containers
      order         Place, look up and report on orders of a running service
      events        Read everything that happened to all orders, and follow it
      simulate      Place made-up orders on a running service and measure how it takes them
      verify        Check every promise against database and topic; exit code 1 on any violation
      republish     Publish orders again that a broker has lost; a running service does it
      keys          Make, list and revoke the keys by which clients say who they are
      dead-letters  Look at messages that could not become orders, and requeue them
      completions   Print a completion script for a shell
      man           Print the manual page; `order-tracker man | man -l -` shows it
      help          Print this message or the help of the given subcommand(s)

    Options:
          --no-demo
              Place no first order where the embedded database is empty and a terminal watches

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    HTTP:
          --app-host <HOST>
              Where HTTP listens

              [env: APP_HOST=]
              [default: 127.0.0.1]

          --app-port <PORT>
              Where HTTP listens; 0 takes a free port and prints it

              [env: APP_PORT=]
              [default: 8080]

          --trusted-proxies <CIDR,...>
              Networks of proxies whose `X-Forwarded-For` is believed: a client's address is then the
              last in it that is none of theirs

              [env: TRUSTED_PROXIES=]

          --auth <BY>
              Who may ask: `open`, everybody everything; `keys`, who has a key what its role may
              (`order-tracker keys create`)

              [env: AUTH=]
              [default: open]

          --public-url <https://HOST>
              Where clients reach the service, without a path, if that is not where it listens

              [env: PUBLIC_URL=]

          --cors-origins <https://HOST,...>
              Other sites whose pages may use the API from a browser, each by its origin

              [env: CORS_ORIGINS=]

          --metrics-addr <HOST:PORT>
              Where `/metrics` is served alone and without a key; unset means where all else is

              [env: METRICS_ADDR=]

    Database:
          --pg-dsn <postgres://USER:PASSWORD@HOST:PORT/DB>
              PostgreSQL 15 or later; unset means the embedded database

              [env: PG_DSN]

          --pg-dsn-file <FILE>
              A file that holds the same alone, for secrets; read again when the database can't be
              reached

              [env: PG_DSN_FILE]

          --pg-max-connections <N>
              Most connections of this replica to PostgreSQL

              [env: PG_MAX_CONNECTIONS=]
              [default: 8]

          --data-dir <FOLDER>
              Where the embedded database lives

              [env: DATA_DIR=]
              [default: data]

    Kafka:
          --kafka-brokers <HOST:PORT,...>
              Bootstrap servers, comma-separated; unset means the embedded broker

              [env: KAFKA_BROKERS=]

          --kafka-topic <TOPIC>
              Where orders are published; created if missing

              [env: KAFKA_TOPIC=]
              [default: orders.v1]

          --kafka-dlq-topic <TOPIC>
              Where messages go that can't become orders; `<topic>.dlq` if unset; created if missing

              [env: KAFKA_DLQ_TOPIC=]

          --kafka-events-topic <TOPIC>
              Where every event goes, for others to follow; created if missing; `off` writes none

              [env: KAFKA_EVENTS_TOPIC=]
              [default: order-events.v1]

          --kafka-topic-partitions <N>
              Used only when the topic is created

              [env: KAFKA_TOPIC_PARTITIONS=]
              [default: 6]

          --kafka-topic-replication <N>
              Used only when the topic is created

              [env: KAFKA_TOPIC_REPLICATION=]
              [default: 1]

          --kafka-group <GROUP>
              Consumer group, shared by all replicas

              [env: KAFKA_GROUP=]
              [default: order-tracker]

          --kafka-properties <NAME=VALUE,...>
              Handed to the Kafka client as they are (TLS, SASL, ...); a comma inside a value is `\,`

              [env: KAFKA_PROPERTIES]

    Orders:
          --stage-delays <DURATION,...>
              Time spent in each status before the last; one value stands for all

              [env: STAGE_DELAYS=]
              [default: 3s,5s,7s,10s]

          --progression <BY>
              What moves new orders: `timer` by their delays, a report may come earlier; `reported` by
              reports alone

              [env: PROGRESSION=]
              [default: timer]

          --cancel-unaccepted-after <DURATION>
              After how long an order that is still PLACED is cancelled; only with PROGRESSION=reported;
              unset means never

              [env: CANCEL_UNACCEPTED_AFTER=]

          --undo-window <DURATION>
              How young a step must be to be taken back; 0s means that none can be

              [env: UNDO_WINDOW=]
              [default: 5m]

          --simulate-rate <RATE>
              Orders a second that the service places by itself; 0 means none

              [env: SIMULATE_RATE=]
              [default: 0]

          --shutdown-timeout <DURATION>
              How long SIGTERM may take

              [env: SHUTDOWN_TIMEOUT=]
              [default: 10s]

          --shutdown-delay <DURATION>
              How long requests are served after SIGTERM while `/readyz` says 503 already, for balancers
              to hear of it

              [env: SHUTDOWN_DELAY=]
              [default: 0s]

    Logging:
          --log-format <FORMAT>
              `text` on a terminal, else `json`, if unset

              Possible values:
              - text: For people
              - json: For programs, one object a line

              [env: LOG_FORMAT=]

          --rust-log <FILTER>
              What is logged, such as `debug` or `info,order_tracker::http=debug`

              [env: RUST_LOG=]
              [default: info]

    Exit codes:
      0    well
      1    failed: nobody answered, a promise is broken, an order was not placed
      2    a setting or an argument is wrong
      130  stopped by Ctrl-C; a service and a load, which end in order, by the second one
    ");
}

/// What can be done with orders.
#[tokio::test]
async fn help_of_order() {
    insta::assert_snapshot!(help_of(&["order", "--help"]).await, @r"
    Place, look up and report on orders of a running service

    Usage: order-tracker order [OPTIONS] <COMMAND>

    Commands:
      create   Place an order and print its id
      get      Show an order and its timeline
      list     List the newest orders
      watch    Follow an order until it is delivered or cancelled; exit code 1 if that can't be seen
      report   Report what happened to an order
      cancel   Cancel an order
      explain  Say why an order stands where it stands, and what may be done
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

    [logging at length]
    ");
}

/// What an order needs.
#[tokio::test]
async fn help_of_order_create() {
    insta::assert_snapshot!(help_of(&["order", "create", "--help"]).await, @r"
    Place an order and print its id

    Usage: order-tracker order create [OPTIONS] --customer-name <CUSTOMER_NAME> --address <ADDRESS> --item <ITEM>

    Options:
          --customer-name <CUSTOMER_NAME>
              Who orders

          --address <ADDRESS>
              Where it goes

          --item <ITEM>
              What is ordered

          --size <SIZE>
              How large

              [default: medium]
              [possible values: small, medium, large]

          --idempotency-key <KEY>
              Sent as Idempotency-Key: the same key never places a second order

          --url <URL>
              Where the service listens, http:// or https://; `SSL_CERT_FILE` names certificates to
              trust in place of the system's, and `ORDER_TRACKER_KEY` holds the key if it asks for one

              [env: ORDER_TRACKER_URL]
              [default: http://127.0.0.1:8080]

          --json
              Print JSON, complaints on stderr too

      -h, --help
              Print help (see a summary with '-h')

    [logging at length]
    ");
}

/// What a list can be asked for.
#[tokio::test]
async fn help_of_order_list() {
    insta::assert_snapshot!(help_of(&["order", "list", "-h"]).await, @r"
    List the newest orders

    Usage: order-tracker order list [OPTIONS]

    Options:
          --status <STATUS>    Only orders in this status [possible values: PLACED, PREPARING, COOKING,
                               OUT_FOR_DELIVERY, DELIVERED, CANCELLED]
          --limit <N>          How many at most [default: 20]
          --all                As many as there are
          --cursor <ORDER_ID>  Only orders older than this one: the last of the list before
          --url <URL>          Where the service listens, http:// or https://; `SSL_CERT_FILE` names
                               certificates to trust in place of the system's, and `ORDER_TRACKER_KEY`
                               holds the key if it asks for one [env: ORDER_TRACKER_URL] [default:
                               http://127.0.0.1:8080]
          --json               Print JSON, complaints on stderr too
      -h, --help               Print help (see more with '--help')

    [logging]
    ");
}

/// What can be read of everything that happened.
#[tokio::test]
async fn help_of_events() {
    insta::assert_snapshot!(help_of(&["events", "-h"]).await, @r"
    Read everything that happened to all orders, and follow it

    Usage: order-tracker events [OPTIONS]

    Options:
          --after <CURSOR>  Only what comes behind this cursor, or `now` for what comes from here on
          --event <EVENT>   Only events of this kind [possible values: CREATED, PLACED, PREPARING,
                            COOKING, OUT_FOR_DELIVERY, DELIVERED, CANCELLED, READY, COURIER_ASSIGNED,
                            COURIER_AT_PICKUP, COURIER_AT_DOOR, DELIVERY_FAILED, DELAYED, REVERTED,
                            ERASED]
          --limit <N>       How many at most; as many as there are unless given
          --follow          Go on with what happens from then on
          --url <URL>       Where the service listens, http:// or https://; `SSL_CERT_FILE` names
                            certificates to trust in place of the system's, and `ORDER_TRACKER_KEY`
                            holds the key if it asks for one [env: ORDER_TRACKER_URL] [default:
                            http://127.0.0.1:8080]
          --json            Print JSON, complaints on stderr too
      -h, --help            Print help (see more with '--help')

    [logging]
    ");
}
